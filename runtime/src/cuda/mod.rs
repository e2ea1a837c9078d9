//! Runs plans on a CUDA GPU through the driver API.
//!
//! [`Device`] implements the same interface as the CPU's. The kernels come compiled with the artifact
//! ([`KernelImages`]); [`entry`] and [`params`] are what both sides know of them.

mod attention;
mod batch;
mod beside;
mod buffers;
mod device;
mod driver;
mod enqueue;
pub mod entry;
mod expansion;
mod float_linear;
mod gated_norm;
mod greedy;
mod kernels;
mod launches;
mod machine;
mod measure;
mod pair;
pub mod params;
mod prefetch;
mod program;
mod race;
mod resolve;
mod rows;
mod scan_chunked;
mod scan_many;
mod scratch;
mod slots;
mod staging;
mod stream;
mod sums;
mod tensor_map;
mod tensors;
mod upload;
mod vendor;
mod warpgroup;
mod weights;

pub use device::{Device, Options};
pub use driver::find_gpus;
pub use expansion::expansion_bytes;
pub use kernels::{KernelImages, holds_kernels_for};
pub use launches::Launches;
pub use machine::{Machine, kernel_target};
pub use measure::{LaunchTime, Product};
pub use race::{Pair, Race};
pub use sums::Gram;
