//! AVX-512 tiles: `R` weight rows times `T` activation rows, all sums in registers.

use super::LANES;
use std::arch::x86_64::*;

/// Sixteen floats, element `i` of every chunk into sum `i`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
pub(super) fn dot_floats<const R: usize, const T: usize>(w: [&[f32]; R], x: [&[f32]; T]) -> [[f32; T]; R] {
    let mut out = [[0.0; T]; R];
    float_tile(w, x, |_, _| _mm512_setzero_ps(), |r, t, sums| out[r][t] = add_halves(sums));
    out
}

/// The same on top of running sums, of row `r` and token `t` at `r * stride + t`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
pub(super) fn accumulate_floats<const R: usize, const T: usize>(
    w: [&[f32]; R],
    x: [&[f32]; T],
    running: &mut [[f32; LANES]],
    stride: usize,
) {
    let mut sums = [[[0.0; LANES]; T]; R];
    for r in 0..R {
        sums[r].copy_from_slice(&running[r * stride..][..T]);
    }
    let store = |r: usize, t: usize, sums| running[r * stride + t] = bytemuck::cast(sums);
    float_tile(w, x, |r, t| load_floats(&sums[r][t]), store);
}

/// Sums live in registers between `first` and `last`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
#[expect(clippy::needless_range_loop, reason = "row and token name a register")]
fn float_tile<const R: usize, const T: usize>(
    w: [&[f32]; R],
    x: [&[f32]; T],
    first: impl Fn(usize, usize) -> __m512,
    mut last: impl FnMut(usize, usize, __m512),
) {
    let chunks = w[0].len() / LANES;
    let w_chunks = w.map(|row| &row.as_chunks::<LANES>().0[..chunks]);
    let x_chunks = x.map(|row| &row.as_chunks::<LANES>().0[..chunks]);
    let mut sums = [[_mm512_setzero_ps(); T]; R];
    for r in 0..R {
        for t in 0..T {
            sums[r][t] = first(r, t);
        }
    }
    for c in 0..chunks {
        let mut xs = [_mm512_setzero_ps(); T];
        for t in 0..T {
            xs[t] = load_floats(&x_chunks[t][c]);
        }
        for r in 0..R {
            let weights = load_floats(&w_chunks[r][c]);
            for t in 0..T {
                sums[r][t] = _mm512_fmadd_ps(weights, xs[t], sums[r][t]);
            }
        }
    }
    if !w[0].len().is_multiple_of(LANES) {
        let xs = x.map(|row| load_floats(&zero_extended(&row[chunks * LANES..])));
        for r in 0..R {
            let weights = load_floats(&zero_extended(&w[r][chunks * LANES..]));
            for t in 0..T {
                sums[r][t] = _mm512_fmadd_ps(weights, xs[t], sums[r][t]);
            }
        }
    }
    for r in 0..R {
        for t in 0..T {
            last(r, t, sums[r][t]);
        }
    }
}

/// `vpdpbusd` multiplies unsigned by signed bytes. Signed activations are offset by 128 to become unsigned, and
/// `128 * sum(w)`, summed by the same instruction, is taken off at the end.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
pub(super) fn dot_bytes<const R: usize, const T: usize>(w: [&[i8]; R], x: [&[u8]; T], signed: bool) -> [[i32; T]; R] {
    const BYTES: usize = 64;
    let chunks = w[0].len() / BYTES;
    let w_bytes: [&[u8]; R] = w.map(bytemuck::cast_slice);
    let w_chunks = w_bytes.map(|row| &row.as_chunks::<BYTES>().0[..chunks]);
    let x_chunks = x.map(|row| &row.as_chunks::<BYTES>().0[..chunks]);
    let offset = _mm512_set1_epi8(if signed { i8::MIN } else { 0 });
    let mut sums = [[_mm512_setzero_si512(); T]; R];
    let mut offsets = [_mm512_setzero_si512(); R];
    for c in 0..chunks {
        let mut xs = [offset; T];
        for t in 0..T {
            xs[t] = _mm512_xor_si512(load_bytes(&x_chunks[t][c]), offset);
        }
        for r in 0..R {
            let weights = load_bytes(&w_chunks[r][c]);
            offsets[r] = _mm512_dpbusd_epi32(offsets[r], offset, weights);
            for t in 0..T {
                sums[r][t] = _mm512_dpbusd_epi32(sums[r][t], xs[t], weights);
            }
        }
    }
    if !w[0].len().is_multiple_of(BYTES) {
        let xs = x.map(|row| _mm512_xor_si512(load_bytes(&zero_extended(&row[chunks * BYTES..])), offset));
        for r in 0..R {
            let weights = load_bytes(&zero_extended(&w_bytes[r][chunks * BYTES..]));
            offsets[r] = _mm512_dpbusd_epi32(offsets[r], offset, weights);
            for t in 0..T {
                sums[r][t] = _mm512_dpbusd_epi32(sums[r][t], xs[t], weights);
            }
        }
    }
    let mut out = [[0; T]; R];
    for r in 0..R {
        for t in 0..T {
            out[r][t] = _mm512_reduce_add_epi32(_mm512_sub_epi32(sums[r][t], offsets[r]));
        }
    }
    out
}

/// One unaligned load: the compiler merges the eight words.
#[target_feature(enable = "avx512f")]
#[inline]
fn load_bytes(bytes: &[u8; 64]) -> __m512i {
    let words: &[[u8; 8]; 8] = bytemuck::cast_ref(bytes);
    let [a, b, c, d, e, f, g, h] = words.map(i64::from_le_bytes);
    _mm512_setr_epi64(a, b, c, d, e, f, g, h)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_floats(floats: &[f32; LANES]) -> __m512 {
    _mm512_castsi512_ps(load_bytes(bytemuck::cast_ref(floats)))
}

#[inline(always)]
fn zero_extended<T: Copy + Default, const N: usize>(rest: &[T]) -> [T; N] {
    let mut chunk = [T::default(); N];
    chunk[..rest.len()].copy_from_slice(rest);
    chunk
}

#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn add_halves(sums: __m512) -> f32 {
    let eight = _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps::<1>(sums));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
