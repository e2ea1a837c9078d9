//! The `.nemo` file: everything a model needs to run, in one valid safetensors file.
//!
//! ```text
//! u64 LE     length of the header
//! header     JSON, padded with spaces so that the tensors begin at a multiple of 256
//! tensors    without gaps, in the order of Layout
//! ```
//!
//! - `__metadata__` (string to string): `format` = `nemo`; `nemo.version`; `nemo.plan`, the [`Plan`] as JSON;
//!   `nemo.recipe`, what the user asked for; `nemo.provenance`, a [`Provenance`] as JSON; other keys are free.
//! - Tensors: the weights, under the names that the plan gives; `tokenizer.json`, `tokenizer_config.json` and
//!   `generation_config.json` (u8, each optional); `kernels.TARGET.TEMPLATE` (u8), the kernels of one template compiled for
//!   one target (version 1: `kernels.TARGET`, all of them); and last `nemo.checksums` (u8), the [`Checksums`] of everything else.
//!
//! Any safetensors tool lists such a file. [`Artifact::open`] trusts nothing in it.

mod checksum;
mod error;
mod header;
mod layout;
mod metadata;
mod open;

#[cfg(test)]
mod tests;

pub use checksum::Checksums;
pub use error::ArtifactError;
pub use layout::{Layout, LayoutError, Placed, TensorSpec};
pub use metadata::{Metadata, Provenance};
pub use open::{Artifact, Verify};

#[cfg(doc)]
use crate::plan::Plan;

/// The artifact version this build writes and the newest it reads.
pub const ARTIFACT_VERSION: u32 = 2;

/// Name of the tensor that holds the [`Checksums`].
pub const CHECKSUMS_TENSOR: &str = "nemo.checksums";

/// Name of the tensor that holds the tokenizer.
pub const TOKENIZER_TENSOR: &str = "tokenizer.json";

/// Begins the names of the tensors that hold compiled kernels; the target and the template follow, for example `sm_89.embed`.
pub const KERNELS_PREFIX: &str = "kernels.";

/// Tensor data begins at a multiple of this many bytes of the file.
pub const DATA_ALIGN: usize = 256;

/// The longest header that safetensors readers accept.
pub const MAX_HEADER_BYTES: usize = 100_000_000;
