//! Models that a command takes either way: an artifact, or a checkpoint, which then stands for its own phase 0.

use crate::compile::files::companions;
use crate::compile::provenance;
use crate::device;
use crate::failure::Failure;
use crate::pipeline::compiled;
use crate::progress::byte_bar;
use codegen::weights::{Contents, materialize};
use frontend::Checkpoint;
use passes::{Phase, PipelineOptions};
use runtime::artifact::{Artifact, Metadata};
use std::collections::BTreeMap;
use std::path::Path;

/// Opens an artifact, or compiles the phase 0 of a checkpoint folder into a file that is gone with the process.
pub fn open(path: &Path) -> Result<Artifact, Failure> {
    if !path.is_dir() {
        return device::open(path);
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("phase-0.nemo");
    compile(path, &file)?;
    // The mapping keeps the file's bytes after its name is gone.
    device::open(&file)
}

fn compile(path: &Path, file: &Path) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open(path)?;
    checkpoint.require_weights()?;
    let options = PipelineOptions { phase: Some(Phase::Reference), ..PipelineOptions::default() };
    let (compiled, report) = compiled(&checkpoint, passes::pipeline(&options))?;
    let recipe = options.recipe();
    let metadata = Metadata {
        plan: compiled.plan.clone(),
        recipe: toml::to_string(&recipe)?,
        provenance: provenance(&checkpoint, &recipe, &report, None),
        extra: BTreeMap::new(),
    };
    let extra = companions(&checkpoint)?;
    let contents =
        Contents { weights: &compiled.weights, parameters: &compiled.parameters, extra: &extra, metadata: &metadata };
    let bar = byte_bar("phase 0");
    materialize(&contents, &checkpoint, file, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .map_err(|error| Failure::at(path.display(), error))?;
    bar.finish_and_clear();
    Ok(())
}
