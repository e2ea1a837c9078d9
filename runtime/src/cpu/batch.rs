//! A batch, laid out in rows.

use super::slots::Slots;
use crate::batch::{check, output_rows};
use crate::device::{DeviceError, Limits, SequenceChunk, SlotId};

/// The rows of one sequence in the step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) slot: SlotId,
    /// First token row.
    pub(super) start: usize,
    /// Number of token rows.
    pub(super) len: usize,
    /// Tokens the sequence has taken before.
    pub(super) position: usize,
}

impl Chunk {
    /// Its rows of a matrix with `cols` columns.
    pub(super) fn of<'m, T>(&self, matrix: &'m [T], cols: usize) -> &'m [T] {
        &matrix[self.start * cols..][..self.len * cols]
    }

    /// Its rows of a matrix with `cols` columns.
    pub(super) fn of_mut<'m, T>(&self, matrix: &'m mut [T], cols: usize) -> &'m mut [T] {
        &mut matrix[self.start * cols..][..self.len * cols]
    }
}

/// What a step works on. Its vectors are reused from step to step.
#[derive(Clone, Default)]
pub(super) struct Batch {
    pub(super) chunks: Vec<Chunk>,
    pub(super) tokens: Vec<u32>,
    /// Token rows whose logits are wanted.
    pub(super) outputs: Vec<usize>,
}

impl Batch {
    /// Checks `batch` and takes it over.
    pub(super) fn load(
        &mut self,
        batch: &[SequenceChunk<'_>],
        slots: &Slots,
        limits: &Limits,
        vocab_size: usize,
    ) -> Result<(), DeviceError> {
        check(batch, limits, vocab_size, |slot| slots.position(slot))?;
        self.chunks.clear();
        self.tokens.clear();
        self.outputs.clear();
        batch.iter().try_for_each(|chunk| self.add(chunk, slots))
    }

    fn add(&mut self, chunk: &SequenceChunk<'_>, slots: &Slots) -> Result<(), DeviceError> {
        let (start, len, position) = (self.tokens.len(), chunk.tokens.len(), slots.position(chunk.slot)?);
        self.tokens.extend_from_slice(chunk.tokens);
        output_rows(chunk, start, |row| self.outputs.push(row));
        self.chunks.push(Chunk { slot: chunk.slot, start, len, position });
        Ok(())
    }
}
