//! `nemoc run`: text.

use crate::device;
use crate::failure::{Failure, Outcome, warn};
use runtime::generate::{GenerateArgs, StepArgs, on_interrupt};
use runtime::plan::ModelInfo;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

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
    let mut opened = device::open_for(&artifact, &arguments.step)?;
    let model = &artifact.plan().model;
    if !arguments.quiet {
        let (arithmetic, device) = (artifact.plan().arithmetic(), opened.description());
        writeln!(anstream::stderr(), "{}, phase {}, on {device}; linears {arithmetic}", model.name, model.phase)?;
    }
    let interrupted = on_interrupt();
    let device = opened.device.as_mut();
    let summary = arguments.generate.run(device, &tokenizer, &mut anstream::stdout().lock(), interrupted)?;
    if !arguments.quiet {
        writeln!(anstream::stderr(), "{summary}")?;
        let kernels = device.kernels_used();
        if !kernels.is_empty() {
            writeln!(anstream::stderr(), "kernels that ran: {}", kernels.join(", "))?;
        }
        warn_beyond_training(model, summary.prompt_tokens + summary.generation.tokens.len());
    }
    match interrupted.load(Ordering::Relaxed) {
        true => Err(Failure::Interrupted),
        false => Ok(()),
    }
}

fn warn_beyond_training(model: &ModelInfo, tokens: usize) {
    if let Some(trained) = model.max_position_embeddings.filter(|trained| tokens > *trained) {
        warn(&format!(
            "prompt and text are {tokens} tokens long, the model was trained for {trained}\nhelp: expect worse text beyond"
        ));
    }
}
