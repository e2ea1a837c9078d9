//! A batch, checked and laid out in rows.

use super::slots::Slots;
use crate::device::{DeviceError, Limits, Outputs, SequenceChunk, SlotId};

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
        self.chunks.clear();
        self.tokens.clear();
        self.outputs.clear();
        for chunk in batch {
            self.add(chunk, slots, vocab_size)?;
        }
        let rows = self.tokens.len();
        if rows == 0 {
            return Err(DeviceError::EmptyBatch);
        }
        if rows > limits.step_rows {
            return Err(DeviceError::StepTooLarge { rows, limit: limits.step_rows });
        }
        Ok(())
    }

    fn add(&mut self, chunk: &SequenceChunk<'_>, slots: &Slots, vocab_size: usize) -> Result<(), DeviceError> {
        let position = slots.position(chunk.slot)?;
        if self.chunks.iter().any(|other| other.slot == chunk.slot) {
            return Err(DeviceError::RepeatedSlot(chunk.slot));
        }
        if chunk.tokens.is_empty() {
            return Err(DeviceError::EmptyChunk(chunk.slot));
        }
        let unknown = |&token: &u32| token as usize >= vocab_size;
        if let Some(index) = chunk.tokens.iter().position(unknown) {
            return Err(DeviceError::UnknownToken {
                token: chunk.tokens[index],
                position: position + index,
                vocab_size,
            });
        }
        let (start, len) = (self.tokens.len(), chunk.tokens.len());
        self.tokens.extend_from_slice(chunk.tokens);
        self.add_outputs(chunk, start)?;
        self.chunks.push(Chunk { slot: chunk.slot, start, len, position });
        Ok(())
    }

    fn add_outputs(&mut self, chunk: &SequenceChunk<'_>, start: usize) -> Result<(), DeviceError> {
        let len = chunk.tokens.len();
        match chunk.outputs {
            Outputs::None => {}
            Outputs::Last => self.outputs.push(start + len - 1),
            Outputs::All => self.outputs.extend(start..start + len),
            Outputs::Rows(rows) => {
                let descends = rows.windows(2).find(|pair| pair[0] >= pair[1]).map(|pair| pair[1]);
                let outside = rows.iter().copied().find(|&row| row as usize >= len);
                if let Some(row) = outside.or(descends) {
                    return Err(DeviceError::BadOutputRow { slot: chunk.slot.0, row, tokens: len });
                }
                self.outputs.extend(rows.iter().map(|&row| start + row as usize));
            }
        }
        Ok(())
    }
}
