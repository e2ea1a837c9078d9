use crate::plan::PlanError;
use std::path::PathBuf;

/// Why an artifact was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The file cannot be opened or mapped.
    #[error("cannot read {}: {source}\nhelp: check that the file exists and that you may read it", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("not a nemo artifact: {reason}\nhelp: `nemoc compile CHECKPOINT -o NAME.nemo` writes one")]
    NotAnArtifact {
        /// How that shows.
        reason: String,
    },
    /// The file ends too early.
    #[error(
        "the artifact is truncated: it has {found} bytes, its header promises {expected}\n\
         help: the copy or download stopped early; fetch it again"
    )]
    Truncated {
        /// Bytes there should be.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Bytes differ from what was written.
    #[error(
        "the artifact was altered: {what} does not match its checksum (expected {expected:016x}, found {found:016x})\n\
         help: fetch or compile it again"
    )]
    Altered {
        /// `the header`, `nemo.checksums`, or ``tensor `NAME` ``.
        what: String,
        /// The recorded checksum.
        expected: u64,
        /// The checksum of the bytes that are there.
        found: u64,
    },
    /// The header or the checksum table is inconsistent.
    #[error("the artifact is malformed: {reason}\nhelp: fetch or compile it again")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// A newer nemoc wrote it.
    #[error(
        "{what} has version {found}, this build reads up to {supported}\n\
         help: update nemoc, or compile the checkpoint again with this build"
    )]
    FutureVersion {
        /// `the artifact` or `the launch plan`.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The newest one understood.
        supported: u32,
    },
    /// A part that every artifact has is missing.
    #[error("the artifact has no {what}\nhelp: compile the checkpoint again")]
    Missing {
        /// The metadata key or tensor.
        what: String,
    },
    /// The plan cannot run.
    #[error(transparent)]
    InvalidPlan(#[from] PlanError),
    /// The plan is not one.
    #[error("the launch plan cannot be read: {reason}\nhelp: compile the checkpoint again")]
    Plan {
        /// What is wrong.
        reason: String,
    },
}

impl ArtifactError {
    pub(super) fn not_an_artifact(reason: impl Into<String>) -> Self {
        ArtifactError::NotAnArtifact { reason: reason.into() }
    }

    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        ArtifactError::Malformed { reason: reason.into() }
    }
}
