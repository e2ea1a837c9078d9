//! Reads Nemotron-H checkpoints: config.json and safetensors into the phase-0 nemo IR.
//!
//! [`Config`] is the checked architecture, [`Checkpoint`] adds where every tensor is (only headers are read), and
//! [`names::tensors`] is the one table of the tensors a model has, their names and their shapes.

pub mod analyze;
pub mod checkpoint;
pub mod config;
pub mod error;
mod fields;
pub mod header;
pub mod import;
mod json;
pub mod names;
mod shards;
pub mod synth;

pub use analyze::Analysis;
pub use checkpoint::Checkpoint;
pub use config::{AttentionShape, Config, LayerKind, MambaShape};
pub use error::{CheckpointError, ConfigError};
pub use names::{Names, Role, TensorSpec};
pub use synth::{SynthError, SynthOptions, SynthReport, synthesize};
