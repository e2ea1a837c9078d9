//! What `run`, `logits` and `eval` share: an artifact and a device that executes it.

use crate::failure::Failure;
use runtime::artifact::{Artifact, Verify};
use runtime::device::Device;
use runtime::generate::{StepArgs, Tokenizer, open_device};
use std::path::Path;

/// Opens an artifact and compares it with its checksums.
pub fn open(path: &Path) -> Result<Artifact, Failure> {
    Artifact::open(path, Verify::Full).map_err(|error| Failure::at(path.display(), error))
}

/// The device that the user wants it to run on.
pub fn open_for<'a>(artifact: &'a Artifact, step: &StepArgs) -> Result<Box<dyn Device + 'a>, Failure> {
    Ok(open_device(step.device, artifact, step)?)
}

/// Its tokenizer.
pub fn tokenizer(artifact: &Artifact, path: &Path) -> Result<Tokenizer, Failure> {
    let bytes = artifact.tokenizer().ok_or(runtime::generate::GenerateError::NoTokenizer);
    bytes.and_then(Tokenizer::from_bytes).map_err(|error| Failure::at(path.display(), error))
}
