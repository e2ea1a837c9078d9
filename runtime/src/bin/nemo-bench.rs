//! Verifies and measures compiled models where there is no compiler: what `nemoc verify` and `nemoc bench` do.

use clap::{Args as ClapArgs, Parser, Subcommand};
use runtime::artifact::{Artifact, Verify};
use runtime::bench::cli::BenchArgs;
use runtime::verify::cli::VerifyArgs;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// Verify and measure compiled models.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every launch on two devices and compare
    Verify(Model<VerifyArgs>),
    /// Measure decode and prefill
    Bench(Model<BenchArgs>),
}

#[derive(ClapArgs)]
struct Model<A: ClapArgs> {
    /// The compiled model
    #[arg(value_name = "MODEL.nemo")]
    model: PathBuf,
    #[command(flatten)]
    args: A,
}

impl<A: ClapArgs> Model<A> {
    fn open(&self) -> Result<Artifact, Box<dyn Error>> {
        let placed = |error| format!("{error}\n  --> {}", self.model.display());
        Ok(Artifact::open(&self.model, Verify::Full).map_err(placed)?)
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is as it should be.
fn run(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    match &cli.command {
        Command::Verify(model) => {
            let report = model.args.run(&model.open()?)?;
            print!("{}", model.args.render(&report));
            Ok(report.passes)
        }
        Command::Bench(model) => {
            let report = model.args.run(&model.open()?)?;
            print!("{}", model.args.render(&report));
            Ok(true)
        }
    }
}
