//! How results leave a kernel: online rotation, then float or 8-bit rows.

use super::buffers::Buffers;
use super::hadamard::rotate;
use super::simd::{LANES, simd};
use super::storage::with_scratch;
use crate::plan::{Activation, DType, Emit};
use rayon::prelude::*;

/// Below this many elements, waking other threads costs more than it saves.
pub(super) const PARALLEL_ELEMENTS: usize = 1 << 14;

/// Calls `f` on every row of `rows`, in parallel if there is enough to do.
pub(super) fn for_rows<T: Send>(rows: &mut [T], cols: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    if rows.len() < PARALLEL_ELEMENTS {
        rows.chunks_mut(cols).enumerate().for_each(|(t, row)| f(t, row));
    } else {
        rows.par_chunks_mut(cols).enumerate().for_each(|(t, row)| f(t, row));
    }
}

/// Fills an activation of `cols` columns: `row(buffers, t, y)` computes row `t`.
pub(super) fn emit(emit: &Emit, cols: usize, buffers: &mut Buffers, row: impl Fn(&Buffers, usize, &mut [f32]) + Sync) {
    let finished = |buffers: &Buffers, t: usize, y: &mut [f32]| {
        row(buffers, t, y);
        if let Some(block) = emit.hadamard_block {
            rotate(y, block);
        }
    };
    match emit.to {
        Activation::Float { data } => buffers.write(data, |buffers, out| {
            for_rows(out, cols, |t, y| finished(buffers, t, y));
        }),
        Activation::Quantized { data, scale } => {
            let (padded, unsigned) = (buffers.cols(data), buffers.dtype(data) == DType::U8);
            let mut scales = buffers.take(scale);
            let rows = buffers.rows(data);
            buffers.write(data, |buffers, out: &mut [u8]| {
                let quantized = |t: usize, q: &mut [u8], scale: &mut f32| {
                    with_scratch(cols, |y| {
                        finished(buffers, t, y);
                        let (q, padding) = q.split_at_mut(cols);
                        *scale = if unsigned { quantize_u8(y, q) } else { quantize_i8(y, bytemuck::cast_slice_mut(q)) };
                        padding.fill(0);
                    });
                };
                let scales = scales.view_mut::<f32>(rows);
                if rows * cols < PARALLEL_ELEMENTS {
                    for (t, (q, scale)) in out.chunks_mut(padded).zip(scales).enumerate() {
                        quantized(t, q, scale);
                    }
                } else {
                    let rows = out.par_chunks_mut(padded).zip(scales).enumerate();
                    rows.for_each(|(t, (q, scale))| quantized(t, q, scale));
                }
            });
            buffers.put(scale, scales);
        }
    }
}

#[inline(always)]
fn largest(y: &[f32], magnitude: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = y.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, y) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(magnitude(*y));
        }
    }
    lanes.iter().copied().chain(rest.iter().map(|y| magnitude(*y))).fold(0.0, f32::max)
}

simd! {
/// Rounds a row to ±127 steps of its largest magnitude; returns the step.
pub(super) fn quantize_i8(y: &[f32], q: &mut [i8]) -> f32 {
    let absmax = largest(y, f32::abs);
    if absmax == 0.0 {
        q.fill(0);
        return 0.0;
    }
    let inverse = 127.0 / absmax;
    for (q, y) in q.iter_mut().zip(y) {
        *q = (y * inverse).round_ties_even().clamp(-127.0, 127.0) as i32 as i8;
    }
    absmax / 127.0
}
}

simd! {
/// Rounds a row of non-negative values to 255 steps of its largest; returns the step.
pub(super) fn quantize_u8(y: &[f32], q: &mut [u8]) -> f32 {
    let max = largest(y, |y| y);
    if max == 0.0 {
        q.fill(0);
        return 0.0;
    }
    let inverse = 255.0 / max;
    for (q, y) in q.iter_mut().zip(y) {
        *q = (y * inverse).round_ties_even().clamp(0.0, 255.0) as i32 as u8;
    }
    max / 255.0
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounds_half_to_even() {
        let mut q = [0i8; 5];
        let scale = quantize_i8(&[127.0, 0.5, 1.5, -2.5, -127.0], &mut q);
        assert_eq!((scale, q), (1.0, [127, 0, 2, -2, -127]));
        let mut q = [0u8; 4];
        let scale = quantize_u8(&[255.0, 0.5, 1.5, 0.0], &mut q);
        assert_eq!((scale, q), (1.0, [255, 0, 2, 0]));
    }

    #[test]
    fn a_row_of_zeros_has_scale_zero() {
        let mut q = [9i8; 40];
        assert_eq!(quantize_i8(&[0.0; 40], &mut q), 0.0);
        assert_eq!(q, [0; 40]);
    }

    proptest! {
        #[test]
        fn quantized_values_are_within_half_a_step(y in prop::collection::vec(-1e4f32..1e4, 1..100)) {
            let mut q = vec![0i8; y.len()];
            let scale = quantize_i8(&y, &mut q);
            for (y, q) in y.iter().zip(&q) {
                prop_assert!((y - f32::from(*q) * scale).abs() <= scale * 0.5001);
            }
            let y: Vec<f32> = y.iter().map(|y| y.abs()).collect();
            let mut q = vec![0u8; y.len()];
            let scale = quantize_u8(&y, &mut q);
            for (y, q) in y.iter().zip(&q) {
                prop_assert!((y - f32::from(*q) * scale).abs() <= scale * 0.5001);
            }
        }
    }
}
