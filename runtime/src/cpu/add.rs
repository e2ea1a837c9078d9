//! [`crate::plan::Kernel::Add`].

use super::emit::for_rows;
use super::program::{Op, Step};
use crate::plan::BufferId;

pub(super) struct Add {
    pub(super) a: BufferId,
    pub(super) b: BufferId,
    pub(super) out: BufferId,
}

impl Op for Add {
    fn run(&self, step: &mut Step<'_>) {
        let cols = step.buffers.cols(self.out);
        let (a, b, out) = (self.a, self.b, self.out);
        step.buffers.write(out, |buffers, sums: &mut [f32]| {
            if a != out && b != out {
                sums.copy_from_slice(buffers.floats(a));
            }
            for_rows(sums, cols, |t, sums| {
                let other = if b == out { a } else { b };
                if other == out {
                    sums.iter_mut().for_each(|sum| *sum += *sum);
                } else {
                    let other = &buffers.floats(other)[t * cols..][..cols];
                    sums.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
                }
            });
        });
    }
}
