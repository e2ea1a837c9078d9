//! [`crate::plan::Kernel::Dequantize`].

use super::emit::for_rows;
use super::map::relu2;
use super::program::{Op, Step};
use crate::plan::BufferId;
use std::borrow::Cow;

pub(super) struct Dequantize<'a> {
    pub(super) acc: BufferId,
    pub(super) x_scale: BufferId,
    pub(super) weight_scale: Cow<'a, [f32]>,
    pub(super) relu2: bool,
    pub(super) out: BufferId,
}

impl Op for Dequantize<'_> {
    fn run(&self, step: &mut Step<'_>) {
        let cols = step.buffers.cols(self.out);
        step.buffers.write(self.out, |buffers, out: &mut [f32]| {
            let (sums, x_scale) = (buffers.view::<i32>(self.acc), buffers.floats(self.x_scale));
            for_rows(out, cols, |t, out| {
                let sums = &sums[t * cols..][..cols];
                for ((out, sum), scale) in out.iter_mut().zip(sums).zip(&*self.weight_scale) {
                    let y = *sum as f32 * (x_scale[t] * scale);
                    *out = if self.relu2 { relu2(y) } else { y };
                }
            });
        });
    }
}
