use super::batch::{Batch, StepShape};
use super::beside::Beside;
use super::buffers::Buffers;
use super::driver::{Gpu, Graph, Pinned, Stream};
use super::enqueue::Queue;
use super::expansion::{Expanded, Expansion};
use super::greedy::Greedy;
use super::kernels::{KernelImages, Kernels};
use super::program::{Op, Resolver};
use super::scratch::Scratch;
use super::slots::{FIRST_CAPACITY, Slots};
use super::tensors::{Tensors, stored_bytes};
use super::vendor::Vendor;
use crate::device::{DeviceError, LaunchByLaunch, Limits, Logits, SequenceChunk, SlotId};
use crate::memory::{Footprint, Use};
use crate::plan::{BufferId, Plan, Rows, StateId};
use crate::tensors::TensorStore;
use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;

/// How to run on a GPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Which GPU, as the driver numbers them.
    pub ordinal: u32,
    /// What the device may use.
    pub limits: Limits,
}

/// Runs a plan on a CUDA GPU.
///
/// Fields are dropped in order: everything that lives in the context before the context.
pub struct Device<'a> {
    plan: &'a Plan,
    /// Of decode steps, and whether they choose a token.
    graphs: HashMap<(StepShape, bool), Graph>,
    pub(super) program: Vec<Op>,
    logits: Pinned,
    greedy: Greedy,
    buffers: Buffers,
    scratch: Scratch,
    /// Where weights of each launch are expanded.
    places: Vec<Option<Expanded>>,
    slots: Slots,
    batch: Batch,
    pub(super) tensors: Tensors,
    pub(super) kernels: Kernels,
    pub(super) beside: Beside,
    pub(super) stream: Stream,
    /// Opened once, when a bench first asks.
    vendor: OnceCell<Option<Vendor>>,
    limits: Limits,
    progress: Progress,
    pub(super) gpu: Gpu,
}

/// How far a step has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Idle,
    /// The next launch.
    Running(usize),
    Done,
}

/// Output rows there is room for at first: decode of many sequences, or one row of a prompt.
const FIRST_OUTPUT_ROWS: usize = 64;

impl<'a> Device<'a> {
    /// Opens a GPU, uploads the tensors and makes the plan ready to run.
    pub fn new(
        plan: &'a Plan,
        store: &dyn TensorStore,
        images: &dyn KernelImages,
        options: &Options,
    ) -> Result<Device<'a>, DeviceError> {
        plan.validate(store)?;
        let limits = options.limits;
        let gpu = Gpu::open(options.ordinal)?;
        // As if the best kernels for it were there.
        let mut expansion = Expansion::on(plan, gpu.capability);
        check_room(plan, stored_bytes(plan, store), &gpu, &limits)?;
        let kernels = Kernels::load(&gpu, images)?;
        if !kernels.warpgroups {
            expansion = Expansion::new(plan, false);
        }
        let stream = Stream::new()?;
        let tensors = Tensors::upload(plan, store)?;
        let slots = Slots::new(plan, &limits);
        let batch = Batch::new(limits.step_rows)?;
        let scratch = Scratch::new(plan, &gpu, &stream, limits.step_rows, expansion.bytes)?;
        let output_rows = limits.step_rows.min(FIRST_OUTPUT_ROWS);
        let mut device = Device {
            plan,
            graphs: HashMap::new(),
            program: Vec::new(),
            logits: Pinned::allocate(0)?,
            greedy: Greedy::new(limits.step_rows)?,
            buffers: Buffers::new(plan, limits.step_rows, output_rows)?,
            scratch,
            places: expansion.places,
            slots,
            batch,
            tensors,
            kernels,
            beside: Beside::new()?,
            stream,
            vendor: OnceCell::new(),
            limits,
            progress: Progress::Idle,
            gpu,
        };
        device.resolve()?;
        Ok(device)
    }

    /// The vendor's library, where it is installed. The context must be current.
    pub(super) fn vendor(&self) -> Option<&Vendor> {
        self.vendor.get_or_init(Vendor::open).as_ref()
    }

    /// Bytes of GPU memory: weights, buffers, states.
    pub fn memory_bytes(&self) -> (u64, u64, u64) {
        let buffers = self.buffers.bytes() + self.scratch.expanded.bytes();
        (self.tensors.bytes() as u64, buffers as u64, self.slots.bytes())
    }

    fn resolve(&mut self) -> Result<(), DeviceError> {
        self.graphs.clear();
        let resolver = Resolver {
            plan: self.plan,
            buffers: &self.buffers,
            tensors: &self.tensors,
            slots: &self.slots,
            batch: &self.batch,
            scratch: &self.scratch,
            places: &self.places,
            counters: Cell::default(),
        };
        self.program = resolver.resolve()?;
        let bytes = self.buffers.output_rows * self.plan.model.vocab_size * 4;
        self.logits = Pinned::allocate(bytes)?;
        Ok(())
    }

    pub(super) fn step_rows(&self) -> usize {
        self.limits.step_rows
    }

    /// For launches one by one.
    pub(super) fn queue(&self) -> Queue<'_> {
        Queue { gpu: &self.gpu, kernels: &self.kernels, stream: &self.stream, beside: None, shape: self.batch.shape }
    }

    /// For all launches, in order.
    pub(super) fn whole_queue(&self) -> Queue<'_> {
        Queue { beside: Some(&self.beside), ..self.queue() }
    }

    fn enqueue_all(&self, greedy: bool) -> Result<(), DeviceError> {
        self.whole_queue().enqueue_all(&self.program)?;
        if greedy {
            let logits = self.buffers.address(self.plan.logits);
            let (rows, vocab_size) = (self.batch.shape.outputs, self.plan.model.vocab_size);
            self.greedy.enqueue(&self.kernels, &self.stream, logits, rows, vocab_size)?;
        }
        Ok(())
    }

    pub(super) fn prepare(&mut self, batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError> {
        self.gpu.make_current()?;
        self.progress = Progress::Idle;
        self.batch.load(batch, &self.slots, &self.limits, self.plan.model.vocab_size)?;
        self.slots.reserve_step(self.batch.chunks.iter().copied(), &self.stream)?;
        let outputs = self.batch.shape.outputs;
        if outputs > self.buffers.output_rows {
            let rows = outputs.next_power_of_two().min(self.limits.step_rows);
            self.buffers = Buffers::new(self.plan, self.limits.step_rows, rows)?;
            self.resolve()?;
        }
        self.batch.upload(&self.slots, &self.stream)
    }

    /// Decode steps repeat: each shape is recorded once and replayed.
    pub(super) fn run_all(&mut self, greedy: bool) -> Result<(), DeviceError> {
        let key = (self.batch.shape, greedy);
        if !key.0.is_decode() {
            return self.enqueue_all(greedy);
        }
        if !self.graphs.contains_key(&key) {
            let graph = Graph::capture(&self.stream, || self.enqueue_all(greedy))?;
            self.graphs.insert(key, graph);
        }
        self.graphs[&key].launch(&self.stream)
    }

    /// The slots have taken their tokens.
    pub(super) fn advance(&mut self) {
        for (slot, tokens) in &self.batch.chunks {
            self.slots.advance(*slot, *tokens);
        }
        self.progress = Progress::Done;
    }

    fn take_logits(&mut self) -> Result<Logits<'_>, DeviceError> {
        let vocab_size = self.plan.model.vocab_size;
        let bytes = self.batch.shape.outputs * vocab_size * 4;
        let from = self.buffers.address(self.plan.logits);
        self.stream.download(&mut self.logits.as_mut_slice()[..bytes], from)?;
        self.stream.synchronize()?;
        self.advance();
        Ok(Logits { values: bytemuck::cast_slice(&self.logits.as_slice()[..bytes]), vocab_size })
    }

    fn expect(&self, progress: Progress, problem: &str) -> Result<(), DeviceError> {
        if self.progress == progress {
            return Ok(());
        }
        Err(DeviceError::misuse(problem))
    }

    fn buffer_range(&self, id: BufferId) -> Result<(u64, usize), DeviceError> {
        let buffer =
            self.plan.buffers.get(id.0 as usize).ok_or_else(|| DeviceError::misuse("the plan has no such buffer"))?;
        let rows = match buffer.rows {
            Rows::Token => self.batch.shape.rows,
            Rows::Output => self.batch.shape.outputs,
        };
        Ok((self.buffers.address(id), rows * buffer.cols * buffer.dtype.bytes()))
    }
}

impl Drop for Device<'_> {
    /// The fields free what they hold in the current context, which is another one where a thread has several devices.
    fn drop(&mut self) {
        let _ = self.gpu.make_current();
    }
}

/// Before anything is uploaded: weights, buffers of the largest step, and one sequence.
fn check_room(plan: &Plan, weight_bytes: u64, gpu: &Gpu, limits: &Limits) -> Result<(), DeviceError> {
    let footprint = Footprint::of_plan(plan, weight_bytes).on(plan, gpu.capability);
    let context = limits.context.unwrap_or(FIRST_CAPACITY) as u64;
    let of = Use { context, batch: 1, step_rows: limits.step_rows as u64 };
    match footprint.shortage(of, gpu.memory()?.0) {
        None => Ok(()),
        Some(shortage) => {
            Err(DeviceError::Backend { device: gpu.name.clone(), message: shortage.message(), help: shortage.help() })
        }
    }
}

impl crate::device::Device for Device<'_> {
    fn plan(&self) -> &Plan {
        self.plan
    }

    fn description(&self) -> String {
        let (major, minor) = self.gpu.capability;
        format!("{} (sm_{major}{minor}), {}", self.gpu.name, self.kernels.description())
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn create_slot(&mut self) -> Result<SlotId, DeviceError> {
        self.gpu.make_current()?;
        self.slots.create(&self.stream)
    }

    fn reset_slot(&mut self, slot: SlotId) -> Result<(), DeviceError> {
        self.gpu.make_current()?;
        self.slots.reset(slot, &self.stream)
    }

    fn copy_slot(&mut self, from: SlotId, to: SlotId) -> Result<(), DeviceError> {
        self.gpu.make_current()?;
        self.slots.copy(from, to, &self.stream)
    }

    fn release_slot(&mut self, slot: SlotId) -> Result<(), DeviceError> {
        self.gpu.make_current()?;
        self.slots.release(slot)
    }

    fn position(&self, slot: SlotId) -> Result<usize, DeviceError> {
        self.slots.position(slot)
    }

    fn step(&mut self, batch: &[SequenceChunk<'_>]) -> Result<Logits<'_>, DeviceError> {
        self.prepare(batch)?;
        self.run_all(false)?;
        self.take_logits()
    }

    fn step_greedy(&mut self, batch: &[SequenceChunk<'_>]) -> Result<Vec<u32>, DeviceError> {
        self.prepare(batch)?;
        let outputs = self.batch.shape.outputs;
        self.greedy.clear(outputs, &self.stream)?;
        self.run_all(true)?;
        let tokens = self.greedy.take(outputs, &self.stream)?;
        self.advance();
        Ok(tokens)
    }

    fn kernels_used(&self) -> Vec<&'static str> {
        self.kernels.used()
    }
}

impl LaunchByLaunch for Device<'_> {
    fn begin(&mut self, batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError> {
        self.prepare(batch)?;
        self.progress = Progress::Running(0);
        Ok(())
    }

    fn run_launch(&mut self, index: usize) -> Result<(), DeviceError> {
        self.gpu.make_current()?;
        self.expect(Progress::Running(index), "a launch was run out of order")?;
        let op = self.program.get(index).ok_or_else(|| DeviceError::misuse("the plan has no such launch"))?;
        self.queue().enqueue(op)?;
        self.stream.synchronize()?;
        self.progress = Progress::Running(index + 1);
        Ok(())
    }

    fn finish(&mut self) -> Result<Logits<'_>, DeviceError> {
        self.gpu.make_current()?;
        self.expect(Progress::Running(self.program.len()), "a step was finished before its last launch")?;
        self.take_logits()
    }

    fn read_buffer(&self, id: BufferId) -> Result<Cow<'_, [u8]>, DeviceError> {
        self.gpu.make_current()?;
        let (address, bytes) = self.buffer_range(id)?;
        let mut out = vec![0; bytes];
        self.stream.download(&mut out, address)?;
        self.stream.synchronize()?;
        Ok(Cow::Owned(out))
    }

    fn write_buffer(&mut self, id: BufferId, bytes: &[u8]) -> Result<(), DeviceError> {
        self.gpu.make_current()?;
        let (address, expected) = self.buffer_range(id)?;
        if bytes.len() != expected {
            return Err(DeviceError::misuse("the bytes of a buffer have the wrong length"));
        }
        self.stream.upload(address, bytes)?;
        self.stream.synchronize()
    }

    fn read_state(&self, slot: SlotId, id: StateId) -> Result<Cow<'_, [u8]>, DeviceError> {
        self.gpu.make_current()?;
        let mut out = Vec::new();
        for (address, bytes) in self.slots.ranges(slot, id)? {
            let start = out.len();
            out.resize(start + bytes, 0);
            self.stream.download(&mut out[start..], address)?;
        }
        self.stream.synchronize()?;
        Ok(Cow::Owned(out))
    }

    fn write_state(&mut self, slot: SlotId, id: StateId, bytes: &[u8]) -> Result<(), DeviceError> {
        self.gpu.make_current()?;
        let ranges = self.slots.ranges(slot, id)?;
        if ranges.iter().map(|range| range.1).sum::<usize>() != bytes.len() {
            return Err(DeviceError::misuse("the bytes of a state have the wrong length"));
        }
        let mut rest = bytes;
        for (address, len) in ranges {
            let (part, tail) = rest.split_at(len);
            self.stream.upload(address, part)?;
            rest = tail;
        }
        self.stream.synchronize()
    }
}
