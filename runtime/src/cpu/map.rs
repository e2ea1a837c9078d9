//! [`crate::plan::Kernel::Map`].

use super::emit::emit;
use super::program::{Op, Step};
use crate::plan::{BufferId, Emit};

pub(super) struct Map {
    pub(super) x: BufferId,
    pub(super) relu2: bool,
    pub(super) emit: Emit,
}

impl Op for Map {
    fn run(&self, step: &mut Step<'_>) {
        let cols = step.buffers.cols(self.x);
        emit(&self.emit, cols, step.buffers, |buffers, t, y| {
            let x = &buffers.floats(self.x)[t * cols..][..cols];
            if self.relu2 {
                y.iter_mut().zip(x).for_each(|(y, x)| *y = relu2(*x));
            } else {
                y.copy_from_slice(x);
            }
        });
    }
}

/// `relu(x)^2`.
#[inline(always)]
pub(super) fn relu2(x: f32) -> f32 {
    let positive = x.max(0.0);
    positive * positive
}
