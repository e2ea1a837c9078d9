//! What executes a plan: the interface that the CPU and the GPU share.
//!
//! A [`Device`] owns the buffers of a step and any number of *slots*. A slot holds the states of one sequence: the
//! windows of its convolutions, its scan states, its keys and values. A step takes new tokens of one or more slots,
//! advances their states and returns the logits that were asked for. Prefill, chunked prefill and decode are the same
//! call with different numbers of tokens.
//!
//! [`LaunchByLaunch`] opens a step up, for comparing devices and for observing activations.

use crate::plan::{BufferId, Launch, Plan, StateId};
use std::borrow::Cow;

/// A sequence in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId(pub u32);

/// Which rows of a chunk get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs<'a> {
    /// None: the chunk only advances the states.
    None,
    /// The last token of the chunk.
    Last,
    /// Every token of the chunk.
    All,
    /// These tokens of the chunk, ascending.
    Rows(&'a [u32]),
}

/// New tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct SequenceChunk<'a> {
    /// The sequence they continue.
    pub slot: SlotId,
    /// At least one token.
    pub tokens: &'a [u32],
    /// The logits wanted.
    pub outputs: Outputs<'a>,
}

/// What a device may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most token rows of one step; buffers are this high at most.
    pub step_rows: usize,
    /// Most tokens of one sequence; `None` leaves it to `state_bytes`.
    pub context: Option<usize>,
    /// Most bytes that the states of all slots may take together.
    pub state_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { step_rows: 512, context: None, state_bytes: None }
    }
}

/// Logits of a step: one f32 row of `vocab_size` for each output asked for, in the order of the batch.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    /// `rows() * vocab_size` values.
    pub values: &'a [f32],
    /// Elements of a row.
    pub vocab_size: usize,
}

impl<'a> Logits<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.vocab_size
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.vocab_size..][..self.vocab_size]
    }
}

/// The token of the largest logit; of equal ones the lowest. NaN is never chosen while there is a number.
pub fn likeliest(logits: &[f32]) -> u32 {
    let larger = |best: Option<(usize, f32)>, (id, logit): (usize, &f32)| match best {
        Some((_, most)) if *logit <= most || logit.is_nan() => best,
        None if logit.is_nan() => None,
        _ => Some((id, *logit)),
    };
    logits.iter().enumerate().fold(None, larger).map_or(0, |(id, _)| id as u32)
}

/// Executes a plan.
pub trait Device {
    /// What it executes.
    fn plan(&self) -> &Plan;

    /// For people: the machine and the arithmetic that really runs.
    fn description(&self) -> String;

    /// What it was given to work with.
    fn limits(&self) -> &Limits;

    /// A slot in the initial state: all states zero, no tokens.
    fn create_slot(&mut self) -> Result<SlotId, DeviceError>;

    /// Back to the initial state.
    fn reset_slot(&mut self, slot: SlotId) -> Result<(), DeviceError>;

    /// `to` becomes a copy of `from`: both continue the same tokens.
    fn copy_slot(&mut self, from: SlotId, to: SlotId) -> Result<(), DeviceError>;

    /// Frees the memory of a slot; its id may be given out again.
    fn release_slot(&mut self, slot: SlotId) -> Result<(), DeviceError>;

    /// Number of tokens a slot has taken.
    fn position(&self, slot: SlotId) -> Result<usize, DeviceError>;

    /// Runs every launch once over the tokens of the batch. After an error the slots are as they were before.
    fn step(&mut self, batch: &[SequenceChunk<'_>]) -> Result<Logits<'_>, DeviceError>;

    /// [`Device::step`], but only the likeliest token of each output: a GPU need not send the logits.
    fn step_greedy(&mut self, batch: &[SequenceChunk<'_>]) -> Result<Vec<u32>, DeviceError> {
        let logits = self.step(batch)?;
        Ok((0..logits.rows()).map(|row| likeliest(logits.row(row))).collect())
    }

    /// Names of the compiled kernels that have run so far, where there are any.
    fn kernels_used(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// A new slot that continues the same tokens as `slot`.
    fn fork_slot(&mut self, slot: SlotId) -> Result<SlotId, DeviceError> {
        let fork = self.create_slot()?;
        match self.copy_slot(slot, fork) {
            Ok(()) => Ok(fork),
            Err(error) => {
                self.release_slot(fork)?;
                Err(error)
            }
        }
    }
}

/// A step taken one launch at a time.
///
/// `begin`, then [`LaunchByLaunch::run_launch`] for every launch of the plan in order, then `finish`. Between two
/// launches buffers and states may be read and overwritten.
pub trait LaunchByLaunch: Device {
    /// Checks a batch, makes room for it and uploads its tokens.
    fn begin(&mut self, batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError>;

    /// Runs launch `index` of the plan on the batch that was begun.
    fn run_launch(&mut self, index: usize) -> Result<(), DeviceError>;

    /// Ends the step: the slots have taken their tokens.
    fn finish(&mut self) -> Result<Logits<'_>, DeviceError>;

    /// The rows of a buffer that the current step uses, as little-endian bytes.
    fn read_buffer(&self, id: BufferId) -> Result<Cow<'_, [u8]>, DeviceError>;

    /// Overwrites them. `bytes` is as long as [`LaunchByLaunch::read_buffer`] returns.
    fn write_buffer(&mut self, id: BufferId, bytes: &[u8]) -> Result<(), DeviceError>;

    /// A state of a slot in the layout of its [`crate::plan::StateKind`]; for keys and values, all keys of the tokens
    /// taken so far, then all values.
    fn read_state(&self, slot: SlotId, id: StateId) -> Result<Cow<'_, [u8]>, DeviceError>;

    /// Overwrites a state with one read from another device at the same position.
    fn write_state(&mut self, slot: SlotId, id: StateId, bytes: &[u8]) -> Result<(), DeviceError>;

    /// The rows of an f32 buffer that the current step uses.
    fn read_floats(&self, id: BufferId) -> Result<Cow<'_, [f32]>, DeviceError> {
        Ok(match self.read_buffer(id)? {
            Cow::Borrowed(bytes) => match bytemuck::try_cast_slice(bytes) {
                Ok(floats) => Cow::Borrowed(floats),
                Err(_) => Cow::Owned(floats_of(bytes)),
            },
            Cow::Owned(bytes) => Cow::Owned(floats_of(&bytes)),
        })
    }
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// Looks at a step as it runs: calibration reads the inputs of the linears this way.
pub trait Observer {
    /// Called before launch `index`.
    fn before(&mut self, _index: usize, _launch: &Launch, _device: &dyn LaunchByLaunch) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Called after launch `index`.
    fn after(&mut self, _index: usize, _launch: &Launch, _device: &dyn LaunchByLaunch) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// [`Device::step`] with an observer around every launch.
pub fn step_observed<'d>(
    device: &'d mut dyn LaunchByLaunch,
    batch: &[SequenceChunk<'_>],
    observer: &mut dyn Observer,
) -> Result<Logits<'d>, DeviceError> {
    device.begin(batch)?;
    for index in 0..device.plan().launches.len() {
        let launch = device.plan().launches[index].clone();
        observer.before(index, &launch, device)?;
        device.run_launch(index)?;
        observer.after(index, &launch, device)?;
    }
    device.finish()
}

/// Why a device could not do as told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No such slot.
    #[error("slot {} does not exist\nhelp: create it, and do not use it after its release", .0.0)]
    UnknownSlot(SlotId),

    /// A batch names a slot twice.
    #[error("slot {} appears twice in one batch\nhelp: join its tokens into one chunk", .0.0)]
    RepeatedSlot(SlotId),

    /// A chunk without tokens.
    #[error("the chunk of slot {} has no tokens\nhelp: a step needs at least one token for each sequence", .0.0)]
    EmptyChunk(SlotId),

    /// A batch without chunks.
    #[error("the batch is empty\nhelp: a step needs at least one sequence")]
    EmptyBatch,

    /// A token that the model does not know.
    #[error(
        "token id {token} at position {position} is out of range\nhelp: the model knows the ids 0..{vocab_size}; was the text tokenized for another model?"
    )]
    UnknownToken {
        /// The offending id.
        token: u32,
        /// Its place in its sequence.
        position: usize,
        /// Number of ids the model knows.
        vocab_size: usize,
    },

    /// Logits asked for of a token that is not in the chunk, or out of order.
    #[error(
        "logits of row {row} were asked for, the chunk of slot {slot} has {tokens} tokens\nhelp: rows must ascend and lie within the chunk"
    )]
    BadOutputRow {
        /// The slot of the chunk.
        slot: u32,
        /// The offending row.
        row: u32,
        /// Tokens in the chunk.
        tokens: usize,
    },

    /// More token rows than the device has room for.
    #[error(
        "the step has {rows} tokens, room is for {limit}\nhelp: feed long prompts in chunks, or raise the step size"
    )]
    StepTooLarge {
        /// Rows of the batch.
        rows: usize,
        /// [`Limits::step_rows`].
        limit: usize,
    },

    /// A sequence longer than [`Limits::context`].
    #[error(
        "the context would grow to {needed} tokens, the limit is {available} ({needed_bytes} bytes of keys and values needed, {available_bytes} available)\nhelp: raise --context, or shorten the prompt or --max-tokens"
    )]
    ContextFull {
        /// Tokens after the step.
        needed: usize,
        /// Tokens allowed.
        available: usize,
        /// Bytes of growing state at `needed` tokens.
        needed_bytes: u64,
        /// Bytes of growing state at `available` tokens.
        available_bytes: u64,
    },

    /// States larger than [`Limits::state_bytes`].
    #[error(
        "the states would take {needed_bytes} bytes, {available_bytes} are available\nhelp: give more memory, a shorter context or fewer sequences"
    )]
    StateMemory {
        /// Bytes after the operation.
        needed_bytes: u64,
        /// Bytes allowed.
        available_bytes: u64,
    },

    /// The memory of the machine did not suffice.
    #[error("{bytes} bytes for {what} could not be allocated\nhelp: lower the step size or the context")]
    OutOfMemory {
        /// What it was for.
        what: String,
        /// How much.
        bytes: u64,
    },

    /// [`LaunchByLaunch`] used out of order, or with bytes of the wrong length.
    #[error("{problem}\nhelp: begin a step, run its launches in order, then finish it")]
    Misuse {
        /// What was done wrong.
        problem: String,
    },

    /// The driver or the hardware failed.
    #[error("{device} failed: {message}\nhelp: {help}")]
    Backend {
        /// Which device.
        device: String,
        /// What it said.
        message: String,
        /// What to do.
        help: String,
    },

    /// The plan cannot run here.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
}

impl DeviceError {
    pub(crate) fn misuse(problem: &str) -> DeviceError {
        DeviceError::Misuse { problem: problem.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::likeliest;

    #[test]
    fn the_likeliest_token_is_the_lowest_of_equals_and_never_nan() {
        assert_eq!(likeliest(&[0.0, 2.0, 2.0, f32::NAN]), 1);
        assert_eq!(likeliest(&[f32::NAN, -5.0, -1.0, f32::NEG_INFINITY]), 2);
        assert_eq!(likeliest(&[f32::NAN, f32::NEG_INFINITY]), 1);
        assert_eq!(likeliest(&[-0.0, 0.0]), 0);
        assert_eq!(likeliest(&[f32::NAN; 3]), 0);
    }
}
