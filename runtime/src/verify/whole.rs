//! Whole steps, as they really run: dependent launches, and graphs that are recorded and replayed.
//!
//! Two things are checked. The logits of a device must be equal to the bit to those of its own launches one by one, each of
//! which was compared with the reference: nothing is lost or added where they come together. And they may be as far from
//! the reference's as what the launches differ by grows to, which [`Moves`] finds out on copies of the sequences.

use super::limit::{COPIES, limit};
use super::moved::Moves;
use crate::device::{DeviceError, LaunchByLaunch, Outputs, SequenceChunk, SlotId};
use rand_pcg::Pcg64;
use serde::Serialize;

/// Sequences that the reference moves at a time, if a copy has no more.
pub(super) const SEQUENCES: usize = 16;

/// Logits of whole steps, as they really run.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Sequences.
    pub sequences: usize,
    /// Tokens each had before.
    pub context: usize,
    /// Logits that are not equal to the bit to those of the device's launches one by one.
    pub unequal: usize,
    /// Difference of the logits over their size, in the Euclidean norm; the largest of a few steps.
    pub relative: f64,
    /// The same of each copy of the reference that was moved.
    pub moved: Vec<f64>,
    /// What it may be, which follows from those.
    pub bound: f64,
}

impl StepReport {
    /// Equal to the launches one by one, and not further from the reference than they make it.
    pub fn passes(&self) -> bool {
        self.unequal == 0 && self.relative <= self.bound
    }
}

/// Tokens of each sequence in one step.
pub(super) type Tokens = Vec<Vec<u32>>;

/// Takes these steps on copies of the slots, on both devices. Without moves both must agree to the bit.
pub(super) fn compare_steps(
    reference: &mut dyn LaunchByLaunch,
    device: &mut dyn LaunchByLaunch,
    slots: &[SlotId],
    steps: &[Tokens],
    moves: Option<&Moves>,
    random: &mut Pcg64,
) -> Result<StepReport, DeviceError> {
    let positions = slots.iter().map(|slot| reference.position(*slot)).collect::<Result<Vec<usize>, _>>()?;
    let context = positions.into_iter().max().unwrap_or(0);
    let expected = on_copies(reference, slots, |device, slots| whole_steps(device, slots, steps))?;
    let found = on_copies(device, slots, |device, slots| whole_steps(device, slots, steps))?;
    let unequal = unequal_logits(device, slots, steps)?;
    let (moved, bound) = match moves {
        None => (Vec::new(), 0.0),
        Some(moves) => {
            let distance = |logits: &[Vec<f32>]| largest_distance(&expected, logits);
            let moved = moved_copies(reference, slots, steps, moves, random, distance)?;
            (moved.to_vec(), limit(&moved))
        }
    };
    let relative = largest_distance(&expected, &found);
    Ok(StepReport { sequences: slots.len(), context, unequal, relative, moved, bound })
}

/// Logits of whole steps that are not equal to the bit to those of the launches one by one.
pub(super) fn unequal_logits(
    device: &mut dyn LaunchByLaunch,
    slots: &[SlotId],
    steps: &[Tokens],
) -> Result<usize, DeviceError> {
    let whole = on_copies(device, slots, |device, slots| whole_steps(device, slots, steps))?;
    let separate = on_copies(device, slots, |device, slots| {
        steps.iter().map(|tokens| one_by_one(device, &batch(slots, tokens))).collect::<Result<Vec<_>, _>>()
    })?;
    let pairs = whole.iter().flatten().zip(separate.iter().flatten());
    Ok(pairs.filter(|(a, b)| a.to_bits() != b.to_bits()).count())
}

/// What `measure` makes of the logits of each of [`COPIES`] moved copies.
pub(super) fn moved_copies(
    reference: &mut dyn LaunchByLaunch,
    slots: &[SlotId],
    steps: &[Tokens],
    moves: &Moves,
    random: &mut Pcg64,
    measure: impl Fn(&[Vec<f32>]) -> f64,
) -> Result<[f64; COPIES], DeviceError> {
    let together = (SEQUENCES / slots.len()).clamp(1, COPIES);
    let originals: Vec<SlotId> = slots.repeat(together);
    let steps: Vec<Tokens> = steps.iter().map(|tokens| vec![tokens.clone(); together].concat()).collect();
    on_copies(reference, &originals, |reference, copies| {
        let mut measured = Vec::new();
        while measured.len() < COPIES {
            for (original, copy) in originals.iter().zip(copies) {
                reference.copy_slot(*original, *copy)?;
            }
            let logits = moves.steps(reference, copies, &steps, random)?;
            // The rows of a copy follow each other.
            let rows =
                |copy: usize| move |all: &Vec<f32>| all[copy * all.len() / together..][..all.len() / together].to_vec();
            measured.extend((0..together).map(|copy| measure(&logits.iter().map(rows(copy)).collect::<Vec<_>>())));
        }
        Ok(std::array::from_fn(|copy| measured[copy]))
    })
}

/// Runs something on copies that are released again.
fn on_copies<R>(
    device: &mut dyn LaunchByLaunch,
    slots: &[SlotId],
    run: impl FnOnce(&mut dyn LaunchByLaunch, &[SlotId]) -> Result<R, DeviceError>,
) -> Result<R, DeviceError> {
    let mut copies = Vec::new();
    for slot in slots {
        copies.push(device.fork_slot(*slot)?);
    }
    let result = run(device, &copies);
    copies.iter().try_for_each(|slot| device.release_slot(*slot))?;
    result
}

/// The logits of each step.
fn whole_steps(
    device: &mut dyn LaunchByLaunch,
    slots: &[SlotId],
    steps: &[Tokens],
) -> Result<Vec<Vec<f32>>, DeviceError> {
    steps.iter().map(|tokens| Ok(device.step(&batch(slots, tokens))?.values.to_vec())).collect()
}

fn one_by_one(device: &mut dyn LaunchByLaunch, batch: &[SequenceChunk<'_>]) -> Result<Vec<f32>, DeviceError> {
    device.begin(batch)?;
    for index in 0..device.plan().launches.len() {
        device.run_launch(index)?;
    }
    Ok(device.finish()?.values.to_vec())
}

/// Tokens of each slot, and the logits of the last.
pub(super) fn batch<'t>(slots: &[SlotId], tokens: &'t [Vec<u32>]) -> Vec<SequenceChunk<'t>> {
    let chunk = |(slot, tokens): (&SlotId, &'t Vec<u32>)| SequenceChunk { slot: *slot, tokens, outputs: Outputs::Last };
    slots.iter().zip(tokens).map(chunk).collect()
}

fn largest_distance(expected: &[Vec<f32>], found: &[Vec<f32>]) -> f64 {
    let distances = expected.iter().zip(found).map(|(expected, found)| distance(expected, found));
    // `max` would drop a NaN.
    distances.fold(0.0, |most: f64, apart| if apart > most || apart.is_nan() { apart } else { most })
}

/// Difference over size, in the Euclidean norm.
fn distance(expected: &[f32], found: &[f32]) -> f64 {
    let size: f64 = expected.iter().map(|v| f64::from(*v).powi(2)).sum();
    let apart: f64 = expected.iter().zip(found).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (apart / size.max(f64::MIN_POSITIVE)).sqrt()
}
