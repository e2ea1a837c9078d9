//! Errors of the IR.

use std::fmt;

/// A broken rule, with the op that breaks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The op and the name in its location; empty when neither is known.
    pub at: String,
    /// The line of the text that the op was read from, if it was.
    pub line: Option<usize>,
    /// What is wrong: expected and found.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        f.write_str(&self.message)
    }
}

/// What can go wrong while IR is built, read or checked.
#[derive(Debug, thiserror::Error)]
pub enum IrError {
    /// MLIR refused to create an op.
    #[error("bug: MLIR refused to build {op}")]
    Build {
        /// The op's name.
        op: &'static str,
    },
    /// Text that is not MLIR of the nemo dialect.
    #[error("cannot parse the IR:\n{}", list(.0))]
    Parse(Vec<Violation>),
    /// A module without the function that holds the graph.
    #[error("the module has no function @{}: not a nemo module", crate::module::FORWARD)]
    NoForward,
    /// IR that breaks the rules of [`crate::verify`].
    #[error("{} of the IR broken:\n{}", rules(.0.len()), list(.0))]
    Invalid(Vec<Violation>),
}

impl IrError {
    /// The broken rules, when that is what went wrong.
    pub fn violations(&self) -> &[Violation] {
        match self {
            IrError::Parse(violations) | IrError::Invalid(violations) => violations,
            IrError::Build { .. } | IrError::NoForward => &[],
        }
    }
}

/// One violation a line.
pub(crate) fn list(violations: &[Violation]) -> String {
    let lines: Vec<_> = violations.iter().map(|violation| format!("  {violation}")).collect();
    lines.join("\n")
}

/// How many rules.
pub(crate) fn rules(count: usize) -> String {
    if count == 1 { "1 rule".to_owned() } else { format!("{count} rules") }
}
