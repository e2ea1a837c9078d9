//! Errors of the IR.

use crate::verify::Violation;

/// What can go wrong while IR is built, read or checked.
#[derive(Debug, thiserror::Error)]
pub enum IrError {
    /// MLIR refused to create an op.
    #[error("bug: MLIR refused to build {op}")]
    Build {
        /// The op's name.
        op: &'static str,
    },
    /// Text that is not MLIR.
    #[error("cannot parse the IR:\n{diagnostics}")]
    Parse {
        /// What MLIR said.
        diagnostics: String,
    },
    /// A module without the function that holds the graph.
    #[error("the module has no function @{}: not a nemo module", crate::module::FORWARD)]
    NoForward,
    /// IR that breaks the rules of [`crate::verify`].
    #[error("{}", list(.0))]
    Invalid(Vec<Violation>),
}

fn list(violations: &[Violation]) -> String {
    let lines: Vec<_> = violations.iter().map(ToString::to_string).collect();
    format!("{} rule(s) of the IR broken:\n{}", violations.len(), lines.join("\n"))
}
