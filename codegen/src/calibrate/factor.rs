//! The inverse of a damped Hessian, as the triangular factor that GPTQ walks along.

use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use rayon::prelude::*;

/// Damping, as a share of the mean of the diagonal.
const DAMPING: f64 = 0.01;
/// What it is raised by when the factorization fails, and how often.
const DAMPING_STEP: f64 = 10.0;
const DAMPING_STEPS: usize = 3;
/// Rows that one thread multiplies at a time.
const BLOCK_ROWS: usize = 64;

/// Upper triangular `U` with `U^T U = (H + damping * mean(diag H) * I)^-1`.
pub(super) struct InverseFactor {
    k: usize,
    upper: Mat<f64>,
}

impl InverseFactor {
    /// Factorizes `h` `[k, k]`, symmetric. Inputs that were always zero count as average ones without correlations, so
    /// that their weights are rounded to nearest. `None` when `h` is not finite or far from positive.
    ///
    /// With `J` the reversal of order, `J H J = L L^T` gives `H = V V^T` for the upper triangular `V = J L J`; hence
    /// `U = V^-1 = J L^-1 J`.
    pub(super) fn new(mut h: Vec<f64>, k: usize) -> Option<InverseFactor> {
        let mean = (0..k).map(|i| h[i * k + i]).sum::<f64>() / k as f64;
        if !mean.is_finite() || mean < 0.0 {
            return None;
        }
        let mean = if mean == 0.0 { 1.0 } else { mean };
        for i in 0..k {
            if h[i * k + i] == 0.0 {
                h[i * k + i] = mean;
            }
        }
        let h = MatRef::from_row_major_slice(&h, k, k);
        let dampings = std::iter::successors(Some(DAMPING), |damping| Some(damping * DAMPING_STEP));
        let lower = dampings.take(DAMPING_STEPS).find_map(|damping| {
            let reversed =
                Mat::from_fn(k, k, |i, j| h[(k - 1 - i, k - 1 - j)] + if i == j { damping * mean } else { 0.0 });
            let factor = reversed.llt(Side::Lower).ok()?;
            let mut inverse = Mat::<f64>::identity(k, k);
            solve_lower_triangular_in_place(factor.L(), inverse.as_mut(), Par::Seq);
            (0..k).all(|i| (0..=i).all(|j| inverse[(i, j)].is_finite())).then_some(inverse)
        })?;
        Some(InverseFactor { k, upper: Mat::from_fn(k, k, |i, j| lower[(k - 1 - i, k - 1 - j)]) })
    }

    /// `U` as f32, row-major; zero below the diagonal.
    pub(super) fn rows(&self) -> Vec<f32> {
        (0..self.k).flat_map(|i| (0..self.k).map(move |j| self.upper[(i, j)] as f32)).collect()
    }

    /// `g (H + ...)^-1` for `g` `[n, k]`, row-major.
    pub(super) fn solve(&self, g: &mut [f64]) {
        let (k, upper) = (self.k, self.upper.as_ref());
        g.par_chunks_mut(BLOCK_ROWS * k).for_each(|g| {
            let rows = g.len() / k;
            let mut half = Mat::<f64>::zeros(rows, k);
            let input = MatRef::from_row_major_slice(&*g, rows, k);
            matmul(half.as_mut(), Accum::Replace, input, upper.transpose(), 1.0, Par::Seq);
            let out = MatMut::from_row_major_slice_mut(g, rows, k);
            matmul(out, Accum::Replace, half.as_ref(), upper, 1.0, Par::Seq);
        });
    }
}

/// `w @ c` for `w` `[n, k]` and `c` `[k, k]`, row-major.
pub(super) fn multiply(w: &[f32], c: &[f64], k: usize) -> Vec<f64> {
    let mut out: Vec<f64> = w.iter().map(|value| f64::from(*value)).collect();
    let c = MatRef::from_row_major_slice(c, k, k);
    out.par_chunks_mut(BLOCK_ROWS * k).for_each(|out| {
        let rows = out.len() / k;
        let w = MatRef::from_row_major_slice(&*out, rows, k).to_owned();
        matmul(MatMut::from_row_major_slice_mut(out, rows, k), Accum::Replace, w.as_ref(), c, 1.0, Par::Seq);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hessian(k: usize) -> Vec<f64> {
        (0..k * k).map(|at| 1.0 / (1.0 + ((at / k) as f64 - (at % k) as f64).abs())).collect()
    }

    #[test]
    fn solves_the_damped_system() {
        let k = 70;
        let h = hessian(k);
        let factor = InverseFactor::new(h.clone(), k).unwrap();
        let mut g: Vec<f64> = (0..3 * k).map(|i| (i % 17) as f64 - 8.0).collect();
        let expected = g.clone();
        factor.solve(&mut g);
        for (g, expected) in g.chunks_exact(k).zip(expected.chunks_exact(k)) {
            for j in 0..k {
                let damped = |i: usize| h[i * k + j] + if i == j { DAMPING } else { 0.0 };
                let back: f64 = (0..k).map(|i| g[i] * damped(i)).sum();
                assert!((back - expected[j]).abs() < 1e-9, "{back} is not {}", expected[j]);
            }
        }
    }

    #[test]
    fn the_factor_is_upper_triangular_with_a_positive_diagonal() {
        let k = 40;
        let rows = InverseFactor::new(hessian(k), k).unwrap().rows();
        for i in 0..k {
            assert!(rows[i * k + i] > 0.0);
            assert!(rows[i * k..i * k + i].iter().all(|value| *value == 0.0));
        }
    }

    #[test]
    fn damps_more_until_a_matrix_is_positive() {
        // Eigenvalues 1 + 1.05 and 1 - 1.05: a damping of 0.1 mends it.
        assert!(InverseFactor::new(vec![1.0, 1.05, 1.05, 1.0], 2).is_some());
        assert!(InverseFactor::new(vec![1.0, 9.0, 9.0, 1.0], 2).is_none());
        assert!(InverseFactor::new(vec![1.0, f64::NAN, f64::NAN, 1.0], 2).is_none());
    }

    #[test]
    fn takes_inputs_that_are_always_zero() {
        let factor = InverseFactor::new(vec![4.0, 0.0, 0.0, 0.0], 2).unwrap();
        assert!(factor.rows().iter().all(|value| value.is_finite()));
        assert!(InverseFactor::new(vec![0.0; 9], 3).is_some());
    }
}
