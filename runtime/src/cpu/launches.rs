//! One step whose tensors are given launch by launch.
//!
//! Calibration decides a weight when it has seen what goes into it, so there is no complete set of tensors when the step
//! begins. All sequences are taken in one step: its buffers hold what is live at a launch, for every token, and nothing
//! of the launches before.

use super::batch::Batch;
use super::buffers::Buffers;
use super::program::{Scratch, Step, resolve_kernel};
use super::slots::Slots;
use super::tensors::Tensors;
use crate::device::{DeviceError, Limits, Outputs, SequenceChunk};
use crate::plan::{BufferId, DType, Plan};
use crate::tensors::TensorStore;

/// A step that was begun, and the launches that it has run.
pub struct Launches<'p> {
    plan: &'p Plan,
    buffers: Buffers,
    slots: Slots,
    batch: Batch,
    scratch: Scratch,
    next: usize,
}

impl<'p> Launches<'p> {
    /// Begins a step of whole sequences, each from a fresh state, with logits for every `output_stride`-th token of each.
    ///
    /// The plan must be one that code generation made: what [`Plan::validate`] checks against tensors is not checked.
    pub fn begin(plan: &'p Plan, sequences: &[&[u32]], output_stride: usize) -> Result<Launches<'p>, DeviceError> {
        let limits = Limits { step_rows: usize::MAX, ..Limits::default() };
        let mut slots = Slots::new(plan, &limits);
        let stride = output_stride.max(1);
        let outputs: Vec<Vec<u32>> = sequences
            .iter()
            .map(|tokens| (0..tokens.len() as u32).skip(stride - 1).step_by(stride).collect())
            .collect();
        let mut chunks = Vec::with_capacity(sequences.len());
        for (tokens, rows) in sequences.iter().zip(&outputs) {
            chunks.push(SequenceChunk { slot: slots.create()?, tokens, outputs: Outputs::Rows(rows) });
        }
        let mut batch = Batch::default();
        batch.load(&chunks, &slots, &limits, plan.model.vocab_size)?;
        slots.reserve(batch.chunks.iter().map(|chunk| (chunk.slot, chunk.len)))?;
        let mut buffers = Buffers::new(plan);
        buffers.resize(batch.tokens.len(), batch.outputs.len())?;
        Ok(Launches { plan, buffers, slots, batch, scratch: Scratch::default(), next: 0 })
    }

    /// The same step at the same launch, to go on otherwise.
    pub fn fork(&self) -> Launches<'p> {
        Launches {
            plan: self.plan,
            buffers: self.buffers.clone(),
            slots: self.slots.clone(),
            batch: self.batch.clone(),
            scratch: Scratch::default(),
            next: self.next,
        }
    }

    /// Memory of its buffers and states.
    pub fn memory_bytes(&self) -> u64 {
        self.buffers.bytes() + self.slots.bytes()
    }

    /// What it executes.
    pub fn plan(&self) -> &'p Plan {
        self.plan
    }

    /// The launch that runs next; their number when none is left.
    pub fn next(&self) -> usize {
        self.next
    }

    /// Runs the next launch with its tensors, on the threads of the caller's pool.
    pub fn run(&mut self, store: &dyn TensorStore) -> Result<(), DeviceError> {
        let Some(launch) = self.plan.launches.get(self.next) else {
            return Err(DeviceError::Misuse { problem: "the plan has no such launch".to_owned() });
        };
        let op = resolve_kernel(&launch.kernel, Tensors { store, origin: &launch.origin })?;
        let Launches { buffers, slots, batch, scratch, .. } = self;
        op.run(&mut Step { buffers, slots, batch, scratch });
        self.next += 1;
        Ok(())
    }

    /// The element type of a buffer.
    pub fn dtype(&self, id: BufferId) -> DType {
        self.buffers.dtype(id)
    }

    /// Elements of a row of a buffer.
    pub fn cols(&self, id: BufferId) -> usize {
        self.buffers.cols(id)
    }

    /// Rows of a buffer.
    pub fn rows(&self, id: BufferId) -> usize {
        self.buffers.rows(id)
    }

    /// The rows of an f32 buffer.
    pub fn floats(&self, id: BufferId) -> &[f32] {
        self.buffers.floats(id)
    }

    /// The rows of a buffer, as bytes.
    pub fn bytes(&self, id: BufferId) -> &[u8] {
        self.buffers.raw(id)
    }
}
