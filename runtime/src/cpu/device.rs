use super::batch::Batch;
use super::buffers::Buffers;
use super::program::{Op, Scratch, Step, resolve};
use super::simd::instruction_set;
use super::slots::{Slots, State};
use crate::device::{DeviceError, LaunchByLaunch, Limits, Logits, SequenceChunk, SlotId};
use crate::plan::{BufferId, Plan, StateId};
use crate::tensors::TensorStore;
use std::borrow::Cow;

/// How to run on the CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Number of threads; `None` takes as many as there are cores.
    pub threads: Option<usize>,
    /// What the device may use.
    pub limits: Limits,
}

/// Runs a plan on the CPU.
///
/// Weights are read in place, where the store has them. Results do not depend on the number of threads, nor on how
/// tokens are cut into steps unless a scan state is kept in fewer than 32 bits, which is rounded once a step.
pub struct Device<'a> {
    plan: &'a Plan,
    program: Vec<Box<dyn Op + 'a>>,
    buffers: Buffers,
    slots: Slots,
    batch: Batch,
    scratch: Scratch,
    limits: Limits,
    pool: rayon::ThreadPool,
    progress: Progress,
}

/// How far a step has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Idle,
    /// The next launch.
    Running(usize),
    /// Logits can be read.
    Done,
}

impl<'a> Device<'a> {
    /// Validates the plan against its tensors and makes it ready to run.
    pub fn new(plan: &'a Plan, store: &'a dyn TensorStore, options: &Options) -> Result<Device<'a>, DeviceError> {
        plan.validate(store)?;
        let builder = rayon::ThreadPoolBuilder::new().num_threads(options.threads.unwrap_or(0));
        let pool = builder.build().map_err(|error| DeviceError::Backend {
            device: "the CPU".to_owned(),
            message: error.to_string(),
            help: "lower the number of threads".to_owned(),
        })?;
        Ok(Device {
            plan,
            program: resolve(plan, store)?,
            buffers: Buffers::new(plan),
            slots: Slots::new(plan, &options.limits),
            batch: Batch::default(),
            scratch: Scratch::default(),
            limits: options.limits,
            pool,
            progress: Progress::Idle,
        })
    }

    /// Bytes that the states of all slots take.
    pub fn state_bytes(&self) -> u64 {
        self.slots.bytes()
    }

    fn run(&mut self, launches: std::ops::Range<usize>) {
        let Device { program, buffers, slots, batch, scratch, pool, .. } = self;
        let mut step = Step { buffers, slots, batch, scratch };
        // Inside the pool, so that launches find its threads awake.
        pool.install(|| program[launches].iter().for_each(|op| op.run(&mut step)));
    }

    /// Runs the step that was begun to its end, but does not end it: positions stay.
    pub(crate) fn run_begun(&mut self) -> Result<(), DeviceError> {
        self.expect(Progress::Running(0), "a step was run that had not begun")?;
        self.run(0..self.plan.launches.len());
        self.progress = Progress::Idle;
        Ok(())
    }

    /// Ends the step that was begun without running it: positions and caches grow, whatever they hold.
    pub(crate) fn skip_begun(&mut self) {
        for chunk in &self.batch.chunks {
            self.slots.advance(chunk.slot, chunk.len);
        }
        self.progress = Progress::Idle;
    }

    fn expect(&self, progress: Progress, problem: &str) -> Result<(), DeviceError> {
        if self.progress == progress {
            return Ok(());
        }
        Err(DeviceError::misuse(problem))
    }
}

impl crate::device::Device for Device<'_> {
    fn plan(&self) -> &Plan {
        self.plan
    }

    fn description(&self) -> String {
        let threads = self.pool.current_num_threads();
        let plural = if threads == 1 { "thread" } else { "threads" };
        format!("CPU, {threads} {plural}, {}", instruction_set())
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn create_slot(&mut self) -> Result<SlotId, DeviceError> {
        self.slots.create()
    }

    fn reset_slot(&mut self, slot: SlotId) -> Result<(), DeviceError> {
        self.slots.reset(slot)
    }

    fn copy_slot(&mut self, from: SlotId, to: SlotId) -> Result<(), DeviceError> {
        self.slots.copy(from, to)
    }

    fn release_slot(&mut self, slot: SlotId) -> Result<(), DeviceError> {
        self.slots.release(slot)
    }

    fn position(&self, slot: SlotId) -> Result<usize, DeviceError> {
        self.slots.position(slot)
    }

    fn step(&mut self, batch: &[SequenceChunk<'_>]) -> Result<Logits<'_>, DeviceError> {
        self.begin(batch)?;
        self.run(0..self.plan.launches.len());
        self.progress = Progress::Running(self.plan.launches.len());
        self.finish()
    }
}

impl LaunchByLaunch for Device<'_> {
    fn begin(&mut self, batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError> {
        self.progress = Progress::Idle;
        self.batch.load(batch, &self.slots, &self.limits, self.plan.model.vocab_size)?;
        let growth = self.batch.chunks.iter().map(|chunk| (chunk.slot, chunk.len));
        self.slots.reserve(growth)?;
        self.buffers.resize(self.batch.tokens.len(), self.batch.outputs.len())?;
        self.progress = Progress::Running(0);
        Ok(())
    }

    fn run_launch(&mut self, index: usize) -> Result<(), DeviceError> {
        self.expect(Progress::Running(index), "a launch was run out of order")?;
        if index >= self.plan.launches.len() {
            return Err(DeviceError::misuse("the plan has no such launch"));
        }
        self.run(index..index + 1);
        self.progress = Progress::Running(index + 1);
        Ok(())
    }

    fn finish(&mut self) -> Result<Logits<'_>, DeviceError> {
        let end = Progress::Running(self.plan.launches.len());
        self.expect(end, "a step was finished before its last launch")?;
        self.progress = Progress::Done;
        for chunk in &self.batch.chunks {
            self.slots.advance(chunk.slot, chunk.len);
        }
        Ok(Logits { values: self.buffers.floats(self.plan.logits), vocab_size: self.plan.model.vocab_size })
    }

    fn read_buffer(&self, id: BufferId) -> Result<Cow<'_, [u8]>, DeviceError> {
        self.check_buffer(id)?;
        Ok(Cow::Borrowed(self.buffers.raw(id)))
    }

    fn write_buffer(&mut self, id: BufferId, bytes: &[u8]) -> Result<(), DeviceError> {
        self.check_buffer(id)?;
        let target = self.buffers.raw_mut(id);
        if target.len() != bytes.len() {
            return Err(DeviceError::misuse("the bytes of a buffer have the wrong length"));
        }
        target.copy_from_slice(bytes);
        Ok(())
    }

    fn read_state(&self, slot: SlotId, id: StateId) -> Result<Cow<'_, [u8]>, DeviceError> {
        let tokens = self.slots.position(slot)?;
        Ok(match self.slots.state(slot, id)? {
            State::Fixed(values) => Cow::Borrowed(bytemuck::cast_slice(values)),
            State::Scan(state) => Cow::Owned(state.read()),
            State::Kv(cache) => Cow::Owned(cache.read(tokens)),
        })
    }

    fn write_state(&mut self, slot: SlotId, id: StateId, bytes: &[u8]) -> Result<(), DeviceError> {
        let tokens = self.slots.position(slot)?;
        let fits = match self.slots.state_mut(slot, id)? {
            State::Fixed(values) if values.len() * 4 == bytes.len() => {
                bytemuck::cast_slice_mut(values).copy_from_slice(bytes);
                true
            }
            State::Fixed(_) => false,
            State::Scan(state) => state.write(bytes),
            State::Kv(cache) => cache.write(tokens, bytes),
        };
        if fits {
            return Ok(());
        }
        Err(DeviceError::misuse("the bytes of a state have the wrong length"))
    }
}

impl Device<'_> {
    fn check_buffer(&self, id: BufferId) -> Result<(), DeviceError> {
        if (id.0 as usize) < self.plan.buffers.len() {
            return Ok(());
        }
        Err(DeviceError::misuse("the plan has no such buffer"))
    }
}
