//! `nemoc analyze`: what a checkpoint is made of.

use crate::failure::{Outcome, warn};
use frontend::{Analysis, Checkpoint};
use std::io::Write;
use std::path::PathBuf;

/// Show what a checkpoint is made of and what each phase would do with it.
///
/// Reads config.json and the headers of the weight files; a config.json alone is enough.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of a Hugging Face checkpoint, or its config.json.
    checkpoint: PathBuf,
    /// For scripts: everything.
    #[arg(long)]
    json: bool,
    /// For scripts: the table.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let checkpoint = Checkpoint::open(&arguments.checkpoint)?;
    let analysis = Analysis::new(&checkpoint);
    warn_of_unknown_tensors(&checkpoint);
    let mut out = anstream::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&analysis)?)?;
    } else if arguments.csv {
        out.write_all(&as_csv(&analysis)?)?;
    } else {
        out.write_all(analysis.to_text().as_bytes())?;
    }
    Ok(())
}

fn as_csv(analysis: &Analysis) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(Analysis::CSV_COLUMNS)?;
    for record in analysis.csv_rows() {
        writer.write_record(&record)?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// Tensors that no layer uses are often a sign of a variant of the architecture.
pub fn warn_of_unknown_tensors(checkpoint: &Checkpoint) {
    let unknown = checkpoint.unknown_tensors();
    if let Some(first) = unknown.first() {
        warn(&format!(
            "{} tensor(s) of the checkpoint are not used by the model, the first is {first}\n  --> {}\nhelp: is this a \
             variant of Nemotron-H that config.json does not describe?",
            unknown.len(),
            checkpoint.path().display()
        ));
    }
}
