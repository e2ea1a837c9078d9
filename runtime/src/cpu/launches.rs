//! One step whose tensors are given launch by launch.
//!
//! Calibration decides a weight when it has seen what goes into it, so there is no complete set of tensors when the step
//! begins. A step takes all sequences: its buffers hold what is live at a launch, for every token, and nothing of the
//! launches before.

use super::batch::Batch;
use super::buffers::Buffers;
use super::program::{Scratch, Step, resolve_kernel};
use super::slots::Slots;
use super::tensors::Tensors;
use crate::device::{DeviceError, Limits, SlotId};
use crate::observe::{every, going_on};
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
    /// The slot of each sequence.
    sequences: Vec<SlotId>,
}

impl<'p> Launches<'p> {
    /// Begins a step of whole sequences, each from a fresh state, with logits for every `output_stride`-th token of each.
    ///
    /// The plan must be one that code generation made: what [`Plan::validate`] checks against tensors is not checked.
    pub fn begin(plan: &'p Plan, sequences: &[&[u32]], output_stride: usize) -> Result<Launches<'p>, DeviceError> {
        let limits = Limits { step_rows: usize::MAX, ..Limits::default() };
        let mut slots = Slots::new(plan, &limits);
        let ids = sequences.iter().map(|_| slots.create()).collect::<Result<_, _>>()?;
        let (buffers, batch, scratch) = (Buffers::new(plan), Batch::default(), Scratch::default());
        let mut launches = Launches { plan, buffers, slots, batch, scratch, next: 0, sequences: ids };
        launches.load(sequences, output_stride)?;
        Ok(launches)
    }

    /// Begins the next step of the same sequences, with the states that they have reached; a sequence without tokens has
    /// ended. Launches of the step before that were not run must not have changed states.
    pub fn go_on(&mut self, sequences: &[&[u32]], output_stride: usize) -> Result<(), DeviceError> {
        for chunk in &self.batch.chunks {
            self.slots.advance(chunk.slot, chunk.len);
        }
        self.next = 0;
        self.load(sequences, output_stride)
    }

    fn load(&mut self, sequences: &[&[u32]], output_stride: usize) -> Result<(), DeviceError> {
        let outputs = every(sequences, output_stride);
        let chunks = going_on(&self.sequences, sequences, &outputs);
        let limits = Limits { step_rows: usize::MAX, ..Limits::default() };
        self.batch.load(&chunks, &self.slots, &limits, self.plan.model.vocab_size)?;
        self.slots.reserve(self.batch.chunks.iter().map(|chunk| (chunk.slot, chunk.len)))?;
        self.buffers.resize(self.batch.tokens.len(), self.batch.outputs.len())
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
            sequences: self.sequences.clone(),
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
            return Err(DeviceError::misuse("the plan has no such launch"));
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
