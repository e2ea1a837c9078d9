//! Rotations that follow the data (MambaQuant, arXiv 2501.13484, "KLT-enhanced").
//!
//! With the covariance `C = K diag(l) K^T` of the vectors that are rotated, `R = K H`: the Karhunen-Loeve transform takes
//! correlations away, and the Hadamard matrix then spreads the energy, so that every channel has the mean of the
//! eigenvalues (exactly, where the size is a power of two). One thread computes it, so that it does not depend on their
//! number; n = 4096 takes a minute or two.

use super::error::WeightError;
use super::rotation::{NoTensors, Orthogonal};
use faer::{MatRef, Side};
use ir::weights::{Rotation, RotationKind};

/// The matrix for the rotation `name`, row-major, from a covariance `[n, n]`.
pub(super) fn klt(name: &str, covariance: &[f32], seed: u64) -> Result<Vec<f32>, WeightError> {
    let n = covariance.len().isqrt();
    let values: Vec<f64> = covariance.iter().map(|value| f64::from(*value)).collect();
    let eigen = MatRef::from_row_major_slice(&values, n, n)
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| WeightError::invalid(name, "has a covariance without eigenvectors"))?;
    let vectors = eigen.U();
    let mut rotation = vec![0.0; n * n];
    for column in 0..n {
        // Largest eigenvalue first.
        let from = n - 1 - column;
        let largest = (0..n)
            .map(|row| vectors[(row, from)])
            .fold(0.0, |most: f64, v| if v.abs() > most.abs() { v } else { most });
        for row in 0..n {
            // An eigenvector's sign is arbitrary: one that does not depend on how it was found.
            rotation[row * n + column] = (vectors[(row, from)] * largest.signum()) as f32;
        }
    }
    let hadamard = Rotation { name: name.to_owned(), kind: RotationKind::Hadamard, size: n, seed };
    Orthogonal::new(&hadamard, &NoTensors)?.rotate_rows(&mut rotation, false);
    Ok(rotation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::SplitMix64;

    /// `sum x x^T` of random vectors whose entries differ in size and are correlated.
    fn covariance(n: usize) -> Vec<f32> {
        let mut random = SplitMix64(7);
        let mut sum = vec![0.0; n * n];
        for _ in 0..4 * n {
            let common = random.sign();
            let x: Vec<f32> = (0..n).map(|i| random.sign() * (1.0 + (i % 5) as f32) + 3.0 * common).collect();
            for i in 0..n {
                for j in 0..n {
                    sum[i * n + j] += x[i] * x[j] / (4 * n) as f32;
                }
            }
        }
        sum
    }

    /// `R^T C R`.
    fn rotated(c: &[f32], r: &[f32], n: usize) -> Vec<f64> {
        let at = |m: &[f32], i: usize, j: usize| f64::from(m[i * n + j]);
        let half: Vec<f64> =
            (0..n * n).map(|at_ij| (0..n).map(|k| at(c, at_ij / n, k) * at(r, k, at_ij % n)).sum()).collect();
        (0..n * n).map(|at_ij| (0..n).map(|k| at(r, k, at_ij / n) * half[k * n + at_ij % n]).sum()).collect()
    }

    #[test]
    fn is_orthogonal_and_gives_every_channel_the_same_energy() {
        let n = 64;
        let c = covariance(n);
        let r = klt("r", &c, 0).unwrap();
        for i in 0..n {
            for j in 0..n {
                let dot: f32 = (0..n).map(|k| r[i * n + k] * r[j * n + k]).sum();
                assert!((dot - f32::from(u8::from(i == j))).abs() < 1e-5, "rows {i} and {j}: {dot}");
            }
        }
        let mean = (0..n).map(|i| f64::from(c[i * n + i])).sum::<f64>() / n as f64;
        let found = rotated(&c, &r, n);
        for i in 0..n {
            assert!((found[i * n + i] - mean).abs() < 1e-4 * mean, "channel {i}: {} of {mean}", found[i * n + i]);
        }
    }

    #[test]
    fn undoing_the_hadamard_leaves_eigenvectors_by_falling_eigenvalue() {
        let n = 48;
        let c = covariance(n);
        let mut k = klt("r", &c, 5).unwrap();
        let hadamard = Rotation { name: "r".to_owned(), kind: RotationKind::Hadamard, size: n, seed: 5 };
        Orthogonal::new(&hadamard, &NoTensors).unwrap().rotate_rows(&mut k, true);
        let diagonal = rotated(&c, &k, n);
        for i in 0..n {
            let off = (0..n).filter(|j| *j != i).map(|j| diagonal[i * n + j].abs()).fold(0.0, f64::max);
            assert!(off < 1e-4 * diagonal[0], "row {i} keeps {off}");
            assert!(i == 0 || diagonal[i * n + i] <= diagonal[(i - 1) * n + i - 1] * 1.000_1);
        }
    }

    #[test]
    fn takes_a_covariance_of_zeros() {
        let r = klt("r", &[0.0; 16], 0).unwrap();
        assert!(r.iter().all(|value| value.is_finite()));
    }
}
