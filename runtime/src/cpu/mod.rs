//! Executes a plan on the CPU: one Rust reference for every kernel.

mod add;
mod attention;
mod batch;
mod buffers;
mod conv1d;
mod dequantize;
mod device;
mod embed;
mod emit;
mod gated_rms_norm;
mod hadamard;
mod kv_cache;
mod launches;
mod linear;
mod map;
mod mixer;
mod program;
mod rms_norm;
mod scan_state;
mod select_outputs;
mod simd;
mod slots;
mod ssm_scan;
mod storage;
mod tensors;

pub use device::{Device, Options};
pub use launches::Launches;
