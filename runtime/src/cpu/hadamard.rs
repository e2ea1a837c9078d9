//! The online rotation.

use super::simd::simd;

simd! {
/// Multiplies each block of `block` values by the Sylvester-Hadamard matrix over `sqrt(block)`.
pub(super) fn rotate(y: &mut [f32], block: usize) {
    let norm = 1.0 / (block as f32).sqrt();
    for values in y.chunks_exact_mut(block) {
        let mut width = 1;
        while width < block {
            for pair in values.chunks_exact_mut(2 * width) {
                let (low, high) = pair.split_at_mut(width);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            width *= 2;
        }
        for value in values {
            *value *= norm;
        }
    }
}
}

#[cfg(test)]
mod tests {
    use super::rotate;
    use proptest::prelude::*;

    #[test]
    fn equals_the_sylvester_matrix() {
        let n = 64;
        for row in 0..n {
            let mut y = vec![0.0; n];
            y[row] = 1.0;
            rotate(&mut y, n);
            for (column, value) in y.iter().enumerate() {
                let sign = if (row & column).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                assert_eq!(*value, sign / 8.0);
            }
        }
    }

    proptest! {
        #[test]
        fn keeps_lengths_and_undoes_itself(values in prop::collection::vec(-10f32..10.0, 128), log2 in 0u32..8) {
            let block = 1 << log2;
            let mut y = values.clone();
            rotate(&mut y, block);
            let length = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            prop_assert!((length(&y) - length(&values)).abs() <= 1e-5 * length(&values) + 1e-12);
            rotate(&mut y, block);
            for (a, b) in y.iter().zip(&values) {
                prop_assert!((a - b).abs() < 1e-4);
            }
        }
    }
}
