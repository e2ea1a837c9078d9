use crate::device::DeviceError;
use crate::generate::GenerateError;
use std::path::{Path, PathBuf};

/// Why a benchmark could not be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// No such benchmark.
    #[error("there is no task {name:?}\nhelp: the tasks are {known}")]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },

    /// A file could not be read or written.
    #[error("{what}: {source}\n  --> {}\nhelp: {help}", .path.display())]
    File {
        /// What it was for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        help: &'static str,
    },

    /// A document that cannot be scored as it stands, in a strict run.
    #[error("{problem}\n  --> {}:{}\nhelp: mend the line, or run without --strict to go on without it", .path.display(), .problem.line)]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: Problem,
    },

    /// A file without a single document that can be scored.
    #[error("the task has no document that can be scored\n  --> {}\nhelp: the file holds one JSON object a line, as the guide to the data says", .path.display())]
    NoDocuments {
        /// The file.
        path: PathBuf,
    },

    /// Too few examples for a few-shot prompt.
    #[error("{wanted} examples were asked for, the file has {found}\n  --> {}\nhelp: lower --num-fewshot or give more examples", .path.display())]
    FewExamples {
        /// The file.
        path: PathBuf,
        /// `--num-fewshot`.
        wanted: usize,
        /// Documents in the file.
        found: usize,
    },

    /// The tokenizer failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),

    /// The device refused or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl EvalError {
    pub(super) fn file(what: &'static str, path: &Path, source: std::io::Error, help: &'static str) -> EvalError {
        EvalError::File { what, path: path.to_owned(), source, help }
    }
}

/// What is wrong with one line of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// For people.
    pub message: String,
    /// Whether the document is left out; otherwise it is scored all the same.
    pub skipped: bool,
}
