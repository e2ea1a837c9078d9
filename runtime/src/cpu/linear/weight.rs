//! Weight rows in every stored format.

use super::super::simd::{LANES, Out, Rows, accumulate_floats, add_halves, dot_bytes, dot_floats, simd};
use super::super::storage::with_scratch;
use super::super::tensors::Tensors;
use super::{Input, ROW_BLOCK};
use crate::plan::{DType, K_ALIGN, PlanError, WeightFormat};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::borrow::Cow;
use std::ops::Range;

/// A stored matrix `[n, k]`; see [`WeightFormat`].
pub(in super::super) enum Weight<'a> {
    F32(Matrix<'a, f32>),
    F16(Matrix<'a, f16>),
    Bf16(Matrix<'a, bf16>),
    W8 { q: Matrix<'a, i8>, scale: Cow<'a, [f32]> },
    W4TwoLevel { q: Nibbles<'a>, steps: Matrix<'a, u8>, scale: Cow<'a, [f32]> },
    W4Group { q: Nibbles<'a>, scales: Matrix<'a, f16> },
}

/// Row-major elements.
pub(in super::super) struct Matrix<'a, T: Clone> {
    data: Cow<'a, [T]>,
    cols: usize,
}

impl<T: Clone> Matrix<'_, T> {
    fn rows(&self, rows: Range<usize>) -> &[T] {
        &self.data[rows.start * self.cols..rows.end * self.cols]
    }

    fn row(&self, row: usize) -> &[T] {
        self.rows(row..row + 1)
    }
}

impl<T: Clone> Matrix<'_, T> {
    /// With elements that `widen` makes f32.
    fn multiply(&self, rows: Range<usize>, x: Rows<'_, f32>, sums: &mut [f32], widen: impl Fn(&[T], &mut [f32])) {
        if x.count() == 1 {
            return unpacked(rows, self.cols, 1, sums, |rows, w: &mut [f32], out| {
                widen(self.rows(rows), w);
                dot_floats(Rows::new(w, self.cols), x, out);
            });
        }
        pieces(rows, self.cols, x, sums, |row, columns, w| widen(&self.row(row)[columns], w));
    }
}

/// Packed 4-bit weights.
pub(in super::super) struct Nibbles<'a> {
    packed: Matrix<'a, u8>,
    group_size: usize,
}

impl<'a> Weight<'a> {
    /// A matrix of `k` columns.
    pub(in super::super) fn new(
        name: &str,
        format: WeightFormat,
        k: usize,
        tensors: Tensors<'a>,
    ) -> Result<Self, PlanError> {
        let kp = k.next_multiple_of(K_ALIGN);
        let (weight, scale) = (format!("{name}.weight"), format!("{name}.scale"));
        let group_scale = format!("{name}.group_scale");
        let nibbles = |group_size| {
            let packed = Matrix { data: tensors.get(&weight)?, cols: kp / 2 };
            Ok::<_, PlanError>(Nibbles { packed, group_size })
        };
        Ok(match format {
            WeightFormat::Float { dtype: DType::F16 } => Weight::F16(Matrix { data: tensors.get(&weight)?, cols: k }),
            WeightFormat::Float { dtype: DType::Bf16 } => Weight::Bf16(Matrix { data: tensors.get(&weight)?, cols: k }),
            WeightFormat::Float { .. } => Weight::F32(Matrix { data: tensors.get(&weight)?, cols: k }),
            WeightFormat::W8 => {
                Weight::W8 { q: Matrix { data: tensors.get(&weight)?, cols: kp }, scale: tensors.get(&scale)? }
            }
            WeightFormat::W4TwoLevel { group_size } => Weight::W4TwoLevel {
                q: nibbles(group_size)?,
                steps: Matrix { data: tensors.get(&group_scale)?, cols: k.div_ceil(group_size) },
                scale: tensors.get(&scale)?,
            },
            WeightFormat::W4Group { group_size } => Weight::W4Group {
                q: nibbles(group_size)?,
                scales: Matrix { data: tensors.get(&group_scale)?, cols: k.div_ceil(group_size) },
            },
        })
    }

    /// `sums[t, r]` = row r times token t, before the epilogue: i32 where the format sums integers, else f32.
    pub(super) fn multiply(&self, rows: Range<usize>, input: Input<'_>, sums: &mut [u32]) {
        match input {
            Input::Float(x) => self.multiply_floats(rows, x, bytemuck::cast_slice_mut(sums)),
            Input::Bytes { rows: x, signed } => self.multiply_bytes(rows, x, signed, sums),
        }
    }

    fn multiply_floats(&self, rows: Range<usize>, x: Rows<'_, f32>, sums: &mut [f32]) {
        match self {
            Weight::F32(matrix) if x.count() == 1 => {
                let stride = rows.len();
                dot_floats(Rows::new(matrix.rows(rows), matrix.cols), x, Out { data: sums, stride });
            }
            Weight::F32(matrix) => matrix.multiply(rows, x, sums, |from, to| to.copy_from_slice(from)),
            Weight::F16(matrix) => matrix.multiply(rows, x, sums, |from, to| from.convert_to_f32_slice(to)),
            Weight::Bf16(matrix) => matrix.multiply(rows, x, sums, widen),
            _ => unreachable!("a validated plan multiplies floats with float weights"),
        }
    }

    fn multiply_bytes(&self, rows: Range<usize>, x: Rows<'_, u8>, signed: bool, sums: &mut [u32]) {
        match self {
            Weight::W8 { q, .. } => {
                let out = Out { stride: rows.len(), data: bytemuck::cast_slice_mut(sums) };
                dot_bytes(Rows::new(q.rows(rows), q.cols), x, signed, out);
            }
            Weight::W4TwoLevel { q, steps, .. } => {
                let sums = bytemuck::cast_slice_mut(sums);
                unpacked(rows, q.cols(), x.count(), sums, |rows, w: &mut [i8], out| {
                    for (row, w) in rows.zip(w.chunks_exact_mut(q.cols())) {
                        q.unpack(row, w);
                        scale_groups(w, steps.row(row), q.group_size);
                    }
                    dot_bytes(Rows::new(w, q.cols()), x, signed, out);
                });
            }
            Weight::W4Group { q, scales } => {
                let sums = bytemuck::cast_slice_mut(sums);
                unpacked(rows, q.cols(), x.count(), sums, |rows, w: &mut [i8], out| {
                    for (row, w) in rows.clone().zip(w.chunks_exact_mut(q.cols())) {
                        q.unpack(row, w);
                    }
                    let scales = Rows::new(scales.rows(rows), scales.cols);
                    group_sums(w, scales, q, x, signed, out);
                });
            }
            _ => unreachable!("a validated plan multiplies bytes with integer weights"),
        }
    }

    /// Row `row` as floats.
    pub(in super::super) fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        match self {
            Weight::F32(matrix) => out.copy_from_slice(matrix.row(row)),
            Weight::F16(matrix) => matrix.row(row).convert_to_f32_slice(out),
            Weight::Bf16(matrix) => widen(matrix.row(row), out),
            Weight::W8 { q, scale } => {
                out.iter_mut().zip(q.row(row)).for_each(|(out, q)| *out = f32::from(*q) * scale[row]);
            }
            Weight::W4TwoLevel { q, steps, scale } => with_scratch(q.cols(), |w: &mut [i8]| {
                q.unpack(row, w);
                scale_groups(w, steps.row(row), q.group_size);
                out.iter_mut().zip(w).for_each(|(out, q)| *out = f32::from(*q) * scale[row]);
            }),
            Weight::W4Group { q, scales } => with_scratch(q.cols(), |w: &mut [i8]| {
                q.unpack(row, w);
                let groups = out.chunks_mut(q.group_size).zip(w.chunks(q.group_size));
                for ((out, w), scale) in groups.zip(scales.row(row)) {
                    out.iter_mut().zip(w).for_each(|(out, q)| *out = f32::from(*q) * scale.to_f32());
                }
            }),
        }
    }
}

/// With few tokens, unpacked rows are used a few times only and should not leave the first-level cache.
const UNPACKED_BYTES: usize = 8 << 10;

/// Calls `multiply(rows, unpacked weights, sums of these rows)` for a few rows at a time.
fn unpacked<T: bytemuck::Pod, S>(
    rows: Range<usize>,
    cols: usize,
    tokens: usize,
    sums: &mut [S],
    multiply: impl Fn(Range<usize>, &mut [T], Out<'_, S>),
) {
    let few = (UNPACKED_BYTES / (cols * size_of::<T>())).clamp(1, ROW_BLOCK);
    let block = if tokens < ROW_BLOCK { few } else { ROW_BLOCK };
    with_scratch(block * cols, |weights: &mut [T]| {
        for first in rows.clone().step_by(block) {
            let end = rows.end.min(first + block);
            let out = Out { data: &mut sums[first - rows.start..], stride: rows.len() };
            multiply(first..end, &mut weights[..(end - first) * cols], out);
        }
    });
}

/// Columns of a piece: those of four rows, widened, and of four tokens lie in the first-level cache.
const PIECE: usize = 1024;
/// Rows that take their turn at a piece of the activations.
const PIECE_ROWS: usize = 32;

/// Multiplies piece by piece: `widen(row, columns, weights)` is called once for all tokens, and neither weights nor activations
/// leave the caches until they have met.
fn pieces(
    rows: Range<usize>,
    cols: usize,
    x: Rows<'_, f32>,
    sums: &mut [f32],
    widen: impl Fn(usize, Range<usize>, &mut [f32]),
) {
    let tokens = x.count();
    let running = PIECE_ROWS * tokens * LANES;
    with_scratch(running + 4 * PIECE, |scratch: &mut [f32]| {
        let (running, weights) = scratch.split_at_mut(running);
        for first in rows.clone().step_by(PIECE_ROWS) {
            let block = first..rows.end.min(first + PIECE_ROWS);
            let running = &mut running.as_chunks_mut::<LANES>().0[..block.len() * tokens];
            running.fill([0.0; LANES]);
            for start in (0..cols).step_by(PIECE) {
                let len = PIECE.min(cols - start);
                for (four, running) in block.clone().step_by(4).zip(running.chunks_mut(4 * tokens)) {
                    let weights = &mut weights[..running.len() / tokens * len];
                    for (row, weights) in (four..).zip(weights.chunks_exact_mut(len)) {
                        widen(row, start..start + len, weights);
                    }
                    accumulate_floats(Rows::new(weights, len), x.columns(start, len), running);
                }
            }
            for (row, running) in (first - rows.start..).zip(running.chunks_exact(tokens)) {
                for (t, running) in running.iter().enumerate() {
                    sums[t * rows.len() + row] = add_halves(*running);
                }
            }
        }
    });
}

/// Sums over groups, first to last, of the exact sum of a group times its scale.
fn group_sums(
    weights: &[i8],
    scales: Rows<'_, f16>,
    q: &Nibbles<'_>,
    x: Rows<'_, u8>,
    signed: bool,
    out: Out<'_, f32>,
) {
    let rows = weights.len() / q.cols();
    let mut partial = [0; ROW_BLOCK * GROUP_TOKENS];
    for first in (0..x.count()).step_by(GROUP_TOKENS) {
        let x = x.only(first, GROUP_TOKENS.min(x.count() - first));
        for (group, start) in (0..q.cols()).step_by(q.group_size).enumerate() {
            let len = q.group_size.min(q.cols() - start);
            let weights = Rows::new(weights, q.cols()).columns(start, len);
            dot_bytes(weights, x.columns(start, len), signed, Out { data: &mut partial, stride: rows });
            let mut row_scales = [0.0; ROW_BLOCK];
            for (row, scale) in row_scales[..rows].iter_mut().enumerate() {
                *scale = scales.get(row)[group].to_f32();
            }
            for (t, partial) in partial.chunks_exact(rows).take(x.count()).enumerate() {
                let sums = &mut out.data[(first + t) * out.stride..][..rows];
                for ((sum, partial), scale) in sums.iter_mut().zip(partial).zip(row_scales) {
                    let before = if group == 0 { 0.0 } else { *sum };
                    *sum = before + *partial as f32 * scale;
                }
            }
        }
    }
}

/// Tokens whose group sums are kept at a time.
const GROUP_TOKENS: usize = 16;

impl Nibbles<'_> {
    fn cols(&self) -> usize {
        self.packed.cols * 2
    }

    fn unpack(&self, row: usize, out: &mut [i8]) {
        unpack_nibbles(self.packed.row(row), out);
    }
}

simd! {
/// In each chunk of 32, byte j holds element j in its low and element 16 + j in its high nibble, both plus 8.
fn unpack_nibbles(packed: &[u8], out: &mut [i8]) {
    for (packed, out) in packed.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for j in 0..16 {
            out[j] = (packed[j] & 15) as i8 - 8;
            out[16 + j] = (packed[j] >> 4) as i8 - 8;
        }
    }
}
}

simd! {
/// `q * s` fits an i8: `7 * 17 = 119`.
fn scale_groups(weights: &mut [i8], steps: &[u8], group_size: usize) {
    for (group, step) in weights.chunks_mut(group_size).zip(steps) {
        for q in group {
            *q = q.wrapping_mul(*step as i8);
        }
    }
}
}

simd! {
/// bf16 is the upper half of f32.
fn widen(from: &[bf16], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f32::from_bits(u32::from(from.to_bits()) << 16);
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_in_pieces_have_the_bits_of_whole_rows(n in 1usize..70, cols in 1usize..2200, tokens in 2usize..10, seed: u64) {
            let mut state = seed;
            let mut value = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / 8_388_608.0 - 1.0
            };
            let w: Vec<bf16> = (0..n * cols).map(|_| bf16::from_f32(value())).collect();
            let x: Vec<f32> = (0..tokens * cols).map(|_| value()).collect();
            let matrix = Matrix { data: Cow::from(&w), cols };
            let rows = n / 3..n;
            let mut sums = vec![f32::NAN; rows.len() * tokens];
            matrix.multiply(rows.clone(), Rows::new(&x, cols), &mut sums, widen);
            let mut whole = vec![0.0; cols];
            for (r, row) in rows.clone().enumerate() {
                widen(matrix.row(row), &mut whole);
                for (t, x) in x.chunks_exact(cols).enumerate() {
                    let mut single = [0.0];
                    dot_floats(Rows::new(&whole, cols), Rows::new(x, cols), Out { data: &mut single, stride: 1 });
                    prop_assert_eq!(sums[t * rows.len() + r].to_bits(), single[0].to_bits());
                }
            }
        }

        #[test]
        fn unpacking_undoes_packing(values in prop::collection::vec(-8i8..8, 96)) {
            let packed: Vec<u8> = values
                .chunks(32)
                .flat_map(|chunk| (0..16).map(|j| (chunk[j] + 8) as u8 | ((chunk[16 + j] + 8) as u8) << 4))
                .collect();
            let mut out = vec![0; 96];
            unpack_nibbles(&packed, &mut out);
            prop_assert_eq!(out, values);
        }

        #[test]
        fn integer_steps_multiply_their_group(values in prop::collection::vec(-7i8..8, 96), a in 1u8..18, b in 1u8..18) {
            let mut scaled = values.clone();
            scale_groups(&mut scaled, &[a, b], 64);
            for (i, (scaled, value)) in scaled.iter().zip(&values).enumerate() {
                let step = if i < 64 { a } else { b };
                prop_assert_eq!(i32::from(*scaled), i32::from(*value) * i32::from(step));
            }
        }
    }
}
