//! Coordinate descent after GPTQ: GPTQ decides each value before it knows those to come, so some of them can be moved
//! to a neighbor that loses less once all others are known (as in QuantEase, Behdin et al. 2023).

use super::gptq::{Grid, Inputs, subtract};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

/// Moves the values `q` of some rows, in steps of the grid, towards the least loss against `target`. With `e` the error
/// of a row, the loss is `e H e^T`; its slope `e H` says for each value where, all others fixed, its optimum is.
pub(super) fn descend(target: &[f32], q: &mut [f32], inputs: &Inputs<'_>, grid: Grid<'_>) {
    if inputs.sweeps == 0 {
        return;
    }
    let k = inputs.k;
    let errors = Mat::from_fn(target.len() / k, k, |r, j| target[r * k + j] - q[r * k + j] * grid.step(r, j));
    let mut slopes = vec![0.0; target.len()];
    let hessian = MatRef::from_row_major_slice(inputs.hessian, k, k);
    let out = faer::MatMut::from_row_major_slice_mut(&mut slopes, target.len() / k, k);
    matmul(out, Accum::Replace, errors.as_ref(), hessian, 1.0, Par::Seq);
    for (r, (q, slope)) in q.chunks_exact_mut(k).zip(slopes.chunks_exact_mut(k)).enumerate() {
        for _ in 0..inputs.sweeps {
            if !sweep(r, q, slope, inputs, grid) {
                break;
            }
        }
    }
}

/// Looks at every value of a row once; returns whether one has moved.
fn sweep(row: usize, q: &mut [f32], slope: &mut [f32], inputs: &Inputs<'_>, grid: Grid<'_>) -> bool {
    let k = inputs.k;
    let mut moved = false;
    for j in 0..k {
        let (step, curvature) = (grid.step(row, j), inputs.hessian[j * k + j]);
        let best = grid.nearest(q[j] * step + slope[j] / curvature, step);
        if best != q[j] {
            subtract(slope, (best - q[j]) * step, &inputs.hessian[j * k..(j + 1) * k]);
            q[j] = best;
            moved = true;
        }
    }
    moved
}
