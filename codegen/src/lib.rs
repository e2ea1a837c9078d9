//! Turns a planned module into an artifact: weights, kernels, launch plan.

pub mod plan;
pub mod weights;
pub mod writer;
