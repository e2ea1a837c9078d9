//! `nemoc report`: results of several runs as one page, and what `eval` prints and writes.

pub mod charts;
pub mod data;
pub mod html;
pub mod text;

use crate::failure::{Failure, Outcome};
use data::{Report, SCHEMA};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Join results of `nemoc eval` into one table and one HTML page.
#[derive(clap::Args)]
pub struct Arguments {
    /// Results that `nemoc eval -o` wrote.
    #[arg(value_name = "RESULTS.json", required = true)]
    results: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Where a comparison goes besides the terminal.
#[derive(clap::Args)]
pub struct Output {
    /// One HTML page with plots; it needs no network.
    #[arg(short = 'o', long = "html", visible_alias = "output", value_name = "REPORT.html")]
    html: Option<PathBuf>,
    /// One line a model and metric.
    #[arg(long, value_name = "F.csv")]
    csv: Option<PathBuf>,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let reports: Result<Vec<Report>, Failure> = arguments.results.iter().map(|path| read(path)).collect();
    let report = join(reports?);
    let Output { html, csv, json } = &arguments.output;
    show(&report, *json)?;
    write_files(&report, html.as_deref(), csv.as_deref())
}

/// Prints a report.
pub fn show(report: &Report, json: bool) -> Outcome {
    let text = if json { report.to_json()? } else { text::draw(report) };
    anstream::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Writes the page and the CSV.
pub fn write_files(report: &Report, html: Option<&Path>, csv: Option<&Path>) -> Outcome {
    if let Some(path) = html {
        write(path, &html::page(report))?;
    }
    if let Some(path) = csv {
        let text = text::csv(report).map_err(|error| Failure::at(path.display(), error))?;
        write(path, &text)?;
    }
    Ok(())
}

/// Writes a file; it appears under its name when it is complete.
pub fn write(path: &Path, text: &str) -> Outcome {
    let partial = path.with_added_extension("writing");
    let written = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|error| {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&partial);
        Failure::at(path.display(), format!("cannot write: {error}\nhelp: check the folder and the space on the disk"))
    })
}

/// Reads what `nemoc eval -o` wrote.
pub fn read(path: &Path) -> Result<Report, Failure> {
    let at = |message: String| Failure::at(path.display(), message);
    let text = std::fs::read_to_string(path).map_err(|error| {
        at(format!("cannot read the results: {error}\nhelp: give a file that `nemoc eval -o` wrote"))
    })?;
    let value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| at(format!("the results are no JSON: {error}\nhelp: was the file cut off? evaluate again")))?;
    let schema = value.get("schema").and_then(|schema| schema.as_str()).unwrap_or("missing");
    if schema != SCHEMA {
        return Err(at(format!("the schema of the results is {schema}, expected {SCHEMA}\nhelp: evaluate again")));
    }
    let mut report: Report = serde_json::from_value(value)
        .map_err(|error| at(format!("the results do not fit their schema: {error}\nhelp: evaluate again")))?;
    let results = std::mem::take(&mut report.results);
    if let Some(first) = report.models.first_mut() {
        first.results = results;
    }
    Ok(report)
}

/// All models of all reports; settings and hardware are those of the first.
fn join(reports: Vec<Report>) -> Report {
    let mut reports = reports.into_iter();
    let mut joined = reports.next().expect("clap asks for at least one file");
    joined.models.extend(reports.flat_map(|report| report.models));
    joined
}
