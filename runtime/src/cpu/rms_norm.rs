//! [`crate::plan::Kernel::RmsNorm`].

use super::emit::{emit, for_rows};
use super::program::{Op, Step};
use super::simd::{dot, simd};
use crate::plan::{BufferId, Emit};
use std::borrow::Cow;

pub(super) struct RmsNorm<'a> {
    pub(super) x: BufferId,
    pub(super) delta: Option<BufferId>,
    pub(super) weight: Option<Cow<'a, [f32]>>,
    pub(super) eps: f32,
    pub(super) emit: Emit,
}

impl Op for RmsNorm<'_> {
    fn run(&self, step: &mut Step<'_>) {
        let cols = step.buffers.cols(self.x);
        if let Some(delta) = self.delta {
            step.buffers.write(self.x, |buffers, x: &mut [f32]| {
                let delta = buffers.floats(delta);
                for_rows(x, cols, |t, x| {
                    let delta = &delta[t * cols..][..cols];
                    x.iter_mut().zip(delta).for_each(|(x, delta)| *x += delta);
                });
            });
        }
        emit(&self.emit, cols, step.buffers, |buffers, t, y| {
            y.copy_from_slice(&buffers.floats(self.x)[t * cols..][..cols]);
            normalize(y, self.weight.as_deref(), self.eps);
        });
    }
}

/// `y / sqrt(mean(y^2) + eps) * weight`, in place.
pub(super) fn normalize(y: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    let mean = dot(y, y) / y.len() as f32;
    scale(y, 1.0 / (mean + eps).sqrt(), weight);
}

simd! {
fn scale(y: &mut [f32], factor: f32, weight: Option<&[f32]>) {
    match weight {
        Some(weight) => y.iter_mut().zip(weight).for_each(|(y, weight)| *y = *y * factor * weight),
        None => y.iter_mut().for_each(|y| *y *= factor),
    }
}
}
