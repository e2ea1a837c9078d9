//! The reference of the inner loops; what machines without AVX run.

use super::LANES;

/// `a * b + c`, fused where the instruction set can; elsewhere a fused operation would be a slow library call.
#[inline(always)]
pub(crate) fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Adds sixteen running sums in halves.
#[inline(always)]
pub(crate) fn add_halves(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Dot products of rows of equal length.
#[inline(always)]
pub(super) fn dot_floats<const R: usize, const T: usize>(w: [&[f32]; R], x: [&[f32]; T]) -> [[f32; T]; R] {
    w.map(|w| x.map(|x| dot_row(w, x)))
}

/// The same on top of running sums, of row `r` and token `t` at `r * stride + t`.
#[inline(always)]
pub(super) fn accumulate_floats<const R: usize, const T: usize>(
    w: [&[f32]; R],
    x: [&[f32]; T],
    running: &mut [[f32; LANES]],
    stride: usize,
) {
    for (r, w) in w.into_iter().enumerate() {
        for (t, x) in x.into_iter().enumerate() {
            add_products(w, x, &mut running[r * stride + t]);
        }
    }
}

#[inline(always)]
fn dot_row(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    add_products(a, b, &mut sums);
    add_halves(sums)
}

#[inline(always)]
fn add_products(a: &[f32], b: &[f32], sums: &mut [f32; LANES]) {
    const FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] = madd::<FMA>(a[lane], b[lane], sums[lane]);
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[lane] = madd::<FMA>(*a, *b, sums[lane]);
    }
}

/// Exact dot products of signed weights with activations that are signed or unsigned bytes.
#[inline(always)]
pub(super) fn dot_bytes<const R: usize, const T: usize>(w: [&[i8]; R], x: [&[u8]; T], signed: bool) -> [[i32; T]; R] {
    w.map(|w| x.map(|x| dot_byte_row(w, x, signed)))
}

#[inline(always)]
fn dot_byte_row(w: &[i8], x: &[u8], signed: bool) -> i32 {
    if signed {
        w.iter().zip(x).fold(0i32, |sum, (w, x)| sum.wrapping_add(i32::from(*w) * i32::from(*x as i8)))
    } else {
        w.iter().zip(x).fold(0i32, |sum, (w, x)| sum.wrapping_add(i32::from(*w) * i32::from(*x)))
    }
}
