//! The nemo dialect on MLIR: ops, types, verifier, text form and the pass trait.
//!
//! A *module* holds one function, `@forward`, from the token ids of a step to the logits asked for. It is generic in
//! the number of tokens and sequences; states are explicit values. Weights are symbolic: an op names a tensor, further
//! ops say what is done to it, and nothing is read before code generation.
//!
//! The way through: [`ops`] is THE op table; [`types`] says what a value is; [`irdl`] turns both into a dialect that
//! MLIR itself checks; [`verify`] adds the rules IRDL cannot say; [`mod@rewrite`] is how passes change a module;
//! [`weights`] is what code generation evaluates.

mod alias;
mod border;
pub mod error;
pub mod irdl;
pub mod manager;
pub mod module;
pub mod ops;
pub mod pass;
pub mod reference;
pub mod rewrite;
pub mod stage;
pub mod types;
pub mod verify;
mod weight_ops;
pub mod weights;

pub use error::{IrError, Violation};
pub use melior;
