//! 4 bits: q in -7..=7, scales chosen by the squared error they leave.

use super::lanes;
use super::pack::round_and_pack;
use super::{ErrorStats, NotFinite, PackedRows, QuantizeRows, RowBytes};
use half::f16;
use ir::weights::StorageFormat;
use multiversion::multiversion;

/// Largest magnitude of q.
pub(crate) const Q_MAX: f32 = 7.0;
/// Largest integer scale of a group; `7 * 17 = 119` keeps `q * s` within 8 bits.
pub(crate) const S_MAX: f32 = 17.0;

/// Scales of a row that are tried, relative to the one that loses nothing of its largest value.
///
/// A smaller one clips that value and gives all other groups finer steps.
const ROW_FACTORS: [f32; 2] = [1.0, 0.8];

/// Integer scales of a group that are tried: the smallest that clips nothing, and the next smaller ones.
const GROUP_CANDIDATES: usize = 4;

/// Scales of a group that are tried, relative to the one that loses nothing of its largest value.
const GROUP_FACTORS: [f32; 5] = [1.0, 0.95, 0.9, 0.85, 0.8];

/// An f32 scale per row times an integer scale per group.
pub(super) struct TwoLevel {
    pub group_size: usize,
    /// Whether scales are searched for; the smallest that clip nothing otherwise.
    pub search: bool,
}

/// An f16 scale per group.
pub(super) struct Group {
    pub group_size: usize,
    /// Whether scales are searched for; those that clip nothing otherwise.
    pub search: bool,
}

/// The first candidate of a search, which clips nothing, or all.
fn candidates<T>(all: &[T], search: bool) -> &[T] {
    if search { all } else { &all[..1] }
}

impl QuantizeRows for TwoLevel {
    fn quantize(&self, values: &mut [f32], k: usize, out: PackedRows<'_>) -> Result<ErrorStats, NotFinite> {
        let bytes = RowBytes::new(StorageFormat::W4TwoLevel { group_size: self.group_size }, k);
        let mut stats = ErrorStats::default();
        let mut search = RowSearch::default();
        let rows = values
            .chunks_exact(k)
            .zip(out.weight.chunks_exact_mut(bytes.weight))
            .zip(out.group_scale.chunks_exact_mut(bytes.group_scale))
            .zip(out.scale.chunks_exact_mut(bytes.scale));
        for (row, (((values, weight), group_scale), scale)) in rows.enumerate() {
            let squared_weight = squared(values);
            if !squared_weight.is_finite() {
                return Err(NotFinite { row });
            }
            let step = search.run(values, self.group_size, self.search, group_scale);
            for ((group, weight), &s) in groups(values, weight, self.group_size).zip(&*group_scale) {
                round_and_pack(group, inverse(step * f32::from(s)), weight);
            }
            let (fitted, mut error) = fit(values, self.group_size, step, self.search, group_scale);
            error.squared_weight = squared_weight;
            scale.copy_from_slice(&fitted.to_le_bytes());
            stats.add(error);
        }
        Ok(stats)
    }
}

impl QuantizeRows for Group {
    fn quantize(&self, values: &mut [f32], k: usize, out: PackedRows<'_>) -> Result<ErrorStats, NotFinite> {
        let bytes = RowBytes::new(StorageFormat::W4Group { group_size: self.group_size }, k);
        let mut stats = ErrorStats::default();
        let rows = values
            .chunks_exact(k)
            .zip(out.weight.chunks_exact_mut(bytes.weight))
            .zip(out.group_scale.chunks_exact_mut(bytes.group_scale));
        for (row, ((values, weight), scales)) in rows.enumerate() {
            let squared_weight = squared(values);
            if !squared_weight.is_finite() {
                return Err(NotFinite { row });
            }
            stats.squared_weight += squared_weight;
            for ((group, weight), scale) in groups(values, weight, self.group_size).zip(scales.chunks_exact_mut(2)) {
                let step = best_group_step(group, candidates(&GROUP_FACTORS, self.search));
                round_and_pack(group, inverse(step.to_f32()), weight);
                scale.copy_from_slice(&step.to_le_bytes());
                let (squared_error, max_error) = group_error(group, step.to_f32());
                stats.add(ErrorStats { squared_error, squared_weight: 0.0, max_error });
            }
        }
        Ok(stats)
    }
}

fn groups<'a>(
    values: &'a [f32],
    packed: &'a mut [u8],
    group_size: usize,
) -> impl Iterator<Item = (&'a [f32], &'a mut [u8])> {
    values.chunks(group_size).zip(packed.chunks_mut(group_size / 2))
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
fn squared(values: &[f32]) -> f64 {
    f64::from(lanes::sum(values, |v| v * v))
}

/// `1 / step`, and 0 for a step too small to have one, so that everything rounds to 0.
#[inline(always)]
fn inverse(step: f32) -> f32 {
    let inverse = 1.0 / step;
    if inverse.is_finite() { inverse } else { 0.0 }
}

#[inline(always)]
fn clamped_round(t: f32) -> f32 {
    lanes::round(t.clamp(-Q_MAX, Q_MAX))
}

/// The squared error that `step` leaves.
#[inline(always)]
fn squared_error(group: &[f32], step: f32) -> f32 {
    let inverse = inverse(step);
    lanes::sum(group, |v| {
        let error = v - clamped_round(v * inverse) * step;
        error * error
    })
}

/// Scratch of the search for a row's scales.
#[derive(Default)]
struct RowSearch {
    absmax: Vec<f32>,
    candidate: Vec<u8>,
}

impl RowSearch {
    /// Fills the integer scales of the groups and returns the scale of the row.
    fn run(&mut self, values: &[f32], group_size: usize, search: bool, best: &mut [u8]) -> f32 {
        self.absmax.clear();
        self.absmax.extend(values.chunks(group_size).map(absolute_max));
        let row_max = self.absmax.iter().fold(0.0, |a: f32, &b| a.max(b));
        let largest = row_max / (Q_MAX * S_MAX);
        let (mut best_step, mut best_error) = (0.0, f32::INFINITY);
        best.fill(1);
        if inverse(largest) == 0.0 {
            return 0.0;
        }
        self.candidate.resize(best.len(), 1);
        let tried = if search { GROUP_CANDIDATES } else { 1 };
        for factor in candidates(&ROW_FACTORS, search) {
            let step = largest * factor;
            let groups = (values, group_size, &self.absmax[..]);
            let error = choose_group_scales(groups, step, tried, best_error, &mut self.candidate);
            if error < best_error {
                (best_step, best_error) = (step, error);
                best.copy_from_slice(&self.candidate);
            }
        }
        best_step
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
fn absolute_max(values: &[f32]) -> f32 {
    lanes::max(values, f32::abs)
}

/// Picks an integer scale for every group; returns the squared error, or infinity once it exceeds `limit`.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
fn choose_group_scales(
    (values, group_size, absmax): (&[f32], usize, &[f32]),
    step: f32,
    tried: usize,
    limit: f32,
    chosen: &mut [u8],
) -> f32 {
    let mut total = 0.0;
    for ((group, &absmax), chosen) in values.chunks(group_size).zip(absmax).zip(chosen) {
        let whole = (absmax / (Q_MAX * step)).ceil().clamp(1.0, S_MAX);
        let mut error = f32::INFINITY;
        for scale in (1..=whole as u8).rev().take(tried) {
            let candidate = squared_error(group, step * f32::from(scale));
            if candidate < error {
                error = candidate;
                *chosen = scale;
            }
        }
        total += error;
        if total >= limit {
            return f32::INFINITY;
        }
    }
    total
}

/// With all q and s fixed, the scale of the row with the least squared error, if it may change, and the error it leaves.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
fn fit(values: &[f32], group_size: usize, step: f32, may_change: bool, group_scales: &[u8]) -> (f32, ErrorStats) {
    let (mut product, mut square) = (0.0f64, 0.0f64);
    for (group, &s) in values.chunks(group_size).zip(group_scales) {
        let s = f32::from(s);
        let inverse = inverse(step * s);
        product += f64::from(lanes::sum(group, |v| v * (clamped_round(v * inverse) * s)));
        square += f64::from(lanes::sum(group, |v| (clamped_round(v * inverse) * s) * (clamped_round(v * inverse) * s)));
    }
    let fitted = if may_change && square > 0.0 { (product / square) as f32 } else { step };
    let mut stats = ErrorStats::default();
    for (group, &s) in values.chunks(group_size).zip(group_scales) {
        let s = f32::from(s);
        let inverse = inverse(step * s);
        let error = |v: f32| v - clamped_round(v * inverse) * s * fitted;
        stats.squared_error += f64::from(lanes::sum(group, |v| error(v) * error(v)));
        stats.max_error = stats.max_error.max(lanes::max(group, |v| error(v).abs()));
    }
    (fitted, stats)
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
fn best_group_step(group: &[f32], factors: &[f32]) -> f16 {
    let absmax = lanes::max(group, f32::abs);
    let (mut best, mut best_error) = (f16::ZERO, f32::INFINITY);
    for factor in factors {
        let step = f16::from_f32((absmax / Q_MAX * factor).min(f16::MAX.to_f32()));
        let error = squared_error(group, step.to_f32());
        if error < best_error {
            (best, best_error) = (step, error);
        }
    }
    best
}

/// The squared and the largest error that `step` leaves.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
fn group_error(group: &[f32], step: f32) -> (f64, f32) {
    let inverse = inverse(step);
    let largest = lanes::max(group, |v| (v - clamped_round(v * inverse) * step).abs());
    (f64::from(squared_error(group, step)), largest)
}
