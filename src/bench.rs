//! `nemoc bench`: how fast, and how fast it could be.

use crate::device;
use crate::failure::{Failure, Outcome};
use passes::cost::{TARGETS, Target};
use runtime::artifact::Artifact;
use runtime::bench::cli::BenchArgs;
use runtime::bench::{Report, Roofline, predicted};
use runtime::memory::Footprint;
use std::io::Write;
use std::path::PathBuf;

/// Measure decode and prefill of a compiled model, and compare with what the memory and the tensor cores allow.
#[derive(clap::Args)]
pub struct Arguments {
    /// The artifact.
    #[arg(value_name = "M.nemo")]
    artifact: PathBuf,
    #[command(flatten)]
    bench: BenchArgs,
    /// Predict for this GPU instead; none is needed.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["device", "gpu"])]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS.iter().map(|target| target.name)))]
    target: Option<String>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let artifact = device::open(&arguments.artifact)?;
    let report = match arguments.target.as_deref().and_then(Target::find) {
        Some(target) => predict(&artifact, target, &arguments.bench),
        None => arguments.bench.run(&artifact).map_err(|error| Failure::at(arguments.artifact.display(), error))?,
    };
    anstream::stdout().write_all(arguments.bench.render(&report).as_bytes())?;
    Ok(())
}

fn predict(artifact: &Artifact, target: &Target, bench: &BenchArgs) -> Report {
    let roofline = Roofline {
        bytes_per_second: target.bytes_per_second,
        int8_ops_per_second: target.int8_ops_per_second,
        launch_seconds: target.launch_seconds,
    };
    predicted(artifact.plan(), Footprint::of(artifact), target.name, roofline, &bench.options())
}
