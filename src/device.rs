//! What `run`, `logits` and `eval` share: an artifact and a device that executes it.

use crate::failure::Failure;
use runtime::artifact::{Artifact, Verify};
use runtime::cpu;
use runtime::generate::{StepArgs, Tokenizer};
use std::path::Path;

/// Opens an artifact and compares it with its checksums.
pub fn open(path: &Path) -> Result<Artifact, Failure> {
    Artifact::open(path, Verify::Full).map_err(|error| Failure::at(path.display(), error))
}

/// A device for its plan.
pub fn cpu<'a>(artifact: &'a Artifact, step: &StepArgs) -> Result<cpu::Device<'a>, Failure> {
    let options = cpu::Options { threads: step.threads, limits: step.limits() };
    Ok(cpu::Device::new(artifact.plan(), artifact, &options)?)
}

/// Its tokenizer.
pub fn tokenizer(artifact: &Artifact, path: &Path) -> Result<Tokenizer, Failure> {
    let bytes = artifact.tokenizer().ok_or(runtime::generate::GenerateError::NoTokenizer);
    bytes.and_then(Tokenizer::from_bytes).map_err(|error| Failure::at(path.display(), error))
}
