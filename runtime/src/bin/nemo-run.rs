//! Continues a prompt with a compiled model; all that a deployment needs.

use clap::Parser;
use runtime::artifact::{Artifact, Verify};
use runtime::generate::{GenerateArgs, GenerateError, StepArgs, Tokenizer, open_device};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Continue a prompt with a compiled model.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The compiled model
    #[arg(value_name = "MODEL.nemo")]
    model: PathBuf,
    #[command(flatten)]
    generate: GenerateArgs,
    #[command(flatten)]
    step: StepArgs,
    /// Start without comparing the file with its checksums
    #[arg(long)]
    skip_checksums: bool,
    /// Print only the text
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let verify = if args.skip_checksums { Verify::HeaderOnly } else { Verify::Full };
    let artifact = Artifact::open(&args.model, verify).map_err(|error| placed(&error.to_string(), &args.model))?;
    let tokenizer = Tokenizer::from_bytes(artifact.tokenizer().ok_or(GenerateError::NoTokenizer)?)?;
    let mut device = open_device(args.step.device, &artifact, &args.step)?;
    let summary = args.generate.run(device.as_mut(), &tokenizer, &mut std::io::stdout().lock())?;
    if !args.quiet {
        eprintln!("{}: {summary}", device.description());
    }
    Ok(())
}

/// Puts the file before the help line, unless the message names it already.
fn placed(message: &str, path: &Path) -> String {
    let (head, help) = message.split_at(message.find("\nhelp: ").unwrap_or(message.len()));
    let path = path.display().to_string();
    if head.contains(&path) { message.to_owned() } else { format!("{head}\n  --> {path}{help}") }
}
