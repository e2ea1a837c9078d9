//! The scales that a weight is rounded with, chosen before its values: 8-bit rows by their largest value, 4-bit groups by
//! a search that weighs the error of each input by how large that input is.

use crate::weights::{Q_MAX, S_MAX};
use half::f16;
use ir::weights::StorageFormat;
use multiversion::multiversion;

/// Scales of a group that are tried, from the one that clips nothing down to [`SMALLEST_CLIP`] of it.
const CLIPS: usize = 17;
const SMALLEST_CLIP: f32 = 0.6;

/// Fills the step of every group, and the scales as they are stored.
pub(super) fn choose_steps(
    format: StorageFormat,
    row: &[f32],
    importance: &[f32],
    clip: bool,
    steps: &mut [f32],
    group_scale: &mut [u8],
    scale: &mut [u8],
) {
    let candidates = if clip { CLIPS } else { 1 };
    match format {
        StorageFormat::Float { .. } => {}
        StorageFormat::W8 => {
            steps[0] = row.iter().fold(0.0, |max: f32, value| max.max(value.abs())) / 127.0;
            scale.copy_from_slice(&steps[0].to_le_bytes());
        }
        StorageFormat::W4TwoLevel { group_size } => {
            search(row, importance, group_size, candidates, steps);
            let unit = steps.iter().fold(0.0, |max: f32, step| max.max(*step)) / S_MAX;
            scale.copy_from_slice(&unit.to_le_bytes());
            for (step, stored) in steps.iter_mut().zip(group_scale) {
                let whole = if unit == 0.0 { 1.0 } else { (*step / unit).round_ties_even().clamp(1.0, S_MAX) };
                *stored = whole as u8;
                *step = whole * unit;
            }
        }
        StorageFormat::W4Group { group_size } => {
            search(row, importance, group_size, candidates, steps);
            for (step, stored) in steps.iter_mut().zip(group_scale.chunks_exact_mut(2)) {
                let half = f16::from_f32(*step);
                stored.copy_from_slice(&half.to_le_bytes());
                *step = half.to_f32();
            }
        }
    }
}

/// The step of each group that leaves the least squared error, each input counted by its importance.
fn search(row: &[f32], importance: &[f32], group_size: usize, candidates: usize, steps: &mut [f32]) {
    for ((group, importance), best) in row.chunks(group_size).zip(importance.chunks(group_size)).zip(steps) {
        let absmax = group.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
        let mut least = f32::INFINITY;
        *best = absmax / Q_MAX;
        if *best == 0.0 {
            continue;
        }
        for clip in 0..candidates {
            let factor = 1.0 - (1.0 - SMALLEST_CLIP) * clip as f32 / (CLIPS - 1) as f32;
            let step = absmax * factor / Q_MAX;
            let error = weighted_error(group, importance, step);
            if error < least {
                (least, *best) = (error, step);
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
fn weighted_error(group: &[f32], importance: &[f32], step: f32) -> f32 {
    const LANES: usize = 16;
    let inverse = 1.0 / step;
    let mut sums = [0.0; LANES];
    for (values, weights) in group.chunks(LANES).zip(importance.chunks(LANES)) {
        for ((sum, value), weight) in sums.iter_mut().zip(values).zip(weights) {
            let error = (value * inverse).round_ties_even().clamp(-Q_MAX, Q_MAX) * step - value;
            *sum += weight * error * error;
        }
    }
    sums.iter().sum()
}
