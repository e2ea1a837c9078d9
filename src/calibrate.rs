//! `nemoc calibrate`: how large the activations of a model are on a text; and what `compile` shares with it.

mod place;
mod session;

pub use session::{CalibrationArguments, Sensitivities, Session};

use crate::failure::{Failure, Outcome};
use crate::table::{count, elapsed};
use frontend::Checkpoint;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Measure the inputs of every linear on a text, for `compile --calibration`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of a Hugging Face checkpoint.
    checkpoint: PathBuf,
    /// UTF-8 text like what the model will read [default: a text that ships with nemoc].
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Pieces of the text to look at.
    #[arg(long, value_name = "N", default_value_t = session::SAMPLES)]
    samples: usize,
    /// Tokens of a piece.
    #[arg(long, value_name = "L", default_value_t = session::LENGTH)]
    length: usize,
    /// Which pieces.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also measure the covariances that rotations of kind klt are made of.
    #[arg(long)]
    covariance: bool,
    #[command(flatten)]
    place: place::PlaceArguments,
    /// The file to write.
    #[arg(short, long, value_name = "STATS.safetensors")]
    output: PathBuf,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let started = Instant::now();
    let checkpoint = Checkpoint::open(&arguments.checkpoint)?;
    checkpoint.require_weights()?;
    let Arguments { text, samples, length, seed, .. } = arguments;
    let session = Session::open(&checkpoint, arguments.place.open()?, text.as_deref(), *samples, *length, *seed)?;
    let statistics = session.statistics(&checkpoint, arguments.covariance)?;
    statistics
        .save(&arguments.output)
        .map_err(|error| Failure::at(arguments.output.display(), format!("{error}\nhelp: {}", error.help())))?;
    writeln!(
        anstream::stdout(),
        "{}: inputs of {} weights on {} tokens, in {} on {}",
        arguments.output.display(),
        statistics.inputs.len(),
        count((session.tokens()) as u64),
        elapsed(started.elapsed()),
        session.place()
    )?;
    Ok(())
}
