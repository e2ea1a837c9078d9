//! What every device demands of a batch, whatever it then does with it.

use crate::device::{DeviceError, Limits, Outputs, SequenceChunk, SlotId};

/// Refuses a batch that no device runs. `position` is the number of tokens that a slot has taken.
pub(crate) fn check(
    batch: &[SequenceChunk<'_>],
    limits: &Limits,
    vocab_size: usize,
    position: impl Fn(SlotId) -> Result<usize, DeviceError>,
) -> Result<(), DeviceError> {
    if batch.is_empty() {
        return Err(DeviceError::EmptyBatch);
    }
    let rows = batch.iter().map(|chunk| chunk.tokens.len()).sum();
    if rows > limits.step_rows {
        return Err(DeviceError::StepTooLarge { rows, limit: limits.step_rows });
    }
    for (index, chunk) in batch.iter().enumerate() {
        let position = position(chunk.slot)?;
        if batch[..index].iter().any(|other| other.slot == chunk.slot) {
            return Err(DeviceError::RepeatedSlot(chunk.slot));
        }
        check_tokens(chunk, position, vocab_size)?;
        check_outputs(chunk)?;
    }
    Ok(())
}

fn check_tokens(chunk: &SequenceChunk<'_>, position: usize, vocab_size: usize) -> Result<(), DeviceError> {
    if chunk.tokens.is_empty() {
        return Err(DeviceError::EmptyChunk(chunk.slot));
    }
    match chunk.tokens.iter().position(|token| *token as usize >= vocab_size) {
        None => Ok(()),
        Some(index) => {
            let token = chunk.tokens[index];
            Err(DeviceError::UnknownToken { token, position: position + index, vocab_size })
        }
    }
}

fn check_outputs(chunk: &SequenceChunk<'_>) -> Result<(), DeviceError> {
    let Outputs::Rows(rows) = chunk.outputs else { return Ok(()) };
    let len = chunk.tokens.len();
    let descends = rows.windows(2).find(|pair| pair[0] >= pair[1]).map(|pair| pair[1]);
    let outside = rows.iter().copied().find(|&row| row as usize >= len);
    match outside.or(descends) {
        None => Ok(()),
        Some(row) => Err(DeviceError::BadOutputRow { slot: chunk.slot.0, row, tokens: len }),
    }
}

/// The rows of a checked chunk whose logits are wanted, calling its first row `start`.
pub(crate) fn output_rows(chunk: &SequenceChunk<'_>, start: usize, mut add: impl FnMut(usize)) {
    let end = start + chunk.tokens.len();
    match chunk.outputs {
        Outputs::None => {}
        Outputs::Last => add(end - 1),
        Outputs::All => (start..end).for_each(add),
        Outputs::Rows(rows) => rows.iter().for_each(|row| add(start + *row as usize)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk<'a>(slot: u32, tokens: &'a [u32], outputs: Outputs<'a>) -> SequenceChunk<'a> {
        SequenceChunk { slot: SlotId(slot), tokens, outputs }
    }

    /// Of three slots that have taken 5 tokens, steps of 4 rows and 10 tokens in the vocabulary.
    fn checked(batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError> {
        let limits = Limits { step_rows: 4, ..Limits::default() };
        check(batch, &limits, 10, |slot| if slot.0 < 3 { Ok(5) } else { Err(DeviceError::UnknownSlot(slot)) })
    }

    #[test]
    fn takes_what_fits_and_says_which_rows_have_outputs() {
        let batch = [chunk(2, &[1, 9, 0], Outputs::Rows(&[0, 2])), chunk(0, &[3], Outputs::Last)];
        checked(&batch).unwrap();
        let mut rows = Vec::new();
        output_rows(&batch[0], 0, |row| rows.push(row));
        output_rows(&batch[1], 3, |row| rows.push(row));
        output_rows(&chunk(1, &[4, 4], Outputs::All), 10, |row| rows.push(row));
        output_rows(&chunk(1, &[4, 4], Outputs::None), 20, |row| rows.push(row));
        assert_eq!(rows, [0, 2, 3, 10, 11]);
    }

    #[test]
    fn refuses_what_no_device_runs() {
        use DeviceError::*;
        let one = |tokens, outputs| checked(&[chunk(0, tokens, outputs)]).unwrap_err();
        assert!(matches!(checked(&[]).unwrap_err(), EmptyBatch));
        assert!(matches!(one(&[1; 5], Outputs::None), StepTooLarge { rows: 5, limit: 4 }));
        assert!(matches!(one(&[], Outputs::None), EmptyChunk(SlotId(0))));
        assert!(matches!(one(&[1, 10], Outputs::None), UnknownToken { token: 10, position: 6, vocab_size: 10 }));
        assert!(matches!(one(&[1, 2], Outputs::Rows(&[2])), BadOutputRow { slot: 0, row: 2, tokens: 2 }));
        assert!(matches!(one(&[1, 2], Outputs::Rows(&[1, 0])), BadOutputRow { slot: 0, row: 0, tokens: 2 }));
        let twice = [chunk(1, &[1], Outputs::Last), chunk(1, &[2], Outputs::Last)];
        assert!(matches!(checked(&twice).unwrap_err(), RepeatedSlot(SlotId(1))));
        assert!(matches!(checked(&[chunk(3, &[1], Outputs::Last)]).unwrap_err(), UnknownSlot(SlotId(3))));
    }
}
