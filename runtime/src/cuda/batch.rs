//! A batch, checked, laid out in rows and uploaded: one copy from page-locked memory a step.

use super::driver::{Memory, Pinned, Stream};
use super::params;
use super::slots::Slots;
use crate::batch::{check, output_rows};
use crate::device::{DeviceError, Limits, SequenceChunk, SlotId};

/// What the launches of a step depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct StepShape {
    pub(super) rows: usize,
    pub(super) outputs: usize,
    pub(super) sequences: usize,
    /// Rows of the longest chunk.
    pub(super) longest: usize,
    /// Some context is longer than `SHORT_CONTEXT`.
    pub(super) long_context: bool,
}

/// Tokens up to which attention of one token takes a context as a whole.
const SHORT_CONTEXT: usize = 384;

impl StepShape {
    /// Every sequence takes one token.
    pub(super) fn is_decode(&self) -> bool {
        self.longest == 1
    }
}

/// Offsets of the arrays in the uploaded block, for `rows` rows at most.
#[derive(Clone, Copy)]
struct Layout {
    rows: usize,
}

impl Layout {
    const ALIGN: usize = 256;

    /// Array number `index`: two of u64 a sequence, then of u32.
    fn offset(self, index: usize) -> usize {
        let wide = (self.rows * 8).next_multiple_of(Self::ALIGN);
        let narrow = ((self.rows + 1) * 4).next_multiple_of(Self::ALIGN);
        wide * index.min(2) + narrow * index.saturating_sub(2)
    }

    fn bytes(self) -> usize {
        self.offset(ARRAYS)
    }
}

const SEQ_BASE: usize = 0;
const SEQ_CACHE: usize = 1;
const SEQ_CAPACITY: usize = 2;
const SEQ_START: usize = 3;
const SEQ_POS: usize = 4;
const ROW_SEQ: usize = 5;
const TOKENS: usize = 6;
const OUT_ROWS: usize = 7;
const ARRAYS: usize = 8;

pub(super) struct Batch {
    /// Slots and numbers of tokens.
    pub(super) chunks: Vec<(SlotId, usize)>,
    pub(super) shape: StepShape,
    layout: Layout,
    host: Pinned,
    device: Memory,
}

impl Batch {
    pub(super) fn new(step_rows: usize) -> Result<Batch, DeviceError> {
        let layout = Layout { rows: step_rows };
        Ok(Batch {
            chunks: Vec::new(),
            shape: StepShape::default(),
            layout,
            host: Pinned::allocate(layout.bytes())?,
            device: Memory::allocate(layout.bytes(), "the batch")?,
        })
    }

    fn address(&self, array: usize) -> u64 {
        self.device.address() + self.layout.offset(array) as u64
    }

    pub(super) fn tokens(&self) -> u64 {
        self.address(TOKENS)
    }

    pub(super) fn out_rows(&self) -> u64 {
        self.address(OUT_ROWS)
    }

    pub(super) fn params(&self) -> params::Batch {
        params::Batch {
            seq_base: self.address(SEQ_BASE),
            seq_cache: self.address(SEQ_CACHE),
            seq_capacity: self.address(SEQ_CAPACITY),
            seq_start: self.address(SEQ_START),
            seq_pos: self.address(SEQ_POS),
            row_seq: self.address(ROW_SEQ),
        }
    }

    /// Checks a batch; changes nothing but this.
    pub(super) fn load(
        &mut self,
        batch: &[SequenceChunk<'_>],
        slots: &Slots,
        limits: &Limits,
        vocab_size: usize,
    ) -> Result<(), DeviceError> {
        check(batch, limits, vocab_size, |slot| slots.position(slot))?;
        self.chunks.clear();
        self.shape = StepShape::default();
        batch.iter().try_for_each(|chunk| self.add(chunk, slots))?;
        let end = self.shape.rows as u32;
        let sequences = self.shape.sequences;
        self.words(SEQ_START)[sequences] = end;
        Ok(())
    }

    fn add(&mut self, chunk: &SequenceChunk<'_>, slots: &Slots) -> Result<(), DeviceError> {
        let (start, len, sequence) = (self.shape.rows, chunk.tokens.len(), self.shape.sequences);
        let position = slots.position(chunk.slot)?;
        self.words(TOKENS)[start..start + len].copy_from_slice(chunk.tokens);
        self.words(ROW_SEQ)[start..start + len].fill(sequence as u32);
        self.words(SEQ_START)[sequence] = start as u32;
        self.words(SEQ_POS)[sequence] = position as u32;
        output_rows(chunk, start, |row| self.add_output(row));
        self.shape.rows += len;
        self.shape.sequences += 1;
        self.shape.longest = self.shape.longest.max(len);
        self.shape.long_context |= position + len > SHORT_CONTEXT;
        self.chunks.push((chunk.slot, len));
        Ok(())
    }

    fn add_output(&mut self, row: usize) {
        let index = self.shape.outputs;
        self.words(OUT_ROWS)[index] = row as u32;
        self.shape.outputs += 1;
    }

    /// Sends the batch. The addresses of slots are final by then.
    pub(super) fn upload(&mut self, slots: &Slots, stream: &Stream) -> Result<(), DeviceError> {
        for index in 0..self.chunks.len() {
            let (base, cache, capacity) = slots.addresses(self.chunks[index].0)?;
            self.wide(SEQ_BASE)[index] = base;
            self.wide(SEQ_CACHE)[index] = cache;
            self.words(SEQ_CAPACITY)[index] = capacity as u32;
        }
        stream.upload(self.device.address(), self.host.as_slice())
    }

    fn words(&mut self, array: usize) -> &mut [u32] {
        let (start, end) = (self.layout.offset(array), self.layout.offset(array + 1));
        bytemuck::cast_slice_mut(&mut self.host.as_mut_slice()[start..end])
    }

    fn wide(&mut self, array: usize) -> &mut [u64] {
        let (start, end) = (self.layout.offset(array), self.layout.offset(array + 1));
        bytemuck::cast_slice_mut(&mut self.host.as_mut_slice()[start..end])
    }
}
