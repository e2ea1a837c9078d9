//! The dump folder.

use super::Problem;
use crate::{irdl, module};
use melior::ir::Module;
use std::path::{Path, PathBuf};

/// The folder that modules are written to, if any.
pub(super) struct Dump(Option<PathBuf>);

impl Dump {
    /// Makes the folder and writes the dialect's definition into it.
    pub(super) fn open(dir: Option<&Path>) -> Result<Self, Problem> {
        if let Some(dir) = dir {
            std::fs::create_dir_all(dir).map_err(|source| Problem::Dump { path: dir.to_owned(), source })?;
            write(dir.join("nemo.irdl"), &irdl::irdl_text())?;
        }
        Ok(Self(dir.map(Path::to_owned)))
    }

    /// Writes `NUMBER-NAME.mlir` and returns its path.
    pub(super) fn write(&self, number: usize, name: &str, module: &Module<'_>) -> Result<Option<PathBuf>, Problem> {
        let Some(dir) = &self.0 else { return Ok(None) };
        write(dir.join(format!("{number:02}-{name}.mlir")), &module::print(module)).map(Some)
    }

    /// Writes `NUMBER-NAME.choices.txt`.
    pub(super) fn write_choices(&self, number: usize, name: &str, choices: Option<String>) -> Result<(), Problem> {
        let (Some(dir), Some(choices)) = (&self.0, choices) else { return Ok(()) };
        write(dir.join(format!("{number:02}-{name}.choices.txt")), &choices).map(drop)
    }
}

fn write(path: PathBuf, text: &str) -> Result<PathBuf, Problem> {
    match std::fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(source) => Err(Problem::Dump { path, source }),
    }
}
