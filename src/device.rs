//! What `run`, `logits` and `eval` share: an artifact and a device that executes it.

use crate::failure::{Failure, warn};
use runtime::artifact::{Artifact, Verify};
use runtime::generate::{Opened, StepArgs, Tokenizer, open_device};
use std::path::Path;

/// Opens an artifact and compares it with its checksums.
pub fn open(path: &Path) -> Result<Artifact, Failure> {
    Artifact::open(path, Verify::Full).map_err(|error| Failure::at(path.display(), error))
}

/// The device that the user wants it to run on. Says so when there is a GPU that could not be used.
pub fn open_for<'a>(artifact: &'a Artifact, step: &StepArgs) -> Result<Opened<'a>, Failure> {
    let opened = open_device(artifact, step)?;
    if let Some(fallback) = opened.fallback.as_ref().filter(|fallback| fallback.gpu_failed) {
        warn(&format!("running on the CPU: {}\nhelp: --device cuda makes this an error", fallback.reason));
    }
    Ok(opened)
}

/// Its tokenizer.
pub fn tokenizer(artifact: &Artifact, path: &Path) -> Result<Tokenizer, Failure> {
    let bytes = artifact.tokenizer().ok_or(runtime::generate::GenerateError::NoTokenizer);
    bytes.and_then(Tokenizer::from_bytes).map_err(|error| Failure::at(path.display(), error))
}
