//! The inverse of a Cholesky factor on all threads.
//!
//! The matrix is cut into blocks whose size does not depend on the number of threads, and one thread computes each of
//! them, so that results do not depend on it either.

use super::factor::cholesky;
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Columns that are factorized at a time.
const PANEL: usize = 256;
/// Rows or columns that one thread takes.
const STRIP: usize = 64;

/// `L^-1` for `m = L L^T`, zero above the diagonal; `None` when `m` is not positive.
pub(super) fn inverse_of_factor(mut m: Mat<f64>) -> Option<Mat<f64>> {
    factorize(m.as_mut(), PANEL)?;
    Some(invert(m.as_ref(), PANEL))
}

/// Panel by panel: its diagonal block, what is below it, and what all columns to come owe to it.
fn factorize(m: MatMut<'_, f64>, panel: usize) -> Option<()> {
    let mut rest = m;
    while rest.nrows() > panel {
        let (columns, trailing) = rest.split_at_col_mut(panel);
        let (mut diagonal, mut below) = columns.split_at_row_mut(panel);
        cholesky(diagonal.as_mut())?;
        let diagonal = diagonal.as_ref();
        row_strips(below.as_mut()).into_par_iter().for_each(|strip| {
            solve_lower_triangular_in_place(diagonal, strip.transpose_mut(), Par::Seq);
        });
        let below = below.as_ref();
        let mut trailing = trailing.split_at_row_mut(panel).1;
        column_strips(trailing.as_mut()).into_par_iter().for_each(|(first, strip)| {
            // Of each column only what is below the diagonal is ever read.
            let (lower, right) = (below.subrows(first, below.nrows() - first), below.subrows(first, strip.ncols()));
            let out = strip.split_at_row_mut(first).1;
            matmul(out, Accum::Add, lower, right.transpose(), -1.0, Par::Seq);
        });
        rest = trailing;
    }
    cholesky(rest)
}

/// Strip by strip of its columns, by forward substitution.
fn invert(lower: MatRef<'_, f64>, panel: usize) -> Mat<f64> {
    let k = lower.nrows();
    let mut inverse = Mat::<f64>::zeros(k, k);
    column_strips(inverse.as_mut()).into_par_iter().for_each(|(first, strip)| {
        let columns = strip.ncols();
        let (mut diagonal, below) = strip.split_at_row_mut(first).1.split_at_row_mut(columns);
        invert_lower_triangular(diagonal.as_mut(), lower.submatrix(first, first, columns, columns), Par::Seq);
        substitute(lower, first, diagonal.as_ref(), below, panel);
    });
    inverse
}

/// The rows `below` the first block of some columns of the inverse: `L X = 0` there.
fn substitute(lower: MatRef<'_, f64>, first: usize, diagonal: MatRef<'_, f64>, below: MatMut<'_, f64>, panel: usize) {
    let start = first + diagonal.nrows();
    let mut below = below;
    let factor = lower.submatrix(start, first, below.nrows(), diagonal.nrows());
    matmul(below.as_mut(), Accum::Replace, factor, diagonal, -1.0, Par::Seq);
    let mut at = start;
    while below.nrows() > 0 {
        let rows = panel.min(below.nrows());
        let (mut solved, mut rest) = below.split_at_row_mut(rows);
        solve_lower_triangular_in_place(lower.submatrix(at, at, rows, rows), solved.as_mut(), Par::Seq);
        let factor = lower.submatrix(at + rows, at, rest.nrows(), rows);
        matmul(rest.as_mut(), Accum::Add, factor, solved.as_ref(), -1.0, Par::Seq);
        (below, at) = (rest, at + rows);
    }
}

fn row_strips(mut m: MatMut<'_, f64>) -> Vec<MatMut<'_, f64>> {
    let mut strips = Vec::new();
    while m.nrows() > 0 {
        let rows = STRIP.min(m.nrows());
        let (strip, rest) = m.split_at_row_mut(rows);
        strips.push(strip);
        m = rest;
    }
    strips
}

/// Columns and the first of them.
fn column_strips(mut m: MatMut<'_, f64>) -> Vec<(usize, MatMut<'_, f64>)> {
    let (mut strips, mut first) = (Vec::new(), 0);
    while m.ncols() > 0 {
        let columns = STRIP.min(m.ncols());
        let (strip, rest) = m.split_at_col_mut(columns);
        strips.push((first, strip));
        (m, first) = (rest, first + columns);
    }
    strips
}

#[cfg(test)]
mod tests {
    use super::super::factor;
    use super::*;
    use proptest::prelude::*;

    /// Symmetric and positive, its entries of different sizes.
    fn positive(k: usize) -> Mat<f64> {
        Mat::from_fn(k, k, |i, j| {
            let distance = i.abs_diff(j) as f64;
            (1.0 + ((i * 7) % 5) as f64) * (1.0 + ((j * 7) % 5) as f64) / (1.0 + distance)
                + if i == j { 3.0 } else { 0.0 }
        })
    }

    fn inverse(k: usize, panel: usize, threads: usize) -> Mat<f64> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut m = positive(k);
            factorize(m.as_mut(), panel).unwrap();
            invert(m.as_ref(), panel)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn is_the_factor_of_one_thread((k, panel) in (1usize..300, prop::sample::select(vec![32, 64, 100, 256]))) {
            let found = inverse(k, panel, 2);
            let expected = factor::inverse_of_factor(positive(k)).unwrap();
            for j in 0..k {
                for i in 0..k {
                    let (found, expected) = (found[(i, j)], expected[(i, j)]);
                    prop_assert!((found - expected).abs() < 1e-10, "({i}, {j}): {found}, expected {expected}");
                }
            }
        }
    }

    #[test]
    fn is_the_same_to_the_bit_with_any_number_of_threads() {
        let one = inverse(333, 64, 1);
        assert!(one == inverse(333, 64, 2));
        assert!(one == inverse(333, 64, 3));
    }

    #[test]
    fn refuses_what_is_not_positive_in_any_panel() {
        for at in [0, 70, 149] {
            let mut m = positive(150);
            m[(at, at)] = -1.0;
            assert!(factorize(m.as_mut(), 64).is_none(), "row {at}");
        }
    }
}
