//! [`crate::plan::Kernel::SelectOutputs`].

use super::program::{Op, Step};
use crate::plan::BufferId;

pub(super) struct SelectOutputs {
    pub(super) x: BufferId,
    pub(super) out: BufferId,
}

impl Op for SelectOutputs {
    fn run(&self, step: &mut Step<'_>) {
        let cols = step.buffers.cols(self.x);
        let rows = &step.batch.outputs;
        step.buffers.write(self.out, |buffers, out: &mut [f32]| {
            let x = buffers.floats(self.x);
            for (out, row) in out.chunks_mut(cols).zip(rows) {
                out.copy_from_slice(&x[row * cols..][..cols]);
            }
        });
    }
}
