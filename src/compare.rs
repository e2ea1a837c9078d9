//! `nemoc compare`: how far one model is from another, and which layers did it.

use crate::device;
use crate::eval::layers::Streams;
use crate::eval::{hardware, model};
use crate::failure::{Failure, Outcome};
use crate::progress::count_bar;
use crate::reference;
use crate::report::data::{Divergence, ModelReport, PerplexityFact, Report, SCHEMA, Settings};
use crate::report::write_files;
use crate::table::{bytes, count, table};
use crate::text::{Text, WindowArguments};
use runtime::eval::{Reference, compare};
use runtime::generate::StepArgs;
use std::io::Write;
use std::path::PathBuf;

/// Compare two models on a text: perplexity, divergence, agreement, and the error of the residual stream by layer.
#[derive(clap::Args)]
pub struct Arguments {
    /// The model: an artifact, or a checkpoint folder under phase 0.
    #[arg(value_name = "A.nemo")]
    model: PathBuf,
    /// What it is compared with: an artifact or a checkpoint of the same model.
    #[arg(value_name = "B.nemo|CKPT")]
    reference: PathBuf,
    /// The text that both predict.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    #[command(flatten)]
    window: WindowArguments,
    /// Print JSON, in the form of `nemoc eval`, instead of tables.
    #[arg(long)]
    json: bool,
    /// One HTML page with plots; it needs no network.
    #[arg(long, value_name = "REPORT.html")]
    html: Option<PathBuf>,
    #[command(flatten)]
    step: StepArgs,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let report = measure(arguments)?;
    write_files(&report, arguments.html.as_deref(), None)?;
    let text = if arguments.json { report.to_json()? } else { draw(&report) };
    anstream::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// The model first, then what it is compared with.
fn measure(arguments: &Arguments) -> Result<Report, Failure> {
    let started = std::time::Instant::now();
    let text = Text::read(&arguments.text)?;
    let artifact = reference::open(&arguments.model)?;
    let baseline = reference::open(&arguments.reference)?;
    let tokens = device::tokenizer(&artifact, &arguments.model)?.encode(&text.content)?;
    let windows = arguments.window.windows();
    let mut device = device::open_for(&artifact, &arguments.step)?.device;
    let mut other = device::open_for(&baseline, &arguments.step)?.device;
    let bar = count_bar("windows");
    let found = compare(&mut Reference::new(&mut *other, 0), &mut *device, &tokens, &windows, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let mut measured = model::facts(&artifact, &arguments.model);
    let mut compared = model::facts(&baseline, &arguments.reference);
    measured.perplexity = Some(PerplexityFact::new(&text.name, windows.size, found.model));
    compared.perplexity = Some(PerplexityFact::new(&text.name, windows.size, found.reference));
    measured.divergence = Some(Divergence::new(&compared.phase, &found));
    measured.layer_errors = Streams::new(&baseline).errors(&artifact, &tokens)?;
    measured.seconds = started.elapsed().as_secs_f64();
    Ok(Report {
        schema: SCHEMA.to_owned(),
        nemoc_version: env!("CARGO_PKG_VERSION").to_owned(),
        settings: Settings::default(),
        hardware: hardware::detect(device.description()),
        results: Default::default(),
        models: vec![measured, compared],
    })
}

fn draw(report: &Report) -> String {
    let mut models = table(&["model", "file>", "perplexity>", "mean KL>", "KL 99.9 %>", "same top 1>"]);
    for model in &report.models {
        let cell = |show: fn(&Divergence) -> String| model.divergence.as_ref().map_or_else(String::new, show);
        models.add_row([
            model.label(),
            bytes(model.artifact_bytes),
            model.perplexity.as_ref().map_or_else(String::new, |fact| format!("{:.3}", fact.perplexity)),
            cell(|found| format!("{:.5}", found.mean_kl)),
            cell(|found| format!("{:.4}", found.kl_p999)),
            cell(|found| format!("{:.2} %", 100.0 * found.top1_agreement)),
        ]);
    }
    let layers = report.models.first().map(layers_table).unwrap_or_default();
    let positions = report.models.first().map(positions_table).unwrap_or_default();
    format!("{models}\n{positions}{layers}")
}

/// How the divergence grows along a window, if there is more than one range of positions.
fn positions_table(model: &ModelReport) -> String {
    let ranges = model.divergence.as_ref().map_or(&[][..], |found| &found.by_position);
    if ranges.len() < 2 {
        return String::new();
    }
    let mut drawn = table(&["positions of a window", "mean KL>"]);
    for range in ranges {
        drawn.add_row([
            format!("{} to {}", count(range.start as u64), count(range.end as u64 - 1)),
            format!("{:.6}", range.mean_kl),
        ]);
    }
    format!("\n{drawn}\n")
}

/// What each layer adds to the error of the residual stream, whose parts add up as squares when they are independent.
fn layers_table(model: &ModelReport) -> String {
    let errors = &model.layer_errors;
    let Some(first) = errors.first() else {
        return "the residual streams of the two models cannot be compared: they have different bases\n".to_owned();
    };
    let mut layers = table(&["layer", "kind", "error of the residual stream after it>", "added>"]);
    let percent = |value: f64| format!("{:.2} %", 100.0 * value);
    layers.add_row(["embedding".to_owned(), String::new(), percent(*first), percent(*first)]);
    for (index, (pair, kind)) in errors.windows(2).zip(model.layer_pattern.chars()).enumerate() {
        let kind = match kind {
            'M' => "Mamba-2",
            '*' => "attention",
            _ => "MLP",
        };
        let squares = pair[1].powi(2) - pair[0].powi(2);
        layers.add_row([index.to_string(), kind.to_owned(), percent(pair[1]), percent(signed_root(squares))]);
    }
    format!("\n{layers}\n")
}

/// A layer may also take error away.
fn signed_root(value: f64) -> f64 {
    value.signum() * value.abs().sqrt()
}
