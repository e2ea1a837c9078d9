//! The whole pipeline on the nano checkpoint: passes are idempotent, and MLIR's own tool reads every dump.

use ir::manager::{Manager, Options, PassStatus};
use ir::weights::RotationKind;
use passes::{Phase, PipelineOptions};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

#[path = "support/models.rs"]
mod models;

const MLIR_OPT: &str = "mlir-opt-22";

/// Runs the pipeline with dumps.
fn compile(options: &PipelineOptions, dump_dir: &Path) {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nano");
    let context = ir::irdl::context();
    let module = frontend::import::import(&context, &frontend::Checkpoint::open(&nano).unwrap()).unwrap();
    let manager_options =
        Options { dump_dir: Some(dump_dir.to_owned()), check_idempotence: true, ..Options::default() };
    let manager = Manager::new(passes::pipeline(options), manager_options);
    let (_, report) = manager
        .run(&context, module, &mut ())
        .unwrap_or_else(|error| panic!("{options:?}: {error}\n{}", error.help().unwrap_or_default()));
    assert!(report.passes.iter().all(|run| run.status != PassStatus::Skipped));
    assert_eq!(report.last_changed().map(|run| run.name), Some("lower-to-plan"));
}

/// What mlir-opt says about a dump, if it does not accept it.
fn refusal(dump_dir: &Path, file: &Path) -> Option<String> {
    let output = Command::new(MLIR_OPT)
        .arg(format!("--irdl-file={}", dump_dir.join("nemo.irdl").display()))
        .arg(file)
        .output()
        .unwrap_or_else(|error| panic!("{MLIR_OPT} of the Debian package mlir-22-tools cannot be run: {error}"));
    (!output.status.success()).then(|| format!("{}: {}", file.display(), String::from_utf8_lossy(&output.stderr)))
}

fn nano_statistics() -> Arc<ir::statistics::Statistics> {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nano");
    let context = ir::irdl::context();
    let module = frontend::import::import(&context, &frontend::Checkpoint::open(&nano).unwrap()).unwrap();
    models::statistics(&module)
}

/// Every phase, and every family of rotations that needs no calibration.
fn pipelines() -> Vec<PipelineOptions> {
    let phases = Phase::ALL.map(|phase| PipelineOptions { phase: Some(phase), ..PipelineOptions::default() });
    let rotations = [RotationKind::Hadamard, RotationKind::RandomHadamard].map(|kind| PipelineOptions {
        phase: Some(Phase::Mixed),
        rotations: Some(kind),
        ..PipelineOptions::default()
    });
    let smoothed = PipelineOptions { statistics: Some(nano_statistics()), ..rotations[0].clone() };
    phases.into_iter().chain(rotations).chain([smoothed]).collect()
}

#[test]
fn mlir_opt_accepts_every_dump_of_every_pipeline() {
    for options in pipelines() {
        let dir = tempfile::tempdir().unwrap();
        compile(&options, dir.path());
        let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let dumps: Vec<_> = files.iter().filter(|file| file.extension().is_some_and(|e| e == "mlir")).collect();
        assert_eq!(dumps.len(), passes::pipeline(&options).len() + 1);
        let refused: Vec<_> = dumps.iter().filter_map(|file| refusal(dir.path(), file)).collect();
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    }
}

#[test]
fn mlir_opt_refuses_a_dump_with_an_unknown_op() {
    let dir = tempfile::tempdir().unwrap();
    compile(&PipelineOptions::default(), dir.path());
    let file = dir.path().join("00-import.mlir");
    let text = std::fs::read_to_string(&file).unwrap().replace("nemo.relu2", "nemo.relu3");
    std::fs::write(&file, text).unwrap();
    assert!(refusal(dir.path(), &file).is_some_and(|message| message.contains("nemo.relu3")));
}
