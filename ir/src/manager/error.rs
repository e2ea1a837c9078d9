//! Why a pipeline stopped.

use crate::error::IrError;
use crate::pass::PassError;
use crate::stage::Stage;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// A pipeline that stopped: at which pass, why, and where the dumps are.
#[derive(Debug)]
pub struct ManagerError {
    /// The pass; `None` when the input already was at fault, or the dump folder.
    pub pass: Option<&'static str>,
    /// What went wrong.
    pub problem: Problem,
    /// Where the modules up to here were written, if anywhere.
    pub dump_dir: Option<PathBuf>,
}

/// What went wrong in a pipeline.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The module to start from breaks the IR.
    #[error("the input is no legal IR: {0}")]
    Input(IrError),
    /// The pass refused, for a reason the user can act on.
    #[error("{}", .0.message)]
    Refused(PassError),
    /// The pass could not build its result: a bug in it.
    #[error("bug: {0}")]
    Failed(IrError),
    /// The pass left a module that breaks the IR: a bug in it.
    #[error("bug: the pass broke the IR: {0}")]
    Broken(IrError),
    /// The pass panicked: a bug in it.
    #[error("bug: the pass panicked: {0}")]
    Panicked(String),
    /// The pass changes its own result: a bug in it.
    #[error("bug: the pass changes its own result; passes must be idempotent")]
    NotIdempotent,
    /// The module is at a stage that the pass does not accept.
    #[error("the module is at stage `{found}`, the pass accepts {}", range(.accepts))]
    WrongStage {
        /// Where the module is.
        found: Stage,
        /// What the pass accepts.
        accepts: RangeInclusive<Stage>,
    },
    /// A dump could not be written.
    #[error("cannot write {}: {source}", .path.display())]
    Dump {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl ManagerError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match &self.problem {
            Problem::Refused(error) => error.help.clone(),
            Problem::WrongStage { found, accepts } if found < accepts.start() => {
                Some(format!("run the passes that lead to stage `{}` first", accepts.start()))
            }
            Problem::WrongStage { .. } => Some("start from an earlier dump".to_owned()),
            Problem::Dump { .. } => Some("name a folder that can be written to with --dump-ir".to_owned()),
            Problem::Input(_) => None,
            Problem::Failed(_) | Problem::Broken(_) | Problem::Panicked(_) | Problem::NotIdempotent => {
                Some(match &self.dump_dir {
                    Some(dir) => {
                        format!("this is a bug in nemoc; the modules before and after are in {}", dir.display())
                    }
                    None => "this is a bug in nemoc; repeat with --dump-ir DIR to keep the modules".to_owned(),
                })
            }
        }
    }
}

impl fmt::Display for ManagerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pass) = self.pass {
            write!(f, "{pass}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}

impl std::error::Error for ManagerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Dump { source, .. } => Some(source),
            _ => None,
        }
    }
}

fn range(stages: &RangeInclusive<Stage>) -> String {
    if stages.start() == stages.end() {
        format!("`{}`", stages.start())
    } else {
        format!("`{}` to `{}`", stages.start(), stages.end())
    }
}
