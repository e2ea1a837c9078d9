//! The rotation that takes one basis to another, found from vectors that are known in both (orthogonal Procrustes).

use super::rotation::Orthogonal;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

/// Vectors looked at for each of their entries; they are drawn evenly from longer lists.
const VECTORS: usize = 8;
/// Rows of the products that one thread computes.
const STRIP: usize = 64;

impl Orthogonal {
    /// The orthogonal `R` for which `from @ R` is nearest to `to`, both `[n, size]`, row-major: `U V^T` for the singular
    /// vectors of `from^T to`. Noise in either averages out over the vectors. `None` when there are fewer vectors than
    /// entries, or values that are not finite. Takes minutes at a size of 4096.
    pub fn between(from: &[f32], to: &[f32], size: usize) -> Option<Orthogonal> {
        let n = from.len().checked_div(size)?;
        if from.len() != to.len() || n < size {
            return None;
        }
        let rows: Vec<usize> = (0..n).step_by((n / (VECTORS * size)).max(1)).collect();
        let some = |values: &[f32]| -> Vec<f64> {
            rows.iter().flat_map(|row| values[row * size..(row + 1) * size].iter().map(|v| f64::from(*v))).collect()
        };
        let products = products(&some(from), &some(to), size);
        if !products.iter().all(|value| value.is_finite()) {
            return None;
        }
        let svd = MatRef::from_row_major_slice(&products, size, size).svd().ok()?;
        let mut rotation = Mat::<f64>::zeros(size, size);
        matmul(rotation.as_mut(), Accum::Replace, svd.U(), svd.V().transpose(), 1.0, Par::Seq);
        Some(Orthogonal::dense((0..size * size).map(|at| rotation[(at / size, at % size)] as f32).collect(), size))
    }
}

/// `a^T b`.
fn products(a: &[f64], b: &[f64], size: usize) -> Vec<f64> {
    let n = a.len() / size;
    let (a, b) = (MatRef::from_row_major_slice(a, n, size), MatRef::from_row_major_slice(b, n, size));
    let mut out = vec![0.0; size * size];
    out.par_chunks_mut(STRIP * size).enumerate().for_each(|(strip, out)| {
        let rows = out.len() / size;
        let out = faer::MatMut::from_row_major_slice_mut(out, rows, size);
        matmul(out, Accum::Replace, a.subcols(strip * STRIP, rows).transpose(), b, 1.0, Par::Seq);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::SplitMix64;
    use crate::weights::random::orthogonal;

    const SIZE: usize = 48;
    const VECTORS: usize = 600;

    fn vectors(seed: u64) -> Vec<f32> {
        let mut random = SplitMix64(seed);
        (0..VECTORS * SIZE).map(|at| random.normal() as f32 * (1.0 + (at % SIZE % 7) as f32)).collect()
    }

    #[test]
    fn finds_the_rotation_of_vectors_that_were_rotated_and_rounded() {
        let (from, expected) = (vectors(1), orthogonal(SIZE, 2));
        let mut to = from.clone();
        Orthogonal::dense(expected.clone(), SIZE).rotate_rows(&mut to, false);
        let exact = Orthogonal::between(&from, &to, SIZE).unwrap().to_matrix();
        assert!(exact.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
        to.iter_mut().for_each(|value| *value = (*value * 8.0).round() / 8.0);
        let rounded = Orthogonal::between(&from, &to, SIZE).unwrap().to_matrix();
        assert!(rounded.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 5e-3));
    }

    #[test]
    fn finds_none_where_vectors_do_not_say_enough() {
        let few = vectors(3)[..(SIZE - 1) * SIZE].to_vec();
        assert!(Orthogonal::between(&few, &few, SIZE).is_none());
        let mut broken = vectors(3);
        broken[5] = f32::NAN;
        assert!(Orthogonal::between(&broken, &vectors(3), SIZE).is_none());
        assert!(Orthogonal::between(&vectors(3), &few, SIZE).is_none());
    }
}
