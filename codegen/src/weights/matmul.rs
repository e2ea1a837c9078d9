//! A small dense product, for rotations that have no fast transform.
//!
//! No fused multiply-add: results must not depend on the machine that compiles.

use multiversion::multiversion;

/// Columns of a panel.
const PANEL: usize = 32;
/// Rows computed together.
const TILE: usize = 4;

/// `out[m, n] = a[m, k] @ b[k, n]`, all row-major and dense.
pub(super) fn matmul(a: &[f32], b: &[f32], k: usize, n: usize, out: &mut [f32]) {
    let mut panel = vec![0.0; k * PANEL];
    for first in (0..n).step_by(PANEL) {
        let width = PANEL.min(n - first);
        for (to, from) in panel.chunks_exact_mut(PANEL).zip(b.chunks_exact(n)) {
            to[..width].copy_from_slice(&from[first..first + width]);
            to[width..].fill(0.0);
        }
        for (a, out) in a.chunks(TILE * k).zip(out.chunks_mut(TILE * n)) {
            let tile = multiply_tile(a, &panel, k);
            for (row, out) in tile.iter().zip(out.chunks_exact_mut(n)) {
                out[first..first + width].copy_from_slice(&row[..width]);
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
fn multiply_tile(a: &[f32], panel: &[f32], k: usize) -> [[f32; PANEL]; TILE] {
    let mut sum = [[0.0; PANEL]; TILE];
    if a.len() == TILE * k {
        let (a0, rest) = a.split_at(k);
        let (a1, rest) = rest.split_at(k);
        let (a2, a3) = rest.split_at(k);
        let (panel, _) = panel.as_chunks::<PANEL>();
        for ((((b, a0), a1), a2), a3) in panel.iter().zip(a0).zip(a1).zip(a2).zip(a3) {
            for j in 0..PANEL {
                sum[0][j] += a0 * b[j];
                sum[1][j] += a1 * b[j];
                sum[2][j] += a2 * b[j];
                sum[3][j] += a3 * b[j];
            }
        }
    } else {
        let (panel, _) = panel.as_chunks::<PANEL>();
        for (a, sum) in a.chunks_exact(k).zip(&mut sum) {
            for (b, a) in panel.iter().zip(a) {
                for j in 0..PANEL {
                    sum[j] += a * b[j];
                }
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_definition_for_ragged_sizes() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (4, 8, 32), (9, 33, 70)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i % 11) as f32 - 5.0).collect();
            let mut out = vec![f32::NAN; m * n];
            matmul(&a, &b, k, n, &mut out);
            for i in 0..m {
                for j in 0..n {
                    let expected: f32 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                    assert_eq!(out[i * n + j], expected, "{m}x{k}x{n}");
                }
            }
        }
    }
}
