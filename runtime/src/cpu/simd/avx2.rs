//! AVX2 tiles. Sixteen registers hold the sums of 2 x 2 dot products; larger tiles are split into those.

use super::LANES;
use std::arch::x86_64::*;

/// Sixteen sums of a dot product, in two registers.
type Sums = [__m256; 2];

#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn dot_floats<const R: usize, const T: usize>(w: [&[f32]; R], x: [&[f32]; T]) -> [[f32; T]; R] {
    let mut out = [[0.0; T]; R];
    for r in (0..R).step_by(2) {
        for t in (0..T).step_by(2) {
            // At odd borders the tile computes its last row twice.
            let (r1, t1) = ((r + 1).min(R - 1), (t + 1).min(T - 1));
            let tile = float_tile([w[r], w[r1]], [x[t], x[t1]]);
            out[r][t] = tile[0][0];
            out[r][t1] = tile[0][t1 - t];
            out[r1][t] = tile[r1 - r][0];
            out[r1][t1] = tile[r1 - r][t1 - t];
        }
    }
    out
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn float_tile(w: [&[f32]; 2], x: [&[f32]; 2]) -> [[f32; 2]; 2] {
    let sums = add_products(w, x, [[[_mm256_setzero_ps(); 2]; 2]; 2]);
    sums.map(|row| row.map(|sums| add_halves(sums)))
}

/// The same on top of running sums, of row `r` and token `t` at `r * stride + t`.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn accumulate_floats<const R: usize, const T: usize>(
    w: [&[f32]; R],
    x: [&[f32]; T],
    running: &mut [[f32; LANES]],
    stride: usize,
) {
    for r in (0..R).step_by(2) {
        for t in (0..T).step_by(2) {
            let (r1, t1) = ((r + 1).min(R - 1), (t + 1).min(T - 1));
            let places = [[r * stride + t, r * stride + t1], [r1 * stride + t, r1 * stride + t1]];
            let sums = places.map(|row| row.map(|place| load_sums(&running[place])));
            let sums = add_products([w[r], w[r1]], [x[t], x[t1]], sums);
            for i in 0..2 {
                for j in 0..2 {
                    running[places[i][j]] = bytemuck::cast(sums[i][j]);
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn add_products(w: [&[f32]; 2], x: [&[f32]; 2], mut sums: [[Sums; 2]; 2]) -> [[Sums; 2]; 2] {
    let chunks = w[0].len() / LANES;
    let w_chunks = w.map(|row| &row.as_chunks::<LANES>().0[..chunks]);
    let x_chunks = x.map(|row| &row.as_chunks::<LANES>().0[..chunks]);
    for c in 0..chunks {
        add_chunk(&mut sums, w_chunks.map(|row| row[c]), x_chunks.map(|row| row[c]));
    }
    if !w[0].len().is_multiple_of(LANES) {
        let rest = |row: &[f32]| {
            let mut chunk = [0.0; LANES];
            chunk[..row.len() - chunks * LANES].copy_from_slice(&row[chunks * LANES..]);
            chunk
        };
        add_chunk(&mut sums, w.map(rest), x.map(rest));
    }
    sums
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn add_chunk(sums: &mut [[Sums; 2]; 2], w: [[f32; LANES]; 2], x: [[f32; LANES]; 2]) {
    let (w, x) = (w.map(|chunk| load_sums(&chunk)), x.map(|chunk| load_sums(&chunk)));
    for r in 0..2 {
        for t in 0..2 {
            for half in 0..2 {
                sums[r][t][half] = _mm256_fmadd_ps(w[r][half], x[t][half], sums[r][t][half]);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_sums(chunk: &[f32; LANES]) -> Sums {
    let halves: &[[u8; 32]; 2] = bytemuck::cast_ref(chunk);
    [_mm256_castsi256_ps(load_bytes(&halves[0])), _mm256_castsi256_ps(load_bytes(&halves[1]))]
}

#[target_feature(enable = "avx2")]
#[inline]
fn add_halves(sums: Sums) -> f32 {
    let eight = _mm256_add_ps(sums[0], sums[1]);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Bytes are widened to 16 bits: `vpmaddubsw` would saturate.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn dot_bytes<const R: usize, const T: usize>(w: [&[i8]; R], x: [&[u8]; T], signed: bool) -> [[i32; T]; R] {
    const BYTES: usize = 16;
    let chunks = w[0].len() / BYTES;
    let w_bytes: [&[u8]; R] = w.map(bytemuck::cast_slice);
    let w_chunks = w_bytes.map(|row| &row.as_chunks::<BYTES>().0[..chunks]);
    let x_chunks = x.map(|row| &row.as_chunks::<BYTES>().0[..chunks]);
    let mut out = [[0; T]; R];
    for t in 0..T {
        let mut sums = [_mm256_setzero_si256(); R];
        for c in 0..chunks {
            let x = load_half(&x_chunks[t][c]);
            let x = if signed { _mm256_cvtepi8_epi16(x) } else { _mm256_cvtepu8_epi16(x) };
            for r in 0..R {
                let weights = _mm256_cvtepi8_epi16(load_half(&w_chunks[r][c]));
                sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(weights, x));
            }
        }
        for r in 0..R {
            out[r][t] = add_all(sums[r]);
        }
    }
    out
}

#[target_feature(enable = "avx2")]
#[inline]
fn add_all(sums: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

/// One unaligned load: the compiler merges the words.
#[target_feature(enable = "avx2")]
#[inline]
fn load_bytes(bytes: &[u8; 32]) -> __m256i {
    let words: &[[u8; 8]; 4] = bytemuck::cast_ref(bytes);
    let [a, b, c, d] = words.map(i64::from_le_bytes);
    _mm256_setr_epi64x(a, b, c, d)
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_half(bytes: &[u8; 16]) -> __m128i {
    let words: &[[u8; 8]; 2] = bytemuck::cast_ref(bytes);
    let [a, b] = words.map(i64::from_le_bytes);
    _mm_set_epi64x(b, a)
}
