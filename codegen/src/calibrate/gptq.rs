//! GPTQ (Frantar et al. 2023): weights are rounded one input after the other, and what each rounding does to the outputs
//! is made up for by the weights that are still to come.
//!
//! Scales are fixed before. Rows do not depend on each other.

use super::descend::descend;
use super::scales::choose_steps;
use crate::weights::{ErrorStats, PackedRows, PackedWeight, Q_MAX, RowBytes, pack_nibbles};
use ir::weights::StorageFormat;
use multiversion::multiversion;
use rayon::prelude::*;
use runtime::plan::K_ALIGN;

/// Rows that share each row of the factor while it is in the cache.
const BLOCK_ROWS: usize = 16;

/// What the rounding of a weight `[n, k]` is told about its inputs.
pub(super) struct Inputs<'a> {
    /// Their number.
    pub(super) k: usize,
    /// The Hessian `[k, k]`, damped.
    pub(super) hessian: &'a [f32],
    /// The order in which they are rounded.
    pub(super) order: &'a [usize],
    /// The upper triangular factor `[k, k]` of the inverse Hessian, in that order.
    pub(super) upper: &'a [f32],
    /// The mean square of each.
    pub(super) importance: &'a [f32],
    /// Whether scales may clip.
    pub(super) clip: bool,
    /// How often every value is looked at again.
    pub(super) sweeps: usize,
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
        choose_steps(format, row, inputs.importance, inputs.clip, steps, group_scale, scale);
    }
    let grid =
        Grid { steps: &steps, groups, group, limit: if matches!(format, StorageFormat::W8) { 127.0 } else { Q_MAX } };
    let mut rounded = ordered(rows, inputs);
    compensate(&mut rounded, inputs, grid);
    restore(&mut rounded, inputs);
    descend(rows, &mut rounded, inputs, grid);
    rows.copy_from_slice(&rounded);
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

/// The values that the weights of some rows can have: whole multiples, up to the limit, of the step of their group.
#[derive(Clone, Copy)]
pub(super) struct Grid<'a> {
    /// Steps of one row after the other.
    steps: &'a [f32],
    /// Steps of a row.
    groups: usize,
    /// Inputs that share a step.
    group: usize,
    limit: f32,
}

impl Grid<'_> {
    /// The step of an input in a row.
    pub(super) fn step(&self, row: usize, input: usize) -> f32 {
        self.steps[row * self.groups + input / self.group]
    }

    /// The multiple that is nearest to a value.
    pub(super) fn nearest(&self, value: f32, step: f32) -> f32 {
        if step == 0.0 { 0.0 } else { (value / step).round_ties_even().clamp(-self.limit, self.limit) }
    }
}

/// A copy of rows, their columns in the order of rounding.
fn ordered(rows: &[f32], inputs: &Inputs<'_>) -> Vec<f32> {
    rows.chunks_exact(inputs.k).flat_map(|row| inputs.order.iter().map(|at| row[*at])).collect()
}

/// Puts the columns of [`ordered`] rows back.
fn restore(rows: &mut [f32], inputs: &Inputs<'_>) {
    let mut ordered = vec![0.0; inputs.k];
    for row in rows.chunks_exact_mut(inputs.k) {
        ordered.copy_from_slice(row);
        inputs.order.iter().zip(&ordered).for_each(|(at, value)| row[*at] = *value);
    }
}

/// GPTQ itself: each value becomes a whole number of steps, and those to come make up for the difference.
fn compensate(rows: &mut [f32], inputs: &Inputs<'_>, grid: Grid<'_>) {
    let k = inputs.k;
    for (j, at) in inputs.order.iter().enumerate() {
        let factor = &inputs.upper[j * k + j..(j + 1) * k];
        for (r, row) in rows.chunks_exact_mut(k).enumerate() {
            let step = grid.step(r, *at);
            let q = grid.nearest(row[j], step);
            let error = (row[j] - q * step) / factor[0];
            row[j] = q;
            subtract(&mut row[j + 1..], error, &factor[1..]);
        }
    }
}

/// Inputs that share a step.
fn group_size(format: StorageFormat, k: usize) -> usize {
    match format {
        StorageFormat::W4TwoLevel { group_size } | StorageFormat::W4Group { group_size } => group_size,
        StorageFormat::W8 | StorageFormat::Float { .. } => k,
    }
}

/// `row -= error * factor`.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn subtract(row: &mut [f32], error: f32, factor: &[f32]) {
    row.iter_mut().zip(factor).for_each(|(value, factor)| *value -= error * factor);
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
        hessian: Vec<f32>,
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
        Problem { weight, hessian: gram.finish().0 }
    }

    impl Problem {
        fn round(&self, format: StorageFormat, upper: &[f32], order: &[usize], sweeps: usize) -> Vec<f32> {
            let importance: Vec<f32> = (0..K).map(|i| self.hessian[i * K + i]).collect();
            let hessian = &self.hessian;
            let inputs = Inputs { k: K, hessian, order, upper, importance: &importance, clip: true, sweeps };
            let packed = round(format, self.weight.clone(), &self.weight, &inputs);
            dequantize(format, N, K, &packed.weight, &packed.group_scale, &packed.scale).unwrap()
        }

        /// The mean squared error of the outputs.
        fn loss(&self, rounded: &[f32]) -> f64 {
            let mut sum = 0.0;
            for (row, rounded) in self.weight.chunks_exact(K).zip(rounded.chunks_exact(K)) {
                let error: Vec<f64> = row.iter().zip(rounded).map(|(a, b)| f64::from(a - b)).collect();
                for i in 0..K {
                    sum += error[i] * (0..K).map(|j| f64::from(self.hessian[i * K + j]) * error[j]).sum::<f64>();
                }
            }
            sum
        }
    }

    fn identity() -> Vec<f32> {
        (0..K * K).map(|at| f32::from(u8::from(at / K == at % K))).collect()
    }

    fn upper(problem: &Problem, order: &[usize]) -> Vec<f32> {
        InverseFactor::new(&problem.hessian, order.to_vec(), 0.01).unwrap().rows()
    }

    const FORMATS: [StorageFormat; 3] =
        [StorageFormat::W8, StorageFormat::W4TwoLevel { group_size: 64 }, StorageFormat::W4Group { group_size: 32 }];

    #[test]
    fn loses_much_less_than_rounding_to_nearest() {
        let order: Vec<usize> = (0..K).collect();
        for seed in 0..3 {
            let problem = problem(seed);
            let upper = upper(&problem, &order);
            for format in FORMATS {
                // Inputs that do not depend on each other leave nothing to make up for: rounding to nearest.
                let nearest = problem.loss(&problem.round(format, &identity(), &order, 0));
                let gptq = problem.loss(&problem.round(format, &upper, &order, 0));
                assert!(gptq < 0.6 * nearest, "{format:?}, seed {seed}: {gptq} is not much less than {nearest}");
            }
        }
    }

    #[test]
    fn loses_less_with_every_sweep() {
        let order: Vec<usize> = (0..K).collect();
        for seed in 0..3 {
            let problem = problem(seed);
            let upper = upper(&problem, &order);
            for format in FORMATS {
                let [none, one, four] = [0, 1, 4].map(|s| problem.loss(&problem.round(format, &upper, &order, s)));
                assert!(one < none && four <= one, "{format:?}, seed {seed}: {none}, {one}, {four}");
            }
        }
    }

    #[test]
    fn rounds_inputs_in_any_order() {
        let (natural, reversed): (Vec<usize>, Vec<usize>) = ((0..K).collect(), (0..K).rev().collect());
        let problem = problem(5);
        for format in FORMATS {
            let nearest = problem.loss(&problem.round(format, &identity(), &natural, 0));
            let gptq = problem.loss(&problem.round(format, &upper(&problem, &reversed), &reversed, 0));
            assert!(gptq < 0.6 * nearest, "{format:?}: {gptq} is not much less than {nearest}");
        }
    }

    #[test]
    fn stores_zeros_as_zeros() {
        let (order, identity): (Vec<usize>, Vec<f32>) = ((0..K).collect(), identity());
        let (hessian, importance) = (&identity, &[1.0; K]);
        let inputs = Inputs { k: K, hessian, order: &order, upper: &identity, importance, clip: true, sweeps: 1 };
        for format in [StorageFormat::W8, StorageFormat::W4TwoLevel { group_size: 128 }] {
            let packed = round(format, vec![0.0; 2 * K], &[0.0; 2 * K], &inputs);
            let stored = dequantize(format, 2, K, &packed.weight, &packed.group_scale, &packed.scale).unwrap();
            assert!(stored.iter().all(|value| *value == 0.0));
        }
    }
}
