//! `nemoc run`: text.

use crate::device;
use crate::failure::Outcome;
use runtime::generate::{GenerateArgs, StepArgs};
use std::io::Write;
use std::path::PathBuf;

/// Continue a prompt with a compiled model.
#[derive(clap::Args)]
pub struct Arguments {
    /// The artifact.
    #[arg(value_name = "M.nemo")]
    artifact: PathBuf,
    #[command(flatten)]
    generate: GenerateArgs,
    #[command(flatten)]
    step: StepArgs,
    /// Print the text and nothing else.
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let artifact = device::open(&arguments.artifact)?;
    let tokenizer = device::tokenizer(&artifact, &arguments.artifact)?;
    let mut device = device::open_for(&artifact, &arguments.step)?;
    if !arguments.quiet {
        let model = &artifact.plan().model;
        writeln!(anstream::stderr(), "{}, phase {}, on {}", model.name, model.phase, device.description())?;
    }
    let summary = arguments.generate.run(device.as_mut(), &tokenizer, &mut anstream::stdout().lock())?;
    if !arguments.quiet {
        writeln!(anstream::stderr(), "{summary}")?;
    }
    Ok(())
}
