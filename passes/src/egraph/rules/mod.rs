//! The rules, one line each, by family.

pub mod conversions;
pub mod emits;
pub mod linears;
pub mod mixers;
pub mod norms;
pub mod rotations;

use super::Rule;

/// The rules of fuse-conversions.
pub fn fusing() -> Vec<Rule> {
    [conversions::rules(), linears::rules(), emits::rules(), norms::rules(), mixers::rules()].concat()
}

/// The rules of fold-rotations.
pub fn folding() -> Vec<Rule> {
    rotations::rules()
}

#[cfg(test)]
mod meaning;
#[cfg(test)]
mod proofs;
