//! The same prompt continued on two devices, always by the likeliest token.

use super::limit::centered_limit;
use super::moved::Moves;
use super::whole::{Tokens, batch, moved_copies};
use crate::device::{DeviceError, LaunchByLaunch, SlotId, likeliest};
use rand_pcg::Pcg64;
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
    /// How far both may come nearer, over the same size, by what the launches differ by.
    pub bound: f64,
}

/// Feeds both the choices of the reference, which are those of the device until the first that differs.
///
/// Without moves both must choose the same.
pub(super) fn compare_greedy(
    reference: &mut dyn LaunchByLaunch,
    device: &mut dyn LaunchByLaunch,
    prompt: &[u32],
    tokens: usize,
    moves: Option<&Moves>,
    random: &mut Pcg64,
) -> Result<GreedyReport, DeviceError> {
    let slots = (reference.create_slot()?, device.create_slot()?);
    let parted = continue_both(reference, device, slots, prompt, tokens);
    reference.release_slot(slots.0)?;
    device.release_slot(slots.1)?;
    let Some(parted) = parted? else {
        return Ok(GreedyReport { tokens, equal: tokens, split: None, passes: true });
    };
    let bound = match moves {
        None => 0.0,
        Some(moves) => parted.bound(reference, moves, random)?,
    };
    let Parted { expected, found, .. } = parted;
    let gap = gap(&parted.logits, expected, found);
    let split = Split { expected, found, gap, bound };
    Ok(GreedyReport {
        tokens,
        equal: parted.steps.len() - 1,
        split: Some(split),
        passes: moves.is_some() && gap <= bound,
    })
}

/// Where two devices chose differently.
struct Parted {
    /// What both were fed.
    steps: Vec<Tokens>,
    /// What the reference made of it.
    logits: Vec<f32>,
    expected: u32,
    found: u32,
}

fn continue_both(
    reference: &mut dyn LaunchByLaunch,
    device: &mut dyn LaunchByLaunch,
    slots: (SlotId, SlotId),
    prompt: &[u32],
    tokens: usize,
) -> Result<Option<Parted>, DeviceError> {
    let mut steps = Vec::new();
    let mut input = vec![prompt.to_vec()];
    for _ in 0..tokens {
        let logits = reference.step(&batch(&[slots.0], &input))?.values.to_vec();
        let expected = likeliest(&logits);
        let found = device.step_greedy(&batch(&[slots.1], &input))?[0];
        steps.push(input);
        if expected != found {
            return Ok(Some(Parted { steps, logits, expected, found }));
        }
        input = vec![vec![expected]];
    }
    Ok(None)
}

impl Parted {
    /// How far the logit of one choice may come nearer to that of the other: in each moved copy that is fed the same, errors of
    /// many roundings come together in the difference of both, up or down alike.
    fn bound(&self, reference: &mut dyn LaunchByLaunch, moves: &Moves, random: &mut Pcg64) -> Result<f64, DeviceError> {
        let slot = reference.create_slot()?;
        let nearer = |logits: &[Vec<f32>]| {
            let moved = logits.last().map_or(f64::NAN, |moved| ahead(moved, self.expected, self.found));
            (ahead(&self.logits, self.expected, self.found) - moved) / size(&self.logits)
        };
        let measured = moved_copies(reference, &[slot], &self.steps, moves, random, nearer);
        reference.release_slot(slot)?;
        Ok(centered_limit(&measured?))
    }
}

fn ahead(logits: &[f32], expected: u32, found: u32) -> f64 {
    let value = |token: u32| f64::from(logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY));
    value(expected) - value(found)
}

fn size(logits: &[f32]) -> f64 {
    let squares: f64 = logits.iter().map(|logit| f64::from(*logit).powi(2)).sum();
    (squares / logits.len() as f64).sqrt()
}

fn gap(logits: &[f32], expected: u32, found: u32) -> f64 {
    ahead(logits, expected, found) / size(logits)
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
