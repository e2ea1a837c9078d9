//! The buffers of a step, in GPU memory, and the scratch of kernels that run as several launches.

use super::driver::Memory;
use crate::device::DeviceError;
use crate::plan::{BufferId, Plan, Rows};

pub(super) struct Buffers {
    memory: Vec<Memory>,
    /// Output rows there is room for.
    pub(super) output_rows: usize,
}

impl Buffers {
    pub(super) fn new(plan: &Plan, step_rows: usize, output_rows: usize) -> Result<Buffers, DeviceError> {
        Buffers::allocate(plan, step_rows, output_rows, |_| true)
    }

    /// No memory for the logits: calibration does not need them.
    pub(super) fn without_logits(plan: &Plan, step_rows: usize, output_rows: usize) -> Result<Buffers, DeviceError> {
        Buffers::allocate(plan, step_rows, output_rows, |id| id != plan.logits)
    }

    fn allocate(
        plan: &Plan,
        step_rows: usize,
        output_rows: usize,
        wanted: impl Fn(BufferId) -> bool,
    ) -> Result<Buffers, DeviceError> {
        let memory = plan.buffers.iter().enumerate().map(|(index, buffer)| {
            let rows = match buffer.rows {
                _ if !wanted(BufferId(index as u32)) => 0,
                Rows::Token => step_rows,
                Rows::Output => output_rows,
            };
            Memory::allocate(rows * buffer.cols * buffer.dtype.bytes(), &format!("buffer {}", buffer.name))
        });
        Ok(Buffers { memory: memory.collect::<Result<_, _>>()?, output_rows })
    }

    pub(super) fn address(&self, id: BufferId) -> u64 {
        self.memory[id.0 as usize].address()
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory.iter().map(Memory::bytes).sum()
    }
}
