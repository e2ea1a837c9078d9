//! GPTQ (Frantar et al. 2023): weights are rounded one input after the other, and what each rounding does to the outputs
//! is made up for by the weights that are still to come.
//!
//! Scales are fixed before: 8-bit rows by their largest value, 4-bit groups by a search that weighs the error of each
//! input by how large that input is. Rows do not depend on each other.

use crate::weights::{ErrorStats, PackedRows, PackedWeight, RowBytes, pack_nibbles};
use half::f16;
use ir::weights::StorageFormat;
use multiversion::multiversion;
use rayon::prelude::*;
use runtime::plan::K_ALIGN;

/// Rows that share each row of the factor while it is in the cache.
const BLOCK_ROWS: usize = 16;
/// Scales of a group that are tried, from the one that clips nothing down to [`SMALLEST_CLIP`] of it.
const CLIPS: usize = 17;
const SMALLEST_CLIP: f32 = 0.6;
/// Largest integer scale of a group in the two-level format.
const S_MAX: f32 = 17.0;

/// What the rounding of a weight `[n, k]` is told about its inputs.
pub(super) struct Inputs<'a> {
    /// Their number.
    pub(super) k: usize,
    /// The upper triangular factor `[k, k]` of the inverse Hessian.
    pub(super) upper: &'a [f32],
    /// The mean square of each.
    pub(super) importance: &'a [f32],
}

/// Rounds `target` `[n, k]`; errors are measured against `exact`, what the weight stands for.
pub(super) fn round(format: StorageFormat, mut target: Vec<f32>, exact: &[f32], inputs: &Inputs<'_>) -> PackedWeight {
    let k = inputs.k;
    let n = target.len() / k;
    let bytes = RowBytes::new(format, k);
    let mut packed = PackedWeight {
        weight: vec![0; n * bytes.weight],
        group_scale: vec![0; n * bytes.group_scale],
        scale: vec![0; n * bytes.scale],
        error: ErrorStats::default(),
    };
    // `par_chunks_mut` refuses chunks of nothing, and a format without one of the tensors has none of its bytes.
    let chunk = |row_bytes: usize| (BLOCK_ROWS * row_bytes).max(1);
    let mut group_scales: Vec<&mut [u8]> = packed.group_scale.chunks_mut(chunk(bytes.group_scale)).collect();
    let mut scales: Vec<&mut [u8]> = packed.scale.chunks_mut(chunk(bytes.scale)).collect();
    let blocks = n.div_ceil(BLOCK_ROWS);
    group_scales.resize_with(blocks, Default::default);
    scales.resize_with(blocks, Default::default);
    let errors: Vec<ErrorStats> = target
        .par_chunks_mut(BLOCK_ROWS * k)
        .zip(exact.par_chunks(BLOCK_ROWS * k))
        .zip(packed.weight.par_chunks_mut(chunk(bytes.weight)))
        .zip(group_scales)
        .zip(scales)
        .map(|((((target, exact), weight), group_scale), scale)| {
            round_block(format, target, exact, inputs, PackedRows { weight, group_scale, scale })
        })
        .collect();
    errors.into_iter().for_each(|error| packed.error.add(error));
    packed
}

fn round_block(
    format: StorageFormat,
    rows: &mut [f32],
    exact: &[f32],
    inputs: &Inputs<'_>,
    out: PackedRows<'_>,
) -> ErrorStats {
    let k = inputs.k;
    let group = group_size(format, k);
    let groups = k.div_ceil(group);
    let bytes = RowBytes::new(format, k);
    let mut steps = vec![0.0; rows.len() / k * groups];
    for (r, (row, steps)) in rows.chunks_exact(k).zip(steps.chunks_exact_mut(groups)).enumerate() {
        let group_scale = &mut out.group_scale[r * bytes.group_scale..][..bytes.group_scale];
        let scale = &mut out.scale[r * bytes.scale..][..bytes.scale];
        choose_steps(format, row, inputs.importance, steps, group_scale, scale);
    }
    let limit = if matches!(format, StorageFormat::W8) { 127.0 } else { 7.0 };
    for j in 0..k {
        let factor = &inputs.upper[j * k + j..(j + 1) * k];
        for (row, steps) in rows.chunks_exact_mut(k).zip(steps.chunks_exact(groups)) {
            let step = steps[j / group];
            let q = quantized(row[j], step, limit);
            let error = (row[j] - q * step) / factor[0];
            row[j] = q;
            subtract(&mut row[j + 1..], error, &factor[1..]);
        }
    }
    let mut error = ErrorStats::default();
    let packed = out.weight.chunks_exact_mut(bytes.weight);
    for (((q, exact), steps), packed) in
        rows.chunks_exact(k).zip(exact.chunks_exact(k)).zip(steps.chunks_exact(groups)).zip(packed)
    {
        error.add(row_error(q, exact, steps, group));
        pack(format, q, packed);
    }
    error
}

/// Inputs that share a step.
fn group_size(format: StorageFormat, k: usize) -> usize {
    match format {
        StorageFormat::W4TwoLevel { group_size } | StorageFormat::W4Group { group_size } => group_size,
        StorageFormat::W8 | StorageFormat::Float { .. } => k,
    }
}

fn quantized(value: f32, step: f32, limit: f32) -> f32 {
    if step == 0.0 { 0.0 } else { (value / step).round_ties_even().clamp(-limit, limit) }
}

/// `row -= error * factor`.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
fn subtract(row: &mut [f32], error: f32, factor: &[f32]) {
    row.iter_mut().zip(factor).for_each(|(value, factor)| *value -= error * factor);
}

/// Fills the step of every group, and the scales as they are stored.
fn choose_steps(
    format: StorageFormat,
    row: &[f32],
    importance: &[f32],
    steps: &mut [f32],
    group_scale: &mut [u8],
    scale: &mut [u8],
) {
    match format {
        StorageFormat::Float { .. } => {}
        StorageFormat::W8 => {
            steps[0] = row.iter().fold(0.0, |max: f32, value| max.max(value.abs())) / 127.0;
            scale.copy_from_slice(&steps[0].to_le_bytes());
        }
        StorageFormat::W4TwoLevel { group_size } => {
            search(row, importance, group_size, steps);
            let unit = steps.iter().fold(0.0, |max: f32, step| max.max(*step)) / S_MAX;
            scale.copy_from_slice(&unit.to_le_bytes());
            for (step, stored) in steps.iter_mut().zip(group_scale) {
                let whole = if unit == 0.0 { 1.0 } else { (*step / unit).round_ties_even().clamp(1.0, S_MAX) };
                *stored = whole as u8;
                *step = whole * unit;
            }
        }
        StorageFormat::W4Group { group_size } => {
            search(row, importance, group_size, steps);
            for (step, stored) in steps.iter_mut().zip(group_scale.chunks_exact_mut(2)) {
                let half = f16::from_f32(*step);
                stored.copy_from_slice(&half.to_le_bytes());
                *step = half.to_f32();
            }
        }
    }
}

/// The step of each group that leaves the least squared error, each input counted by its importance.
fn search(row: &[f32], importance: &[f32], group_size: usize, steps: &mut [f32]) {
    for ((group, importance), best) in row.chunks(group_size).zip(importance.chunks(group_size)).zip(steps) {
        let absmax = group.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
        let mut least = f32::INFINITY;
        *best = absmax / 7.0;
        if *best == 0.0 {
            continue;
        }
        for clip in 0..CLIPS {
            let factor = 1.0 - (1.0 - SMALLEST_CLIP) * clip as f32 / (CLIPS - 1) as f32;
            let step = absmax * factor / 7.0;
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
            let error = (value * inverse).round_ties_even().clamp(-7.0, 7.0) * step - value;
            *sum += weight * error * error;
        }
    }
    sums.iter().sum()
}

fn row_error(q: &[f32], exact: &[f32], steps: &[f32], group: usize) -> ErrorStats {
    let mut stats = ErrorStats::default();
    for ((q, exact), step) in q.chunks(group).zip(exact.chunks(group)).zip(steps) {
        for (q, exact) in q.iter().zip(exact) {
            let error = q * step - exact;
            stats.squared_error += f64::from(error) * f64::from(error);
            stats.squared_weight += f64::from(*exact) * f64::from(*exact);
            stats.max_error = stats.max_error.max(error.abs());
        }
    }
    stats
}

/// Packs integers; what is beyond the row is zero.
fn pack(format: StorageFormat, q: &[f32], out: &mut [u8]) {
    if matches!(format, StorageFormat::W8) {
        out.iter_mut().zip(q).for_each(|(out, q)| *out = *q as i8 as u8);
        return;
    }
    for (q, out) in q.chunks(K_ALIGN).zip(out.chunks_exact_mut(K_ALIGN / 2)) {
        let mut chunk = [0i8; K_ALIGN];
        chunk.iter_mut().zip(q).for_each(|(chunk, q)| *chunk = *q as i8);
        out.copy_from_slice(&pack_nibbles(&chunk));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::factor::InverseFactor;
    use crate::calibrate::gram::Gram;
    use crate::weights::{SplitMix64, dequantize};

    const N: usize = 48;
    const K: usize = 160;

    struct Problem {
        weight: Vec<f32>,
        hessian: Vec<f64>,
    }

    /// A random weight, and inputs that depend on each other.
    fn problem(seed: u64) -> Problem {
        let mut random = SplitMix64(seed);
        let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
        let weight = values(N * K);
        let (causes, mixing, noise) = (values(512 * 40), values(40 * K), values(512 * K));
        let mut inputs = vec![0.0; 512 * K];
        for t in 0..512 {
            for j in 0..K {
                let sum: f32 = (0..40).map(|i| causes[t * 40 + i] * mixing[i * K + j]).sum();
                inputs[t * K + j] = sum + noise[t * K + j];
            }
        }
        let mut gram = Gram::new(K, 0);
        gram.add(&inputs, &[]);
        Problem { weight, hessian: gram.mean_square() }
    }

    impl Problem {
        fn round(&self, format: StorageFormat, upper: &[f32]) -> Vec<f32> {
            let importance: Vec<f32> = (0..K).map(|i| self.hessian[i * K + i] as f32).collect();
            let inputs = Inputs { k: K, upper, importance: &importance };
            let packed = round(format, self.weight.clone(), &self.weight, &inputs);
            dequantize(format, N, K, &packed.weight, &packed.group_scale, &packed.scale).unwrap()
        }

        /// The mean squared error of the outputs.
        fn loss(&self, rounded: &[f32]) -> f64 {
            let mut sum = 0.0;
            for (row, rounded) in self.weight.chunks_exact(K).zip(rounded.chunks_exact(K)) {
                let error: Vec<f64> = row.iter().zip(rounded).map(|(a, b)| f64::from(a - b)).collect();
                for i in 0..K {
                    sum += error[i] * (0..K).map(|j| self.hessian[i * K + j] * error[j]).sum::<f64>();
                }
            }
            sum
        }
    }

    #[test]
    fn loses_much_less_than_rounding_to_nearest() {
        let identity: Vec<f32> = (0..K * K).map(|at| f32::from(u8::from(at / K == at % K))).collect();
        for seed in 0..3 {
            let problem = problem(seed);
            let upper = InverseFactor::new(problem.hessian.clone(), K).unwrap().rows();
            for format in [
                StorageFormat::W8,
                StorageFormat::W4TwoLevel { group_size: 64 },
                StorageFormat::W4Group { group_size: 32 },
            ] {
                // Inputs that do not depend on each other leave nothing to make up for: rounding to nearest.
                let nearest = problem.loss(&problem.round(format, &identity));
                let gptq = problem.loss(&problem.round(format, &upper));
                assert!(gptq < 0.6 * nearest, "{format:?}, seed {seed}: {gptq} is not much less than {nearest}");
            }
        }
    }

    #[test]
    fn stores_zeros_as_zeros() {
        let identity: Vec<f32> = (0..K * K).map(|at| f32::from(u8::from(at / K == at % K))).collect();
        let inputs = Inputs { k: K, upper: &identity, importance: &[1.0; K] };
        for format in [StorageFormat::W8, StorageFormat::W4TwoLevel { group_size: 128 }] {
            let packed = round(format, vec![0.0; 2 * K], &[0.0; 2 * K], &inputs);
            let stored = dequantize(format, 2, K, &packed.weight, &packed.group_scale, &packed.scale).unwrap();
            assert!(stored.iter().all(|value| *value == 0.0));
        }
    }
}
