//! Executes nemoc artifacts on the CPU or a CUDA GPU; knows kernels and buffers, nothing of Nemotron-H.

pub mod artifact;
mod batch;
pub mod bench;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod eval;
pub mod generate;
mod median;
pub mod memory;
pub mod observe;
pub mod plan;
pub mod synthetic;
mod table;
pub mod tensors;
pub mod verify;
