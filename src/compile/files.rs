//! Files beside the checkpoint and beside the artifact.

use crate::failure::{Failure, warn};
use codegen::weights::ExtraTensor;
use frontend::Checkpoint;
use runtime::artifact::TOKENIZER_TENSOR;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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

fn folder_of(checkpoint: &Checkpoint) -> &Path {
    let path = checkpoint.path();
    if path.is_dir() { path } else { path.parent().unwrap_or(path) }
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

/// Named temporary files that an interrupted writer would leave, on file systems without unnamed ones.
pub struct Leftovers {
    folder: PathBuf,
    prefix: String,
    before: BTreeSet<PathBuf>,
}

impl Leftovers {
    /// Remembers what is there already, of other processes.
    pub fn before(output: &Path) -> Leftovers {
        let folder = match output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let prefix = format!(".{}.", output.file_name().unwrap_or_default().to_string_lossy());
        let mut leftovers = Leftovers { folder, prefix, before: BTreeSet::new() };
        leftovers.before = leftovers.present();
        leftovers
    }

    /// Removes what came since.
    pub fn remove(&self) {
        for path in self.present().difference(&self.before) {
            // The process ends right after this, there is nobody to tell.
            let _ = std::fs::remove_file(path);
        }
    }

    fn present(&self) -> BTreeSet<PathBuf> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return BTreeSet::new() };
        let ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&self.prefix) && name.ends_with(".partial")
        };
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(ours).collect()
    }
}
