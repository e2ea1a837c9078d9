//! `nemoc verify`: does a device compute what the plan says?

use crate::device;
use crate::failure::{Failure, Outcome};
use runtime::verify::cli::VerifyArgs;
use std::io::Write;
use std::path::PathBuf;

/// Run every launch of a compiled model on a GPU and on the CPU, on the same inputs, and compare.
///
/// Sums of integers must be equal to the bit, floats within a bound that follows from the order of the additions.
#[derive(clap::Args)]
pub struct Arguments {
    /// The artifact.
    #[arg(value_name = "M.nemo")]
    artifact: PathBuf,
    #[command(flatten)]
    verify: VerifyArgs,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let artifact = device::open(&arguments.artifact)?;
    let report = arguments.verify.run(&artifact)?;
    anstream::stdout().write_all(arguments.verify.render(&report).as_bytes())?;
    if report.passes {
        return Ok(());
    }
    let what = "the device does not compute what the plan says\nhelp: report it with the output above; until then run the \
                model with --device cpu";
    Err(Failure::at(arguments.artifact.display(), what))
}
