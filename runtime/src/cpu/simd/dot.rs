//! Many dot products at once: every row of one matrix with every row of another.

use super::{LANES, portable, simd};

/// Columns `start..start + len` of a row-major matrix.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    data: &'a [T],
    stride: usize,
    start: usize,
    len: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Whole rows of `stride` elements.
    pub(crate) fn new(data: &'a [T], stride: usize) -> Self {
        Rows { data, stride, start: 0, len: stride }
    }

    /// The same rows, only these columns.
    pub(crate) fn columns(self, start: usize, len: usize) -> Self {
        Rows { start, len, ..self }
    }

    /// Rows `first..first + count`, all columns.
    pub(crate) fn only(self, first: usize, count: usize) -> Self {
        let data = &self.data[first * self.stride..][..count * self.stride];
        Rows { data, ..self }
    }

    /// One row.
    pub(crate) fn get(&self, row: usize) -> &'a [T] {
        self.take::<1>(row)[0]
    }

    /// Number of rows.
    pub(crate) fn count(&self) -> usize {
        self.data.len() / self.stride
    }

    /// `N` rows from `first` on.
    #[inline(always)]
    pub(super) fn take<const N: usize>(&self, first: usize) -> [&'a [T]; N] {
        std::array::from_fn(|i| &self.data[(first + i) * self.stride + self.start..][..self.len])
    }
}

/// Up to this many tokens, weight rows are taken one by one: they come from memory, which reads one stream faster than
/// four. With more tokens they come from the cache most of the time.
const STREAMED_TOKENS: usize = 8;

/// Where products go: `data[t * stride + r]`.
pub(crate) struct Out<'a, Y> {
    pub(crate) data: &'a mut [Y],
    pub(crate) stride: usize,
}

/// Fills `out` tile by tile. A tile of 4 x 4 loads each row once for four products.
#[inline(always)]
fn tiles<W, X, Y: Copy>(
    w: Rows<'_, W>,
    x: Rows<'_, X>,
    out: Out<'_, Y>,
    tile_4x4: impl Fn([&[W]; 4], [&[X]; 4]) -> [[Y; 4]; 4],
    tile_1x4: impl Fn([&[W]; 1], [&[X]; 4]) -> [[Y; 4]; 1],
    tile_1x1: impl Fn([&[W]; 1], [&[X]; 1]) -> [[Y; 1]; 1],
) {
    let (rows, tokens) = (w.count(), x.count());
    let Out { data, stride } = out;
    let grouped = if tokens > STREAMED_TOKENS { rows - rows % 4 } else { 0 };
    let whole = tokens - tokens % 4;
    for r in (0..grouped).step_by(4) {
        let weights = w.take::<4>(r);
        for t in (0..whole).step_by(4) {
            let sums = tile_4x4(weights, x.take::<4>(t));
            for i in 0..4 {
                data[(t + i) * stride + r..][..4].copy_from_slice(&[sums[0][i], sums[1][i], sums[2][i], sums[3][i]]);
            }
        }
        for t in whole..tokens {
            for (i, weights) in weights.iter().enumerate() {
                data[t * stride + r + i] = tile_1x1([weights], x.take::<1>(t))[0][0];
            }
        }
    }
    for r in grouped..rows {
        for t in (0..whole).step_by(4) {
            let sums = tile_1x4(w.take::<1>(r), x.take::<4>(t))[0];
            for (i, sum) in sums.into_iter().enumerate() {
                data[(t + i) * stride + r] = sum;
            }
        }
        for t in whole..tokens {
            data[t * stride + r] = tile_1x1(w.take::<1>(r), x.take::<1>(t))[0][0];
        }
    }
}

simd! {
/// `out[t, r] = w[r] . x[t]`.
pub(crate) fn dot_floats(w: Rows<'_, f32>, x: Rows<'_, f32>, out: Out<'_, f32>) {
    multiversion::target::match_target! {
        "x86_64+avx512f+avx512bw+avx512vl+avx512dq+avx512vnni" => {
            use super::avx512::dot_floats as dot;
            tiles(w, x, out, |w, x| dot(w, x), |w, x| dot(w, x), |w, x| dot(w, x));
        },
        "x86_64+avx2+fma" => {
            use super::avx2::dot_floats as dot;
            tiles(w, x, out, |w, x| dot(w, x), |w, x| dot(w, x), |w, x| dot(w, x));
        },
        _ => {
            use portable::dot_floats;
            tiles(w, x, out, dot_floats, dot_floats, dot_floats);
        },
    }
}
}

/// Running sums of each row of `w` with each of `x`, `[row, token]`.
#[inline(always)]
fn accumulate_tiles(
    w: Rows<'_, f32>,
    x: Rows<'_, f32>,
    running: &mut [[f32; LANES]],
    tile_4x4: impl Fn([&[f32]; 4], [&[f32]; 4], &mut [[f32; LANES]]),
    tile_4x1: impl Fn([&[f32]; 4], [&[f32]; 1], &mut [[f32; LANES]]),
    tile_1x1: impl Fn([&[f32]; 1], [&[f32]; 1], &mut [[f32; LANES]]),
) {
    let (rows, tokens) = (w.count(), x.count());
    let (grouped, whole) = (rows - rows % 4, tokens - tokens % 4);
    for r in (0..grouped).step_by(4) {
        for t in (0..whole).step_by(4) {
            tile_4x4(w.take::<4>(r), x.take::<4>(t), &mut running[r * tokens + t..]);
        }
        for t in whole..tokens {
            tile_4x1(w.take::<4>(r), x.take::<1>(t), &mut running[r * tokens + t..]);
        }
    }
    for r in grouped..rows {
        for t in 0..tokens {
            tile_1x1(w.take::<1>(r), x.take::<1>(t), &mut running[r * tokens + t..]);
        }
    }
}

simd! {
/// Adds `w[r] . x[t]` to the sixteen running sums at `[r, t]`. The columns of a matrix may come in several calls, all but the
/// last a multiple of sixteen: the sums are those of whole rows, to the bit.
pub(crate) fn accumulate_floats(w: Rows<'_, f32>, x: Rows<'_, f32>, running: &mut [[f32; LANES]]) {
    let stride = x.count();
    multiversion::target::match_target! {
        "x86_64+avx512f+avx512bw+avx512vl+avx512dq+avx512vnni" => {
            use super::avx512::accumulate_floats as add;
            accumulate_tiles(w, x, running, |w, x, s| add(w, x, s, stride), |w, x, s| add(w, x, s, stride), |w, x, s| add(w, x, s, stride));
        },
        "x86_64+avx2+fma" => {
            use super::avx2::accumulate_floats as add;
            accumulate_tiles(w, x, running, |w, x, s| add(w, x, s, stride), |w, x, s| add(w, x, s, stride), |w, x, s| add(w, x, s, stride));
        },
        _ => {
            use portable::accumulate_floats as add;
            accumulate_tiles(w, x, running, |w, x, s| add(w, x, s, stride), |w, x, s| add(w, x, s, stride), |w, x, s| add(w, x, s, stride));
        },
    }
}
}

simd! {
/// The same for signed weights and byte activations, exactly. Rows are a multiple of 32 long.
pub(crate) fn dot_bytes(w: Rows<'_, i8>, x: Rows<'_, u8>, signed: bool, out: Out<'_, i32>) {
    multiversion::target::match_target! {
        "x86_64+avx512f+avx512bw+avx512vl+avx512dq+avx512vnni" => {
            use super::avx512::dot_bytes as dot;
            tiles(w, x, out, |w, x| dot(w, x, signed), |w, x| dot(w, x, signed), |w, x| dot(w, x, signed));
        },
        "x86_64+avx2+fma" => {
            use super::avx2::dot_bytes as dot;
            tiles(w, x, out, |w, x| dot(w, x, signed), |w, x| dot(w, x, signed), |w, x| dot(w, x, signed));
        },
        _ => {
            use portable::dot_bytes as dot;
            tiles(w, x, out, |w, x| dot(w, x, signed), |w, x| dot(w, x, signed), |w, x| dot(w, x, signed));
        },
    }
}
}

simd! {
/// One dot product of two rows of equal length.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    multiversion::target::match_target! {
        "x86_64+avx512f+avx512bw+avx512vl+avx512dq+avx512vnni" => super::avx512::dot_floats([a], [b])[0][0],
        "x86_64+avx2+fma" => super::avx2::dot_floats([a], [b])[0][0],
        _ => portable::dot_floats([a], [b])[0][0],
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let step = |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..len).map(step).collect()
    }

    /// Instruction sets that this machine would not choose are compiled as [`simd`] functions of their own.
    mod other_sets {

        #[multiversion::multiversion(targets("x86_64+avx2+fma+f16c"))]
        pub fn avx2_floats(w: [&[f32]; 4], x: [&[f32]; 4]) -> Option<[[f32; 4]; 4]> {
            multiversion::target::match_target! {
                "x86_64+avx2+fma" => Some(super::super::super::avx2::dot_floats(w, x)),
                _ => { let _ = (w, x); None },
            }
        }

        /// Two pieces, of 16 columns and of the rest, on top of zeros.
        #[multiversion::multiversion(targets("x86_64+avx2+fma+f16c"))]
        pub fn avx2_pieces(w: [&[f32]; 4], x: [&[f32]; 4]) -> Option<[[f32; 16]; 16]> {
            multiversion::target::match_target! {
                "x86_64+avx2+fma" => {
                    let mut running = [[0.0; 16]; 16];
                    let split = w[0].len().min(16);
                    let add = super::super::super::avx2::accumulate_floats::<4, 4>;
                    add(w.map(|w| &w[..split]), x.map(|x| &x[..split]), &mut running, 4);
                    add(w.map(|w| &w[split..]), x.map(|x| &x[split..]), &mut running, 4);
                    Some(running)
                },
                _ => { let _ = (w, x); None },
            }
        }

        #[multiversion::multiversion(targets("x86_64+avx2+fma+f16c"))]
        pub fn avx2_bytes(w: [&[i8]; 1], x: [&[u8]; 4], signed: bool) -> Option<[[i32; 4]; 1]> {
            multiversion::target::match_target! {
                "x86_64+avx2+fma" => Some(super::super::super::avx2::dot_bytes(w, x, signed)),
                _ => { let _ = (w, x, signed); None },
            }
        }
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_same_result(k in 1usize..200, seed: u64, signed: bool) {
            let data = bytes(8 * k.next_multiple_of(32), seed);
            let floats: Vec<f32> = data.iter().map(|b| f32::from(*b) / 37.0 - 3.0).collect();
            let w: [&[f32]; 4] = std::array::from_fn(|i| &floats[i * k..][..k]);
            let x: [&[f32]; 4] = std::array::from_fn(|i| &floats[(4 + i) * k..][..k]);
            let expected = w.map(|w| x.map(|x| dot(w, x)));
            if let Some(found) = other_sets::avx2_floats(w, x) {
                prop_assert_eq!(found.map(|row| row.map(f32::to_bits)), expected.map(|row| row.map(f32::to_bits)));
            }
            if let Some(running) = other_sets::avx2_pieces(w, x) {
                let found = running.map(|sums| portable::add_halves(sums).to_bits());
                prop_assert_eq!(found.to_vec(), expected.iter().flatten().map(|sum| sum.to_bits()).collect::<Vec<_>>());
            }
            // Without fused multiply-add the last bits differ.
            for (found, expected) in portable::dot_floats(w, x).iter().flatten().zip(expected.iter().flatten()) {
                prop_assert!((found - expected).abs() <= 1e-5 * (1.0 + 10.0 * k as f32));
            }
            let k = k.next_multiple_of(32);
            let signed_data: Vec<i8> = data.iter().map(|b| *b as i8).collect();
            let w = [&signed_data[..k]];
            let x: [&[u8]; 4] = std::array::from_fn(|i| &data[(1 + i) * k..][..k]);
            let expected = portable::dot_bytes(w, x, signed);
            if let Some(found) = other_sets::avx2_bytes(w, x, signed) {
                prop_assert_eq!(found, expected);
            }
            let mut found = [0; 4];
            dot_bytes(Rows::new(w[0], k), Rows::new(&data[k..5 * k], k), signed, Out { data: &mut found, stride: 1 });
            prop_assert_eq!([found], expected);
        }

        #[test]
        fn integer_dots_equal_naive_i64(rows in 1usize..10, tokens in 1usize..14, chunks in 1usize..7, seed: u64, signed: bool) {
            let k = chunks * 32;
            let (w, x) = (bytes(rows * k, seed), bytes(tokens * k, !seed));
            let w: Vec<i8> = w.iter().map(|&w| w as i8).collect();
            let mut out = vec![0; rows * tokens];
            dot_bytes(Rows::new(&w, k), Rows::new(&x, k), signed, Out { data: &mut out, stride: rows });
            for r in 0..rows {
                for t in 0..tokens {
                    let value = |i: usize| if signed { i64::from(x[t * k + i] as i8) } else { i64::from(x[t * k + i]) };
                    let expected: i64 = (0..k).map(|i| i64::from(w[r * k + i]) * value(i)).sum();
                    prop_assert_eq!(i64::from(out[t * rows + r]), expected);
                }
            }
        }

        #[test]
        fn float_dots_have_the_same_bits_in_every_tile(rows in 1usize..10, tokens in 1usize..14, k in 1usize..200, seed: u64) {
            let float = |b: &u8| f32::from(*b) / 37.0 - 3.0;
            let w: Vec<f32> = bytes(rows * k, seed).iter().map(float).collect();
            let x: Vec<f32> = bytes(tokens * k, !seed).iter().map(float).collect();
            let mut out = vec![0.0; rows * tokens];
            dot_floats(Rows::new(&w, k), Rows::new(&x, k), Out { data: &mut out, stride: rows });
            for r in 0..rows {
                for t in 0..tokens {
                    let (w, x) = (&w[r * k..][..k], &x[t * k..][..k]);
                    let single = dot(w, x);
                    prop_assert_eq!(single.to_bits(), out[t * rows + r].to_bits());
                    let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    let size: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w * *x).abs()).sum();
                    prop_assert!((f64::from(single) - exact).abs() <= 1e-6 * size + 1e-12);
                }
            }
        }
    }
}
