//! What legal IR is. MLIR checks names, numbers of operands, attributes and type classes against the IRDL definition;
//! this module adds the rules IRDL cannot say and collects every violation instead of stopping at the first.

use crate::error::IrError;
use crate::module::with_diagnostics;
use melior::{Context, ir::Module, ir::operation::OperationLike};
use std::fmt;

/// A broken rule, with the op that breaks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The op and the name in its location.
    pub at: String,
    /// What is wrong: expected and found.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}: {}", self.at, self.message)
    }
}

/// Checks a module.
///
/// # Errors
/// [`IrError::Invalid`] with every broken rule.
pub fn verify(context: &Context, module: &Module<'_>) -> Result<(), IrError> {
    let (ok, diagnostics) = with_diagnostics(context, || module.as_operation().verify());
    if ok {
        return Ok(());
    }
    Err(IrError::Invalid(diagnostics.into_iter().map(|message| Violation { at: "MLIR".to_owned(), message }).collect()))
}
