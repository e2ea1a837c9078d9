//! The fast Walsh-Hadamard transform, in place and without its factor `1/sqrt(n)`.

use multiversion::multiversion;

/// Multiplies each column of `data`, a row-major matrix of `width` columns and a power of two of rows, by the
/// Sylvester-Hadamard matrix: entry `(i, j)` is `-1` to the number of ones that `i` and `j` have in common.
///
/// With `width` 1, `data` is one vector.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn transform(data: &mut [f32], width: usize) {
    // Plain loops: a function passed to an iterator method is compiled without the vector instructions of this one.
    let mut stride = width;
    if width == 1 && data.len() >= 16 {
        for v in data.as_chunks_mut::<16>().0 {
            transform_16(v);
        }
        stride = 16;
    }
    while stride * 4 <= data.len() {
        for block in data.chunks_exact_mut(stride * 4) {
            radix_4(block, stride);
        }
        stride *= 4;
    }
    if stride * 2 <= data.len() {
        for block in data.chunks_exact_mut(stride * 2) {
            radix_2(block, stride);
        }
    }
}

/// The Sylvester-Hadamard matrix of size 16.
const H16: [[f32; 16]; 16] = {
    let mut h = [[1.0; 16]; 16];
    let mut at = 0;
    while at < 256 {
        let (i, j): (usize, usize) = (at / 16, at % 16);
        if (i & j).count_ones() % 2 == 1 {
            h[i][j] = -1.0;
        }
        at += 1;
    }
    h
};

/// Sixteen rows of one column, as a product: butterflies within a vector would need shuffles, which cost more.
#[inline(always)]
fn transform_16(v: &mut [f32; 16]) {
    let mut sum = [0.0; 16];
    for (value, row) in v.iter().zip(&H16) {
        for (sum, sign) in sum.iter_mut().zip(row) {
            *sum += value * sign;
        }
    }
    *v = sum;
}

#[inline(always)]
fn radix_2(block: &mut [f32], stride: usize) {
    let (a, b) = block.split_at_mut(stride);
    for (a, b) in a.iter_mut().zip(b) {
        (*a, *b) = (*a + *b, *a - *b);
    }
}

#[inline(always)]
fn radix_4(block: &mut [f32], stride: usize) {
    let (low, high) = block.split_at_mut(stride * 2);
    let ((a, b), (c, d)) = (low.split_at_mut(stride), high.split_at_mut(stride));
    // Arrays, so that the short loops of small strides use vectors, too.
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks_mut::<16>(), b.as_chunks_mut::<16>());
    let ((c, c_rest), (d, d_rest)) = (c.as_chunks_mut::<16>(), d.as_chunks_mut::<16>());
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        butterfly(a, b, c, d);
    }
    butterfly(a_rest, b_rest, c_rest, d_rest);
}

#[inline(always)]
fn butterfly(a: &mut [f32], b: &mut [f32], c: &mut [f32], d: &mut [f32]) {
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        let (s, t, u, v) = (*a + *b, *a - *b, *c + *d, *c - *d);
        (*a, *b, *c, *d) = (s + u, t + v, s - u, t - v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_explicit_matrix() {
        for (rows, width) in [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (32, 1), (64, 1), (128, 1), (8, 3), (32, 5)] {
            let input: Vec<f32> = (0..rows * width).map(|i| ((i * 37 + 11) % 23) as f32 - 11.0).collect();
            let mut output = input.clone();
            transform(&mut output, width);
            for i in 0..rows {
                for c in 0..width {
                    let sign = |j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                    let expected: f32 = (0..rows).map(|j| sign(j) * input[j * width + c]).sum();
                    assert_eq!(output[i * width + c], expected, "{rows}x{width}");
                }
            }
        }
    }
}
