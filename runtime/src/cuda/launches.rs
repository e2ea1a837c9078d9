//! One step whose tensors are given launch by launch, as on the CPU: see [`crate::cpu::Launches`].

use super::batch::Batch;
use super::buffers::Buffers;
use super::driver::Memory;
use super::entry;
use super::expansion::{Expanded, Expansion};
use super::kernels::Grid;
use super::machine::Machine;
use super::params::{CHANNEL_ROWS, ChannelParams};
use super::program::Resolver;
use super::scratch::Scratch;
use super::slots::Slots;
use super::tensors::Tensors;
use crate::device::{DeviceError, Limits, SlotId};
use crate::observe::{Channels, every, going_on};
use crate::plan::{BufferId, DType, Plan, Rows};
use crate::tensors::TensorStore;
use std::cell::Cell;

/// A step that was begun on a GPU, and the launches that it has run. Logits are not computed: their buffer would be the
/// largest.
pub struct Launches<'m> {
    pub(super) machine: &'m Machine,
    plan: &'m Plan,
    buffers: Buffers,
    scratch: Scratch,
    /// Where weights of each launch are expanded.
    places: Vec<Option<Expanded>>,
    slots: Slots,
    batch: Batch,
    limits: Limits,
    next: usize,
    /// The slot of each sequence.
    sequences: Vec<SlotId>,
}

impl<'m> Launches<'m> {
    /// Begins a step of whole sequences, each from a fresh state, with outputs for every `output_stride`-th token of each.
    ///
    /// The plan must be one that code generation made: what [`Plan::validate`] checks against tensors is not checked.
    pub fn begin(
        machine: &'m Machine,
        plan: &'m Plan,
        sequences: &[&[u32]],
        output_stride: usize,
    ) -> Result<Launches<'m>, DeviceError> {
        machine.gpu.make_current()?;
        let rows = sequences.iter().map(|tokens| tokens.len()).sum();
        check_size(machine, plan, rows)?;
        let limits = Limits { step_rows: rows, ..Limits::default() };
        let outputs = sequences.iter().map(|tokens| tokens.len() / output_stride.max(1)).sum();
        let mut slots = Slots::new(plan, &limits);
        let ids = sequences.iter().map(|_| slots.create(&machine.stream)).collect::<Result<_, _>>()?;
        let expansion = Expansion::new(plan, machine.kernels.warpgroups);
        let mut launches = Launches {
            machine,
            plan,
            buffers: Buffers::without_logits(plan, rows, outputs)?,
            scratch: Scratch::new(plan, &machine.gpu, &machine.stream, rows, expansion.bytes)?,
            places: expansion.places,
            slots,
            batch: Batch::new(rows)?,
            limits,
            next: 0,
            sequences: ids,
        };
        launches.load(sequences, output_stride)?;
        Ok(launches)
    }

    /// Begins the next step of the same sequences, with the states that they have reached; a sequence without tokens has
    /// ended. It has no more tokens than the first step. Launches of the step before that were not run must not have
    /// changed states.
    pub fn go_on(&mut self, sequences: &[&[u32]], output_stride: usize) -> Result<(), DeviceError> {
        self.machine.gpu.make_current()?;
        for (slot, tokens) in &self.batch.chunks {
            self.slots.advance(*slot, *tokens);
        }
        self.next = 0;
        self.load(sequences, output_stride)
    }

    fn load(&mut self, sequences: &[&[u32]], output_stride: usize) -> Result<(), DeviceError> {
        let outputs = every(sequences, output_stride);
        let chunks = going_on(&self.sequences, sequences, &outputs);
        let stream = &self.machine.stream;
        self.batch.load(&chunks, &self.slots, &self.limits, self.plan.model.vocab_size)?;
        self.slots.reserve(self.batch.chunks.iter().copied(), stream, 0)?;
        self.batch.upload(&self.slots, stream)?;
        stream.synchronize()
    }

    /// What it executes.
    pub fn plan(&self) -> &'m Plan {
        self.plan
    }

    /// The launch that runs next; their number when none is left.
    pub fn next(&self) -> usize {
        self.next
    }

    /// Runs the next launch with its tensors, which it uploads. The last one makes logits, and is refused.
    pub fn run(&mut self, store: &dyn TensorStore) -> Result<(), DeviceError> {
        self.machine.gpu.make_current()?;
        if self.next + 1 >= self.plan.launches.len() {
            return Err(DeviceError::misuse(
                "logits are not computed by a step whose tensors are given launch by launch",
            ));
        }
        let launch = &self.plan.launches[self.next];
        let tensors = Tensors::of_launch(launch, store, &self.machine.stream)?;
        let resolver = Resolver {
            plan: self.plan,
            buffers: &self.buffers,
            tensors: &tensors,
            slots: &self.slots,
            batch: &self.batch,
            scratch: &self.scratch,
            places: &self.places,
            counters: Cell::default(),
        };
        let op = resolver.op(&launch.kernel, self.places[self.next], &launch.origin)?;
        self.machine.queue(self.batch.shape).enqueue(&op)?;
        // The tensors are freed here.
        self.machine.stream.synchronize()?;
        self.next += 1;
        Ok(())
    }

    /// The element type of a buffer.
    pub fn dtype(&self, id: BufferId) -> DType {
        self.plan.buffer(id).dtype
    }

    /// Elements of a row of a buffer.
    pub fn cols(&self, id: BufferId) -> usize {
        self.plan.buffer(id).cols
    }

    /// Rows of a buffer.
    pub fn rows(&self, id: BufferId) -> usize {
        match self.plan.buffer(id).rows {
            Rows::Token => self.batch.shape.rows,
            Rows::Output => self.batch.shape.outputs,
        }
    }

    pub(super) fn address(&self, id: BufferId) -> u64 {
        self.buffers.address(id)
    }

    /// The rows of an f32 buffer.
    pub fn floats(&self, id: BufferId) -> Result<Vec<f32>, DeviceError> {
        self.machine.gpu.make_current()?;
        self.machine.download(self.address(id), self.rows(id) * self.cols(id))
    }

    /// Adds how large the channels of an f32 buffer are; parts of the rows in order.
    pub fn measure(&self, id: BufferId, channels: &mut Channels) -> Result<(), DeviceError> {
        self.machine.gpu.make_current()?;
        let (rows, cols) = (self.rows(id), self.cols(id));
        let parts = rows.div_ceil(CHANNEL_ROWS as usize);
        let absmax = Memory::allocate(parts * cols * 4, "channels")?;
        let squares = Memory::allocate(parts * cols * 8, "channels")?;
        let params = ChannelParams {
            x: self.address(id),
            absmax: absmax.address(),
            squares: squares.address(),
            rows: rows as u32,
            n: cols as u32,
        };
        let grid = Grid::new(cols.div_ceil(entry::OBSERVE_CHANNELS.threads as usize), parts, 1);
        self.machine.launch(entry::OBSERVE_CHANNELS, grid, &params)?;
        let (absmax, squares) = (
            self.machine.download::<f32>(absmax.address(), parts * cols)?,
            self.machine.download::<f64>(squares.address(), parts * cols)?,
        );
        for (absmax, squares) in absmax.chunks_exact(cols).zip(squares.chunks_exact(cols)) {
            channels.absmax.iter_mut().zip(absmax).for_each(|(most, part)| *most = most.max(*part));
            channels.squares.iter_mut().zip(squares).for_each(|(sum, part)| *sum += part);
        }
        Ok(())
    }
}

/// Kernels count elements in 32 bits.
fn check_size(machine: &Machine, plan: &Plan, rows: usize) -> Result<(), DeviceError> {
    let widest = plan.buffers.iter().map(|buffer| buffer.cols).max().unwrap_or(0);
    if rows.checked_mul(widest).is_some_and(|elements| elements <= u32::MAX as usize) {
        return Ok(());
    }
    Err(DeviceError::Backend {
        device: machine.gpu.name.clone(),
        message: format!("{rows} tokens of {widest} values at once are more than its kernels count"),
        help: "calibrate on fewer or shorter samples, or on the CPU (`--device cpu`)".to_owned(),
    })
}
