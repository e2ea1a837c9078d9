//! The nemo dialect on MLIR: ops, types, verifier, text form and the pass manager.

pub mod weights;
