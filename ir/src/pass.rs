//! The pass trait. Skipping, dumping, timing, verifying and bisecting are the manager's.

use crate::stage::Stage;
use melior::{Context, ir::Module};

/// A failure of a pass that the user can do something about.
#[derive(Debug, thiserror::Error)]
#[error("{pass}: {message}")]
pub struct PassError {
    /// The pass.
    pub pass: &'static str,
    /// What is wrong, expected and found.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// A rewrite of the module.
pub trait Pass {
    /// Its name on the command line: verb-object, kebab-case.
    fn name(&self) -> &'static str;

    /// The stages it accepts.
    fn requires(&self) -> std::ops::RangeInclusive<Stage>;

    /// Rewrites the module; `None` when there is nothing to do.
    ///
    /// # Errors
    /// When the module or the pass's options ask for something it cannot do.
    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure>;

    /// What the last run chose among alternatives and what that beat, for people; `None` for a pass without choices.
    fn choices(&self) -> Option<String> {
        None
    }
}

/// Why a pass did not finish.
#[derive(Debug, thiserror::Error)]
pub enum PassFailure {
    /// The user's error.
    #[error(transparent)]
    User(#[from] PassError),
    /// The IR's.
    #[error(transparent)]
    Ir(#[from] crate::error::IrError),
}
