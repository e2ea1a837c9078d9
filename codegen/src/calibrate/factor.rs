//! The inverse of a damped Hessian, as the triangular factor that GPTQ walks along.

use super::blocked;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{LltRegularization, cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Accum, Mat, MatMut, MatRef, Par, Spec};
use rayon::prelude::*;

/// What damping is raised by when the factorization fails, and how often it is tried.
const DAMPING_STEP: f64 = 10.0;
const DAMPING_STEPS: usize = 3;
/// Rows that one thread multiplies at a time.
const BLOCK_ROWS: usize = 64;
/// Larger matrices are factorized on all threads; this one takes a second.
const ONE_THREAD: usize = 3072;

/// Upper triangular `U` with `U^T U = (H + damping * mean(diag H) * I)^-1`, rows and columns in an order of their own.
pub(super) struct InverseFactor {
    /// Of rows and columns.
    pub(super) order: Vec<usize>,
    /// `U` from its last row and column to its first.
    lower: Mat<f64>,
    /// What was added to the diagonal.
    pub(super) added: f32,
}

impl InverseFactor {
    /// Factorizes `h` `[k, k]`, symmetric, its rows and columns in this order. Inputs that were always zero count as
    /// average ones without correlations, so that their weights are rounded to nearest. `None` when `h` is not finite
    /// or far from positive.
    ///
    /// With `J` the reversal of order, `J H J = L L^T` gives `H = V V^T` for the upper triangular `V = J L J`; hence
    /// `U = V^-1 = J L^-1 J`. Two matrices `[k, k]` of f64 are held.
    pub(super) fn new(h: &[f32], order: Vec<usize>, damping: f64) -> Option<InverseFactor> {
        let k = order.len();
        let mean = (0..k).map(|i| f64::from(h[i * k + i])).sum::<f64>() / k as f64;
        if !mean.is_finite() || mean < 0.0 {
            return None;
        }
        let mean = if mean == 0.0 { 1.0 } else { mean };
        let value = |i: usize, j: usize| match h[i * k + j] {
            0.0 if i == j => mean,
            value => f64::from(value),
        };
        let reversed = |i: usize| order[k - 1 - i];
        let mut added = damping * mean;
        for _ in 0..DAMPING_STEPS {
            // `h` is symmetric: the columns of the one are the rows of the other.
            let damped = |i, j| value(reversed(j), reversed(i)) + if i == j { added } else { 0.0 };
            let invert = if k > ONE_THREAD { blocked::inverse_of_factor } else { inverse_of_factor };
            if let Some(lower) = invert(filled(k, damped)).filter(is_finite) {
                return Some(InverseFactor { order, lower, added: added as f32 });
            }
            added *= DAMPING_STEP;
        }
        None
    }

    fn upper(&self) -> MatRef<'_, f64> {
        self.lower.as_ref().reverse_rows_and_cols()
    }

    /// `U` as f32, row-major; zero below the diagonal.
    pub(super) fn rows(&self) -> Vec<f32> {
        let (k, upper) = (self.order.len(), self.upper());
        let mut rows = vec![0.0; k * k];
        rows.par_chunks_mut(k).enumerate().for_each(|(i, row)| {
            row.iter_mut().enumerate().skip(i).for_each(|(j, value)| *value = upper[(i, j)] as f32);
        });
        rows
    }

    /// `out += share * g (H + ...)^-1` for `g` and `out` `[n, k]`, row-major.
    pub(super) fn add_solution(&self, g: &[f32], share: f64, out: &mut [f32]) {
        let (k, upper) = (self.order.len(), self.upper());
        out.par_chunks_mut(BLOCK_ROWS * k).zip(g.par_chunks(BLOCK_ROWS * k)).for_each(|(out, g)| {
            let rows = g.len() / k;
            let input = Mat::from_fn(rows, k, |r, j| f64::from(g[r * k + self.order[j]]));
            let (mut half, mut solution) = (Mat::<f64>::zeros(rows, k), Mat::<f64>::zeros(rows, k));
            matmul(half.as_mut(), Accum::Replace, input.as_ref(), upper.transpose(), 1.0, Par::Seq);
            matmul(solution.as_mut(), Accum::Replace, half.as_ref(), upper, 1.0, Par::Seq);
            for r in 0..rows {
                self.order.iter().enumerate().for_each(|(j, at)| out[r * k + at] += (share * solution[(r, j)]) as f32);
            }
        });
    }
}

/// `L^-1` for `m = L L^T`, zero above the diagonal; `None` when `m` is not positive.
pub(super) fn inverse_of_factor(mut m: Mat<f64>) -> Option<Mat<f64>> {
    cholesky(m.as_mut())?;
    let mut inverse = Mat::<f64>::zeros(m.nrows(), m.nrows());
    invert_lower_triangular(inverse.as_mut(), m.as_ref(), Par::Seq);
    Some(inverse)
}

/// `m` becomes `L` for `m = L L^T`, above the diagonal left as it is, on one thread; `None` when it is not positive.
pub(super) fn cholesky(m: MatMut<'_, f64>) -> Option<()> {
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(m.nrows(), Par::Seq, Spec::default()));
    let stack = MemStack::new(&mut memory);
    cholesky_in_place(m, LltRegularization::default(), Par::Seq, stack, Spec::default()).ok().map(|_| ())
}

fn is_finite(lower: &Mat<f64>) -> bool {
    (0..lower.ncols()).all(|j| lower.col(j).iter().skip(j).all(|value| value.is_finite()))
}

/// A matrix `[k, k]` whose columns are filled on all threads.
fn filled(k: usize, value: impl Fn(usize, usize) -> f64 + Sync) -> Mat<f64> {
    let mut m = Mat::<f64>::zeros(k, k);
    let mut columns = Vec::with_capacity(k);
    let mut rest = m.as_mut();
    while rest.ncols() > 0 {
        let (column, others) = rest.split_at_col_mut(1);
        columns.push(column);
        rest = others;
    }
    columns.into_par_iter().enumerate().for_each(|(j, mut column)| (0..k).for_each(|i| column[(i, 0)] = value(i, j)));
    m
}

/// `w @ c` for `w` `[n, k]` and `c` `[k, k]`, row-major.
pub(super) fn multiply(w: &[f32], c: &[f32], k: usize) -> Vec<f32> {
    let mut out = vec![0.0; w.len()];
    let c = MatRef::from_row_major_slice(c, k, k);
    out.par_chunks_mut(BLOCK_ROWS * k).zip(w.par_chunks(BLOCK_ROWS * k)).for_each(|(out, w)| {
        let rows = out.len() / k;
        let w = MatRef::from_row_major_slice(w, rows, k);
        matmul(MatMut::from_row_major_slice_mut(out, rows, k), Accum::Replace, w, c, 1.0, Par::Seq);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hessian(k: usize) -> Vec<f32> {
        (0..k * k).map(|at| 1.0 / (1.0 + ((at / k) as f32 - (at % k) as f32).abs())).collect()
    }

    const DAMPING: f64 = 0.01;

    #[test]
    fn solves_the_damped_system_in_any_order() {
        let k = 70;
        let h = hessian(k);
        for order in [(0..k).collect::<Vec<_>>(), (0..k).map(|i| i * 3 % k).collect()] {
            let factor = InverseFactor::new(&h, order, DAMPING).unwrap();
            let g: Vec<f32> = (0..3 * k).map(|i| (i % 17) as f32 - 8.0).collect();
            let mut solution = vec![1.0; 3 * k];
            factor.add_solution(&g, 2.0, &mut solution);
            for (solution, g) in solution.chunks_exact(k).zip(g.chunks_exact(k)) {
                for j in 0..k {
                    let damped = |i: usize| f64::from(h[i * k + j]) + if i == j { DAMPING } else { 0.0 };
                    let back: f64 = (0..k).map(|i| f64::from(solution[i] - 1.0) * damped(i)).sum();
                    assert!((back - 2.0 * f64::from(g[j])).abs() < 1e-4, "{back} is not twice {}", g[j]);
                }
            }
        }
    }

    #[test]
    fn the_factor_is_upper_triangular_with_a_positive_diagonal() {
        let k = 40;
        let order: Vec<usize> = (0..k).collect();
        let rows = InverseFactor::new(&hessian(k), order, DAMPING).unwrap().rows();
        for i in 0..k {
            assert!(rows[i * k + i] > 0.0);
            assert!(rows[i * k..i * k + i].iter().all(|value| *value == 0.0));
        }
    }

    #[test]
    fn damps_more_until_a_matrix_is_positive() {
        // Eigenvalues 1 + 1.05 and 1 - 1.05: a damping of 0.1 mends it.
        let factor = |h: &[f32]| InverseFactor::new(h, vec![0, 1], DAMPING).map(|factor| factor.added);
        assert_eq!(factor(&[1.0, 1.05, 1.05, 1.0]), Some(0.1));
        assert_eq!(factor(&[1.0, 0.5, 0.5, 1.0]), Some(0.01));
        assert!(factor(&[1.0, 9.0, 9.0, 1.0]).is_none());
        assert!(factor(&[1.0, f32::NAN, f32::NAN, 1.0]).is_none());
    }

    #[test]
    fn takes_inputs_that_are_always_zero() {
        let factor = InverseFactor::new(&[4.0, 0.0, 0.0, 0.0], vec![0, 1], DAMPING).unwrap();
        assert!(factor.rows().iter().all(|value| value.is_finite()));
        assert!(InverseFactor::new(&[0.0; 9], vec![0, 1, 2], DAMPING).is_some());
    }
}
