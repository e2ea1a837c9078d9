//! The launch plan: the runnable result of compilation, as plain data.
//!
//! A [`Plan`] lists the buffers that live for one step, the states that live as long as a sequence, and the
//! [`Launch`]es to execute in order. It names kernels and tensors and knows nothing of the model it came from.
//! One plan serves prefill and decode: every buffer is sized per token row (or per output row), every kernel
//! takes any number of rows from any number of sequences.
//!
//! The plan travels inside the artifact as JSON (`nemoc inspect --plan` prints it); what each kernel computes is
//! said once, at its variant of [`Kernel`], and both devices implement exactly that.

mod arithmetic;
mod dtype;
mod error;
mod kernel;
mod state;
mod validate;
mod validate_kernel;

pub use dtype::DType;
pub use error::PlanError;
pub use kernel::{
    Activation, ConvWeights, Embedding, Emit, Epilogue, K_ALIGN, Kernel, Segment, SsmShape, SsmWeights, WeightFormat,
};
pub use state::{State, StateKind};

use serde::{Deserialize, Serialize};

/// The plan format this build writes and the newest it reads.
pub const PLAN_VERSION: u32 = 1;

/// Everything the runtime needs to run a model, apart from the bytes of its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the compiler that wrote it.
    pub version: u32,
    /// What a user of the model needs to know.
    pub model: ModelInfo,
    /// Memory that lives for one step; indexed by [`BufferId`].
    pub buffers: Vec<Buffer>,
    /// Memory that lives as long as a sequence; indexed by [`StateId`].
    pub states: Vec<State>,
    /// Executed in order, every step.
    pub launches: Vec<Launch>,
    /// The f32 `[output rows, vocab_size]` buffer that holds the result of a step.
    pub logits: BufferId,
}

/// Facts about the model that generation and reports use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Display name, for example `nano`.
    pub name: String,
    /// Number of token ids the model knows.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// One letter a layer: `M` Mamba-2, `-` MLP, `*` attention.
    pub layer_pattern: String,
    /// The context length the model was trained for; longer prompts are legal but warned about.
    pub max_position_embeddings: Option<usize>,
    /// Token that begins a text. Whether it is added is the tokenizer's decision.
    pub bos_token_id: Option<u32>,
    /// Tokens that end generation.
    pub eos_token_ids: Vec<u32>,
    /// Number of parameters of the source checkpoint.
    pub parameters: u64,
    /// Quantization scheme the user asked for: `0`, `1`, `2`, `3`, or `auto`.
    pub phase: String,
}

/// Index into [`Plan::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BufferId(pub u32);

/// Index into [`Plan::states`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateId(pub u32);

/// Memory for one step: a row-major matrix with one row per token (or per requested output).
///
/// Buffers are already assigned to memory: the compiler reuses one for values whose lifetimes do not overlap, so a
/// device allocates each once and never inside a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffer {
    /// For people: the first value that lives here.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Elements per row.
    pub cols: usize,
    /// What a row is.
    pub rows: Rows,
}

/// What one row of a [`Buffer`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// A token of the step.
    Token,
    /// A token whose logits were asked for.
    Output,
}

/// One kernel with its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// What to run, on what.
    pub kernel: Kernel,
    /// The layer or tensor this came from, for messages and tables, for example `layers.0.mixer.in_proj`.
    pub origin: String,
    /// What the compiler expects it to cost.
    pub cost: Cost,
}

/// The traffic and arithmetic of a launch, linear in the number of token rows.
///
/// `time = max(bytes / bandwidth, operations / peak) + launch overhead` is the roofline the compiler optimized for;
/// `nemoc bench` prints it as *predicted* beside *measured*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes moved once a launch, whatever the number of rows: weights and scales.
    pub fixed_bytes: u64,
    /// Bytes moved for each token row: activations.
    pub row_bytes: u64,
    /// Bytes moved for each sequence: recurrent states, read and written.
    pub sequence_bytes: u64,
    /// Arithmetic operations for each token row (a multiply-add counts as two).
    pub row_ops: u64,
}

impl Plan {
    /// The buffer with this id.
    ///
    /// # Panics
    /// On an id that [`Plan::validate`] refuses.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    /// The state with this id.
    ///
    /// # Panics
    /// On an id that [`Plan::validate`] refuses.
    pub fn state(&self, id: StateId) -> &State {
        &self.states[id.0 as usize]
    }

    /// Bytes of keys and values that a sequence needs for each of its tokens.
    pub fn kv_token_bytes(&self) -> u64 {
        let caches = self.states.iter().filter(|state| state.kind == StateKind::Kv);
        caches.map(|state| 2 * state.bytes() as u64).sum()
    }
}
