//! The fast Walsh-Hadamard transform, in place and without its factor `1/sqrt(n)`.

use multiversion::multiversion;

/// Multiplies each column of `data`, a row-major matrix of `width` columns and a power of two of rows, by the
/// Sylvester-Hadamard matrix: entry `(i, j)` is `-1` to the number of ones that `i` and `j` have in common.
///
/// With `width` 1, `data` is one vector.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn transform(data: &mut [f32], width: usize) {
    let mut stride = width;
    if width == 1 && data.len() >= 16 {
        data.as_chunks_mut::<16>().0.iter_mut().for_each(transform_16);
        stride = 16;
    }
    while stride * 4 <= data.len() {
        data.chunks_exact_mut(stride * 4).for_each(|block| radix_4(block, stride));
        stride *= 4;
    }
    if stride * 2 <= data.len() {
        data.chunks_exact_mut(stride * 2).for_each(|block| radix_2(block, stride));
    }
}

/// Sixteen rows of one column.
#[inline(always)]
fn transform_16(v: &mut [f32; 16]) {
    for stride in [8, 4, 2, 1] {
        let mut next = [0.0; 16];
        for i in 0..16 {
            let other = v[i ^ stride];
            next[i] = if i & stride == 0 { v[i] + other } else { other - v[i] };
        }
        *v = next;
    }
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
