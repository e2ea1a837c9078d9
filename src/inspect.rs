//! `nemoc inspect`: what is inside an artifact.

mod linears;
mod plan;

use crate::device;
use crate::failure::Outcome;
use crate::table::{bytes, count};
use linears::Linear;
pub use plan::memory;
use runtime::artifact::Artifact;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Show what is inside an artifact and the arithmetic each linear runs in.
#[derive(clap::Args)]
pub struct Arguments {
    /// The artifact.
    #[arg(value_name = "M.nemo")]
    artifact: PathBuf,
    /// The launches of a step, in order.
    #[arg(long)]
    plan: bool,
    /// For scripts.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let artifact = device::open(&arguments.artifact)?;
    let text = match (arguments.json, arguments.plan) {
        (true, _) => serde_json::to_string_pretty(&as_json(&artifact, arguments.plan))? + "\n",
        (false, true) => plan::launches(artifact.plan()),
        (false, false) => summary(&artifact),
    };
    anstream::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn as_json(artifact: &Artifact, with_plan: bool) -> serde_json::Value {
    let tensors: BTreeMap<&str, serde_json::Value> = artifact
        .tensors()
        .map(|(name, view)| {
            let facts = json!({ "dtype": view.dtype, "shape": view.shape, "bytes": view.bytes.len() });
            (name, facts)
        })
        .collect();
    let mut value = json!({
        "file_bytes": artifact.file_bytes(),
        "model": artifact.plan().model,
        "provenance": artifact.provenance(),
        "recipe": artifact.recipe(),
        "states": artifact.plan().states,
        "linears": linears::of(artifact),
        "tensors": tensors,
    });
    if with_plan {
        value["plan"] = json!(artifact.plan());
    }
    value
}

fn summary(artifact: &Artifact) -> String {
    let plan = artifact.plan();
    let (model, provenance) = (&plan.model, artifact.provenance());
    let linears = linears::of(artifact);
    let facts = [
        ("model", format!("{}, {} parameters", model.name, count(model.parameters))),
        ("layers", model.layer_pattern.clone()),
        ("phase", model.phase.clone()),
        ("file", sizes(artifact, &linears)),
        ("source", format!("{} ({})", provenance.source, provenance.source_digest)),
        ("nemoc", provenance.nemoc_version.clone()),
        ("passes", provenance.passes.join(", ")),
        ("calibrated", provenance.calibration.clone().unwrap_or_else(|| "no, rounded to nearest".to_owned())),
        ("tokenizer", if artifact.tokenizer().is_some() { "yes" } else { "no" }.to_owned()),
        ("launches", format!("{} a step", plan.launches.len())),
        ("memory", memory(plan)),
    ];
    let facts: String = facts.iter().map(|(name, fact)| format!("{name:10} {fact}\n")).collect();
    format!("{facts}\n{}\n", linears::draw(&linears))
}

fn sizes(artifact: &Artifact, linears: &[Linear]) -> String {
    let linear_bytes: u64 = linears.iter().map(|linear| linear.bytes).sum();
    format!(
        "{}, {} of it in linears and embedding; every checksum matches",
        bytes(artifact.file_bytes() as u64),
        bytes(linear_bytes)
    )
}
