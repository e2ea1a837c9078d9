//! `nemoc synth`: random weights of a real shape.

use crate::failure::Outcome;
use crate::interrupt::{on_interrupt, remove_folder};
use crate::progress::byte_bar;
use crate::table::{bytes, count, elapsed};
use frontend::synth::{SynthOptions, synthesize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Write a checkpoint of random weights, to measure speed and memory before a download.
#[derive(clap::Args)]
pub struct Arguments {
    /// config.json of the shape wanted, or a folder that holds one.
    #[arg(long, value_name = "CONFIG")]
    config: PathBuf,
    /// The folder to write; it must be new or empty.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Other seeds give other weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Largest size of a weight file, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..1 << 24))]
    shard_size: u64,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let options = SynthOptions { seed: arguments.seed, shard_bytes: arguments.shard_size << 20 };
    let existed = arguments.output.exists();
    if !existed || is_empty(&arguments.output) {
        let output = arguments.output.clone();
        on_interrupt(move || remove_folder(&output, existed));
    }
    let bar = byte_bar("writing");
    let start = Instant::now();
    let report = synthesize(&arguments.config, &arguments.output, &options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    writeln!(
        anstream::stdout(),
        "{}: {} parameters, {} in {} file(s), {} ({}/s)",
        arguments.output.display(),
        count(report.parameters),
        bytes(report.bytes),
        report.files.len(),
        elapsed(start.elapsed()),
        bytes((report.bytes as f64 / seconds) as u64),
    )?;
    Ok(())
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}
