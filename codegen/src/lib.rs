//! Turns a planned module into an artifact: weights, kernels, launch plan.

pub mod calibrate;
pub mod instantiate;
pub mod kernels;
pub mod nvrtc;
pub mod plan;
pub mod smoothing;
pub mod target;
pub mod weights;
pub mod writer;
