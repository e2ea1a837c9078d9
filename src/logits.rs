//! `nemoc logits`: for comparing with another implementation.

use crate::device;
use crate::failure::{Failure, Outcome};
use runtime::generate::{StepArgs, logits, write_logits};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Write the logits of every token of a sequence, f32 [tokens, vocab].
#[derive(clap::Args)]
pub struct Arguments {
    /// The artifact.
    #[arg(value_name = "M.nemo")]
    artifact: PathBuf,
    /// A JSON list of token ids.
    #[arg(long, value_name = "IDS.json")]
    tokens: PathBuf,
    /// A safetensors file with the tensor `logits`.
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,
    #[command(flatten)]
    step: StepArgs,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let tokens = read_ids(&arguments.tokens)?;
    let artifact = device::open(&arguments.artifact)?;
    let mut device = device::open_for(&artifact, &arguments.step)?.device;
    let values = logits(device.as_mut(), &tokens, Some(arguments.step.chunk))
        .map_err(|error| Failure::at(arguments.tokens.display(), error))?;
    let vocab_size = artifact.plan().model.vocab_size;
    write_logits(&arguments.output, &values, vocab_size)?;
    writeln!(anstream::stdout(), "{}: logits f32 [{}, {vocab_size}]", arguments.output.display(), tokens.len())?;
    Ok(())
}

fn read_ids(path: &Path) -> Result<Vec<u32>, Failure> {
    let refuse = |what: String| {
        Failure::at(path.display(), format!("{what}\nhelp: give a JSON list of token ids, for example [1, 15, 7]"))
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(format!("cannot read token ids: {error}")))?;
    let ids: Vec<u32> =
        serde_json::from_str(&text).map_err(|error| refuse(format!("this is no list of token ids: {error}")))?;
    if ids.is_empty() {
        return Err(refuse("the list of token ids is empty".to_owned()));
    }
    Ok(ids)
}
