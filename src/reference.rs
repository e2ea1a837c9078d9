//! Models that a command takes either way: an artifact, or a checkpoint, which then stands for its own phase 0.

use crate::compile::files::companions;
use crate::device;
use crate::failure::{Failure, quiet_panics};
use crate::progress::byte_bar;
use codegen::plan::plan_of;
use codegen::weights::{Contents, materialize};
use frontend::Checkpoint;
use ir::manager::{Manager, Options};
use passes::{Phase, PipelineOptions};
use runtime::artifact::{Artifact, Metadata, Provenance};
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
    let context = ir::irdl::context();
    let module = frontend::import::import(&context, &checkpoint)?;
    let manager = Manager::new(passes::pipeline(&options), Options::default());
    let (module, report) = quiet_panics(|| manager.run(&context, module, &mut ()))?;
    let compiled = plan_of(&module)?;
    let metadata = Metadata {
        plan: compiled.plan.clone(),
        recipe: toml::to_string(&options.recipe())?,
        provenance: Provenance {
            nemoc_version: env!("CARGO_PKG_VERSION").to_owned(),
            source: checkpoint.config().name.clone(),
            source_digest: format!("xxh3:{}", checkpoint.digest()),
            passes: report.passes.iter().map(|run| run.name.to_owned()).collect(),
            parameters: checkpoint.parameters(),
            calibration: None,
        },
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
