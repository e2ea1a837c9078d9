//! Files beside the checkpoint and beside the artifact.

use crate::failure::{Failure, warn};
use codegen::weights::ExtraTensor;
use frontend::Checkpoint;
use runtime::artifact::TOKENIZER_TENSOR;
use std::path::Path;

/// Files that travel in the artifact as they are, where the checkpoint has them.
const COMPANIONS: [&str; 3] = [TOKENIZER_TENSOR, "tokenizer_config.json", "generation_config.json"];

/// Reads the tokenizer and its like.
pub fn companions(checkpoint: &Checkpoint) -> Result<Vec<ExtraTensor>, Failure> {
    let folder = folder_of(checkpoint);
    let mut found = Vec::new();
    for name in COMPANIONS {
        let path = folder.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => found.push(ExtraTensor::file(name, bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("cannot read {name}: {error}\nhelp: make it readable, or take it away");
                return Err(Failure::at(path.display(), what));
            }
        }
    }
    if checkpoint.has_weights() && found.iter().all(|file| file.spec.name != TOKENIZER_TENSOR) {
        warn(&format!(
            "the checkpoint has no tokenizer.json: the artifact will take token ids, not text\n  --> {}\nhelp: download \
             tokenizer.json beside config.json",
            folder.display()
        ));
    }
    Ok(found)
}

/// The folder of config.json and what lies beside it.
pub fn folder_of(checkpoint: &Checkpoint) -> &Path {
    let path = checkpoint.path();
    if path.is_dir() { path } else { path.parent().unwrap_or(path) }
}

/// The checkpoint's digest as provenance and statistics record it.
pub fn digest_of(checkpoint: &Checkpoint) -> String {
    format!("xxh3:{}", checkpoint.digest())
}

/// The weights are read while the artifact is written.
pub fn refuse_to_overwrite(checkpoint: &Checkpoint, output: &Path) -> Result<(), Failure> {
    let same = |name: &str| {
        let input = folder_of(checkpoint).join(name).canonicalize();
        input.is_ok_and(|input| output.canonicalize().is_ok_and(|output| input == output))
    };
    match checkpoint.files().into_iter().find(|(name, _)| same(name)) {
        Some(_) => Err(Failure::at(
            output.display(),
            "the output is a weight file of the checkpoint\nhelp: give the artifact a name of its own with -o",
        )),
        None => Ok(()),
    }
}
