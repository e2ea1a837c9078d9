//! Continues a prompt with a compiled model; all that a deployment needs.

use clap::Parser;
use runtime::artifact::{Artifact, Verify};
use runtime::generate::{GenerateArgs, GenerateError, INTERRUPTED, StepArgs, Tokenizer, on_interrupt, open_device};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

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
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let verify = if args.skip_checksums { Verify::HeaderOnly } else { Verify::Full };
    let artifact = Artifact::open(&args.model, verify).map_err(|error| placed(&error.to_string(), &args.model))?;
    let tokenizer = Tokenizer::from_bytes(artifact.tokenizer().ok_or(GenerateError::NoTokenizer)?)?;
    let mut opened = open_device(&artifact, &args.step)?;
    let interrupted = on_interrupt();
    let device = opened.device.as_mut();
    let summary = args.generate.run(device, &tokenizer, &mut std::io::stdout().lock(), interrupted)?;
    if !args.quiet {
        eprintln!("{}: {summary}", opened.description());
    }
    Ok(if interrupted.load(Ordering::Relaxed) { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Puts the file before the help line, unless the message names it already.
fn placed(message: &str, path: &Path) -> String {
    let (head, help) = message.split_at(message.find("\nhelp: ").unwrap_or(message.len()));
    let path = path.display().to_string();
    if head.contains(&path) { message.to_owned() } else { format!("{head}\n  --> {path}{help}") }
}
