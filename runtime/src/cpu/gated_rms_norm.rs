//! [`crate::plan::Kernel::GatedRmsNorm`].

use super::emit::emit;
use super::program::{Op, Step};
use super::rms_norm::normalize;
use super::simd::{exp, simd};
use super::tensors::Tensors;
use crate::plan::{BufferId, Emit, PlanError};
use std::borrow::Cow;

/// The norm itself, shared with [`crate::plan::Kernel::Mixer`].
pub(super) struct GatedNorm<'a> {
    weight: Option<Cow<'a, [f32]>>,
    group_size: usize,
    eps: f32,
}

impl<'a> GatedNorm<'a> {
    pub(super) fn new(
        weight: Option<&String>,
        group_size: usize,
        eps: f32,
        tensors: Tensors<'a>,
    ) -> Result<Self, PlanError> {
        Ok(GatedNorm { weight: tensors.get_optional(weight)?, group_size, eps })
    }

    /// One row.
    pub(super) fn row(&self, x: &[f32], z: &[f32], y: &mut [f32]) {
        gate(x, z, y);
        for (group, y) in y.chunks_exact_mut(self.group_size).enumerate() {
            let weight = self.weight.as_ref().map(|w| &w[group * self.group_size..][..self.group_size]);
            normalize(y, weight, self.eps);
        }
    }
}

simd! {
fn gate(x: &[f32], z: &[f32], y: &mut [f32]) {
    for ((y, x), z) in y.iter_mut().zip(x).zip(z) {
        *y = x * silu(*z);
    }
}
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

pub(super) struct GatedRmsNorm<'a> {
    pub(super) x: BufferId,
    pub(super) z: BufferId,
    pub(super) norm: GatedNorm<'a>,
    pub(super) emit: Emit,
}

impl Op for GatedRmsNorm<'_> {
    fn run(&self, step: &mut Step<'_>) {
        let cols = step.buffers.cols(self.x);
        emit(&self.emit, cols, step.buffers, |buffers, t, y| {
            let x = &buffers.floats(self.x)[t * cols..][..cols];
            let z = &buffers.floats(self.z)[t * cols..][..cols];
            self.norm.row(x, z, y);
        });
    }
}
