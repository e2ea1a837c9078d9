//! The same prompt continued on two devices, always by the likeliest token.

use crate::device::{Device, DeviceError, Outputs, SequenceChunk, SlotId, likeliest};
use serde::Serialize;

/// How long two devices say the same.
#[derive(Clone, Debug, Serialize)]
pub struct GreedyReport {
    /// Tokens asked for.
    pub tokens: usize,
    /// Tokens before the first that differs.
    pub equal: usize,
    /// The first that differs.
    pub split: Option<Split>,
    /// All are equal, or the first that differs is a tie within rounding.
    pub passes: bool,
}

/// Where two texts part.
#[derive(Clone, Debug, Serialize)]
pub struct Split {
    /// The reference's choice.
    pub expected: u32,
    /// The device's choice.
    pub found: u32,
    /// Distance of the logits of both choices, over the size of the logits of this step in root mean square, on the
    /// reference.
    pub gap: f64,
    /// What the logits of both devices may differ by.
    pub bound: f64,
}

/// Feeds both the choices of the reference, which are those of the device until the first that differs.
pub(super) fn compare_greedy(
    reference: &mut dyn Device,
    device: &mut dyn Device,
    prompt: &[u32],
    tokens: usize,
    bound: f64,
) -> Result<GreedyReport, DeviceError> {
    let slots = (reference.create_slot()?, device.create_slot()?);
    let report = continue_both(reference, device, slots, prompt, tokens, bound);
    reference.release_slot(slots.0)?;
    device.release_slot(slots.1)?;
    report
}

fn continue_both(
    reference: &mut dyn Device,
    device: &mut dyn Device,
    slots: (SlotId, SlotId),
    prompt: &[u32],
    tokens: usize,
    bound: f64,
) -> Result<GreedyReport, DeviceError> {
    let mut input = prompt.to_vec();
    for equal in 0..tokens {
        let chunk = |slot| [SequenceChunk { slot, tokens: &input, outputs: Outputs::Last }];
        let logits = reference.step(&chunk(slots.0))?.values.to_vec();
        let expected = likeliest(&logits);
        let found = device.step_greedy(&chunk(slots.1))?[0];
        if expected != found {
            let split = Split { expected, found, gap: gap(&logits, expected, found), bound };
            let passes = split.gap <= bound;
            return Ok(GreedyReport { tokens, equal, split: Some(split), passes });
        }
        input = vec![expected];
    }
    Ok(GreedyReport { tokens, equal: tokens, split: None, passes: true })
}

fn gap(logits: &[f32], expected: u32, found: u32) -> f64 {
    let squares: f64 = logits.iter().map(|logit| f64::from(*logit).powi(2)).sum();
    let size = (squares / logits.len() as f64).sqrt();
    let value = |token: u32| f64::from(logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY));
    (value(expected) - value(found)) / size
}

#[cfg(test)]
mod tests {
    use super::gap;

    #[test]
    fn measures_a_gap_in_sizes_of_the_logits() {
        assert!((gap(&[3.0, 1.0, -3.0, 1.0], 0, 1) - 2.0 / 5.0f64.sqrt()).abs() < 1e-9);
        assert_eq!(gap(&[3.0, 1.0], 0, 7), f64::INFINITY);
    }
}
