//! A scan state in fewer than 32 bits, as [`crate::plan::StateKind`] says it is rounded.

use super::emit::PARALLEL_ELEMENTS;
use super::simd::simd;
use crate::plan::{DType, State};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// The values of one sequence and layer.
#[derive(Clone)]
pub(super) struct ScanState {
    /// Elements that share a scale.
    row: usize,
    /// Id of the state in the plan.
    seed: u32,
    values: Values,
}

#[derive(Clone)]
enum Values {
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    I8 { q: Vec<i8>, scales: Vec<f32> },
}

impl ScanState {
    /// Zeros, if the state is not f32.
    pub(super) fn new(state: &State, seed: u32) -> Option<ScanState> {
        let elements = state.elements();
        let values = match state.dtype {
            DType::F16 => Values::F16(vec![f16::ZERO; elements]),
            DType::Bf16 => Values::Bf16(vec![bf16::ZERO; elements]),
            DType::I8 => Values::I8 { q: vec![0; elements], scales: vec![0.0; state.scales()] },
            _ => return None,
        };
        Some(ScanState { row: state.row(), seed, values })
    }

    pub(super) fn len(&self) -> usize {
        match &self.values {
            Values::F16(values) => values.len(),
            Values::Bf16(values) => values.len(),
            Values::I8 { q, .. } => q.len(),
        }
    }

    /// Back to zeros.
    pub(super) fn clear(&mut self) {
        match &mut self.values {
            Values::F16(values) => values.fill(f16::ZERO),
            Values::Bf16(values) => values.fill(bf16::ZERO),
            Values::I8 { q, scales } => {
                q.fill(0);
                scales.fill(0.0);
            }
        }
    }

    /// All values as floats.
    pub(super) fn load(&self, to: &mut [f32]) {
        match &self.values {
            Values::F16(values) => values.convert_to_f32_slice(to),
            Values::Bf16(values) => values.convert_to_f32_slice(to),
            Values::I8 { q, scales } => {
                for ((to, q), scale) in to.chunks_exact_mut(self.row).zip(q.chunks_exact(self.row)).zip(scales) {
                    dequantize(q, *scale, to);
                }
            }
        }
    }

    /// Rounds all values. `position` is the number of tokens taken with this step.
    pub(super) fn store(&mut self, from: &[f32], position: usize) {
        let key = key(self.seed, position as u32);
        let row = self.row;
        match &mut self.values {
            Values::F16(values) => in_parts(from, values, |first, from, to| round_f16(from, to, key, first)),
            Values::Bf16(values) => in_parts(from, values, |first, from, to| round_bf16(from, to, key, first)),
            Values::I8 { q, scales } => {
                let rows = q.par_chunks_exact_mut(row).zip(from.par_chunks_exact(row)).zip(scales);
                rows.enumerate().with_min_len(PARALLEL_ELEMENTS / row + 1).for_each(|(index, ((q, from), scale))| {
                    *scale = round_i8(from, q, key, (index * row) as u32);
                });
            }
        }
    }

    /// Bytes in the layout of [`crate::plan::StateKind::Ssm`].
    pub(super) fn read(&self) -> Vec<u8> {
        match &self.values {
            Values::F16(values) => bytemuck::cast_slice(values).to_vec(),
            Values::Bf16(values) => bytemuck::cast_slice(values).to_vec(),
            Values::I8 { q, scales } => [bytemuck::cast_slice::<i8, u8>(q), bytemuck::cast_slice(scales)].concat(),
        }
    }

    /// The reverse of [`ScanState::read`]; false if the length is wrong.
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        let parts: [&mut [u8]; 2] = match &mut self.values {
            Values::F16(values) => [bytemuck::cast_slice_mut(values), &mut []],
            Values::Bf16(values) => [bytemuck::cast_slice_mut(values), &mut []],
            Values::I8 { q, scales } => [bytemuck::cast_slice_mut(q), bytemuck::cast_slice_mut(scales)],
        };
        let (first, second) = (parts[0].len(), parts[1].len());
        if bytes.len() != first + second {
            return false;
        }
        parts[0].copy_from_slice(&bytes[..first]);
        parts[1].copy_from_slice(&bytes[first..]);
        true
    }
}

/// `round(index of the first element, from, to)` of all elements, in parallel.
fn in_parts<T: Send>(from: &[f32], to: &mut [T], round: impl Fn(u32, &[f32], &mut [T]) + Sync) {
    let parts = to.par_chunks_mut(PARALLEL_ELEMENTS).zip(from.par_chunks(PARALLEL_ELEMENTS)).enumerate();
    parts.for_each(|(index, (to, from))| round((index * PARALLEL_ELEMENTS) as u32, from, to));
}

/// Scatters 32 bits.
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// Of the random bits of one step.
fn key(seed: u32, position: u32) -> u32 {
    mix(position ^ mix(seed ^ 0x9e37_79b9))
}

/// Sixteen random bits for an element.
#[inline(always)]
fn noise(key: u32, index: u32) -> u32 {
    (mix(key ^ (index >> 1)) >> (16 * (index & 1))) & 0xffff
}

const INFINITY: u32 = 0x7f80_0000;

#[inline(always)]
fn bf16_bits(value: f32, r: u32) -> u16 {
    let (bits, magnitude) = (value.to_bits(), value.to_bits() & 0x7fff_ffff);
    let rounded = ((magnitude + r) >> 16).min(0x7f7f);
    let special = if magnitude == INFINITY { 0x7f80 } else { 0x7fc0 };
    let magnitude = if magnitude < INFINITY { rounded } else { special };
    ((bits >> 16) & 0x8000 | magnitude) as u16
}

/// Bits of an f16 below 2^-14, in units of 2^-24.
#[inline(always)]
fn small_f16_bits(magnitude: u32, r: u32) -> u32 {
    let cut = 126u32.saturating_sub(magnitude >> 23);
    let significand = magnitude & 0x7f_ffff | 0x80_0000;
    let r = if cut < 16 { r >> (16 - cut.min(16)) } else { r << ((cut - 16) & 15) };
    if cut > 31 { 0 } else { (significand + r) >> (cut & 31) }
}

#[inline(always)]
fn f16_bits(value: f32, r: u32) -> u16 {
    let (bits, magnitude) = (value.to_bits(), value.to_bits() & 0x7fff_ffff);
    let normal = ((magnitude.saturating_sub(0x3800_0000) + (r >> 3)) >> 13).min(0x7bff);
    let small = small_f16_bits(magnitude, r);
    let special = if magnitude == INFINITY { 0x7c00 } else { 0x7e00 };
    let finite = if magnitude < 0x3880_0000 { small } else { normal };
    let magnitude = if magnitude < INFINITY { finite } else { special };
    ((bits >> 16) & 0x8000 | magnitude) as u16
}

simd! {
fn round_bf16(from: &[f32], to: &mut [bf16], key: u32, first: u32) {
    for (index, (from, to)) in from.iter().zip(to).enumerate() {
        *to = bf16::from_bits(bf16_bits(*from, noise(key, first + index as u32)));
    }
}
}

simd! {
fn round_f16(from: &[f32], to: &mut [f16], key: u32, first: u32) {
    for (index, (from, to)) in from.iter().zip(to).enumerate() {
        *to = f16::from_bits(f16_bits(*from, noise(key, first + index as u32)));
    }
}
}

simd! {
/// Returns the scale.
fn round_i8(from: &[f32], q: &mut [i8], key: u32, first: u32) -> f32 {
    let absmax = from.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    if absmax == 0.0 {
        q.fill(0);
        return 0.0;
    }
    let inverse = 127.0 / absmax;
    for (index, (from, q)) in from.iter().zip(q).enumerate() {
        let u = noise(key, first + index as u32) as f32 * (1.0 / 65536.0);
        *q = (from * inverse + u).floor().clamp(-127.0, 127.0) as i32 as i8;
    }
    absmax / 127.0
}
}

simd! {
/// Steps of `scale` as floats.
pub(super) fn dequantize(q: &[i8], scale: f32, to: &mut [f32]) {
    for (to, q) in to.iter_mut().zip(q) {
        *to = f32::from(*q) * scale;
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::StateKind;
    use proptest::prelude::*;

    const TYPES: [DType; 3] = [DType::F16, DType::Bf16, DType::I8];

    fn state(dtype: DType, rows: usize, row: usize, seed: u32) -> ScanState {
        let state = State { name: String::new(), kind: StateKind::Ssm, dtype, shape: vec![1, rows, row] };
        ScanState::new(&state, seed).unwrap()
    }

    fn rounded(state: &mut ScanState, values: &[f32], position: usize) -> Vec<f32> {
        state.store(values, position);
        let mut back = vec![f32::NAN; values.len()];
        state.load(&mut back);
        back
    }

    /// The distance of two neighbors around a value.
    fn step(dtype: DType, value: f32, absmax: f32) -> f32 {
        let exponent = |least: i32, bits: i32| 2f32.powi((value.abs().log2().floor() as i32).max(least) - bits);
        match dtype {
            DType::F16 => exponent(-14, 10),
            DType::Bf16 => exponent(-126, 7),
            _ => absmax / 127.0,
        }
    }

    proptest! {
        #[test]
        fn a_value_becomes_one_of_its_two_neighbors(
            values in prop::collection::vec(-300f32..300.0, 24), scale in -20i32..4, position in 0usize..1 << 20, seed: u32,
        ) {
            let values: Vec<f32> = values.iter().map(|value| value * 2f32.powi(scale)).collect();
            for dtype in TYPES {
                let mut state = state(dtype, 3, 8, seed);
                let found = rounded(&mut state, &values, position);
                for (row, found) in values.chunks(8).zip(found.chunks(8)) {
                    let absmax = row.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                    for (value, found) in row.iter().zip(found) {
                        let step = step(dtype, *value, absmax) * 1.000_01;
                        prop_assert!((value - found).abs() <= step, "{dtype}: {value} became {found}");
                    }
                }
            }
        }

        #[test]
        fn what_is_read_is_written_back_and_nothing_of_another_length(
            values in prop::collection::vec(-3f32..3.0, 30), seed: u32,
        ) {
            for dtype in TYPES {
                let mut state = state(dtype, 3, 10, seed);
                let found = rounded(&mut state, &values, 5);
                let bytes = state.read();
                let mut other = super::tests::state(dtype, 3, 10, 0);
                prop_assert!(other.write(&bytes) && !other.write(&bytes[1..]));
                let mut back = vec![0.0; 30];
                other.load(&mut back);
                prop_assert_eq!(back, found);
            }
        }
    }

    #[test]
    fn rounding_is_right_in_the_mean() {
        // Means of 4096 roundings: five standard deviations of the mean, each at most half a step.
        const ROUNDS: usize = 4096;
        let values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.37).sin() * 1.3f32.powi(i % 40 - 30)).collect();
        for dtype in TYPES {
            let mut state = state(dtype, 2, 32, 7);
            let mut sums = vec![0.0f64; values.len()];
            for position in 0..ROUNDS {
                let found = rounded(&mut state, &values, position);
                sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += f64::from(found));
            }
            for (index, (value, sum)) in values.iter().zip(sums).enumerate() {
                let row = &values[index / 32 * 32..][..32];
                let absmax = row.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                let error = (sum / ROUNDS as f64 - f64::from(*value)).abs();
                let allowed = 5.0 * 0.5 * f64::from(step(dtype, *value, absmax)) / (ROUNDS as f64).sqrt();
                assert!(error <= allowed, "{dtype}[{index}]: {value} is off by {error} in the mean, allowed {allowed}");
            }
        }
    }

    #[test]
    fn noise_has_even_bits_and_does_not_repeat_from_element_to_element_or_step_to_step() {
        const COUNT: u32 = 1 << 16;
        // A fair bit of 65536 deviates by more than 6 x 128 once in 5e8.
        let near_half = |count: u32| count.abs_diff(COUNT / 2) < 6 * 128;
        let (here, next) = (key(3, 10), key(3, 11));
        for bit in 0..16 {
            let of = |key, index| noise(key, index) >> bit & 1;
            assert!(near_half((0..COUNT).map(|i| of(here, i)).sum()));
            assert!(near_half((0..COUNT).map(|i| of(here, i) ^ of(here, i + 1)).sum()));
            assert!(near_half((0..COUNT).map(|i| of(here, i) ^ of(next, i)).sum()));
            assert!(near_half((0..COUNT).map(|i| of(key(i, 10), 5)).sum()));
        }
    }

    #[test]
    fn exact_values_stay_and_finite_ones_stay_finite() {
        for r in [0, 1, 0x7fff, 0xffff] {
            for value in [0.0, -1.0, 0.5, 65504.0, -2.0f32.powi(-14), 2.0f32.powi(-24), f32::INFINITY] {
                assert_eq!(f16::from_bits(f16_bits(value, r)).to_f32(), value, "{r}");
            }
            for value in [0.0, -1.0, 1.0078125, f32::MIN_POSITIVE, f32::NEG_INFINITY] {
                assert_eq!(bf16::from_bits(bf16_bits(value, r)).to_f32(), value, "{r}");
            }
            assert_eq!(f16::from_bits(f16_bits(1e30, r)), f16::MAX);
            assert_eq!(bf16::from_bits(bf16_bits(-f32::MAX, r)), bf16::MIN);
            assert!(f16::from_bits(f16_bits(f32::NAN, r)).is_nan() && bf16::from_bits(bf16_bits(f32::NAN, r)).is_nan());
            assert_eq!(f16_bits(2.0f32.powi(-33), r), 0);
        }
    }

    #[test]
    fn the_same_place_is_rounded_the_same_way_and_another_is_not() {
        let values: Vec<f32> = (0..256).map(|i| (i as f32).sqrt()).collect();
        for dtype in TYPES {
            let found = |seed, position| rounded(&mut state(dtype, 8, 32, seed), &values, position);
            assert_eq!(found(1, 9), found(1, 9));
            assert_ne!(found(1, 9), found(1, 10));
            assert_ne!(found(1, 9), found(2, 9));
        }
    }
}
