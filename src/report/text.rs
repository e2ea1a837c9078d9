//! The comparison as a table for the terminal and for a spreadsheet.

use super::data::{ModelReport, Report};
use crate::table::{bytes, table};

/// Tokens of context that the memory column stands for.
pub const MEMORY_CONTEXT: u64 = 8192;

/// A table with a row for each model.
pub fn draw(report: &Report) -> String {
    let columns = columns(report);
    let titles: Vec<&str> = columns.iter().map(|column| column.title.as_str()).collect();
    let mut drawn = table(&titles);
    for model in &report.models {
        drawn.add_row(columns.iter().map(|column| (column.show)(model).unwrap_or_default()));
    }
    let mut text = format!("{drawn}\n");
    if report.tasks().is_empty() {
        return text;
    }
    text += "tasks: acc_norm, or acc for winogrande and lambada_openai, in % ± standard error; average over tasks\n";
    text
}

struct Column {
    title: String,
    show: Box<Show>,
}

/// The text of a cell, if the model has one.
type Show = dyn Fn(&ModelReport) -> Option<String>;

fn column(title: impl Into<String>, show: impl Fn(&ModelReport) -> Option<String> + 'static) -> Column {
    Column { title: title.into(), show: Box::new(show) }
}

/// Columns that at least one model fills.
fn columns(report: &Report) -> Vec<Column> {
    let mut all = vec![
        column("model", |model| Some(model.label())),
        column("file>", |model| Some(bytes(model.artifact_bytes))),
        column("memory 8k>", |model| Some(bytes(model.memory_bytes(MEMORY_CONTEXT)))),
        column("perplexity>", |model| Some(format!("{:.3}", model.perplexity.as_ref()?.perplexity))),
        column("byte ppl>", |model| Some(format!("{:.4}", model.rolling?.byte_perplexity))),
        column("KL>", |model| Some(format!("{:.5}", model.divergence.as_ref()?.mean_kl))),
    ];
    for task in report.tasks() {
        let task = task.to_owned();
        all.push(column(format!("{task}>"), move |model| {
            let (value, error) = model.results.get(&task)?.metrics.main();
            Some(percent(value, error))
        }));
    }
    all.push(column("average>", |model| model.average.map(|average| percent(average.value, average.stderr))));
    all.push(column("prefill t/s>", |model| Some(format!("{:.0}", model.speed?.prefill_tokens_per_second))));
    all.push(column("decode t/s>", |model| Some(format!("{:.1}", model.speed?.decode_tokens_per_second))));
    all.push(column("time>", |model| Some(format!("{:.1} s", model.seconds))));
    all.retain(|column| report.models.iter().any(|model| (column.show)(model).is_some()));
    all
}

/// `61.2 ± 1.1`.
pub fn percent(value: f64, error: Option<f64>) -> String {
    match error {
        Some(error) => format!("{:.1} ± {:.1}", 100.0 * value, 100.0 * error),
        None => format!("{:.1}", 100.0 * value),
    }
}

/// One row a model and metric.
pub fn csv(report: &Report) -> Result<String, Box<dyn std::error::Error>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["model", "phase", "digest", "metric", "value", "stderr"])?;
    for model in &report.models {
        for (metric, value, error) in metrics(model) {
            let error = error.map_or_else(String::new, |error| error.to_string());
            writer.write_record([&model.name, &model.phase, &model.digest, &metric, &value.to_string(), &error])?;
        }
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

type MetricRow = (String, f64, Option<f64>);

fn metrics(model: &ModelReport) -> Vec<MetricRow> {
    let plain = |name: &str, value: f64| (name.to_owned(), value, None);
    let mut all = vec![
        plain("artifact_bytes", model.artifact_bytes as f64),
        plain("weight_bytes", model.footprint.weights as f64),
        plain("memory_bytes_8k", model.memory_bytes(MEMORY_CONTEXT) as f64),
    ];
    all.extend(model.perplexity.iter().map(|fact| plain("perplexity", fact.perplexity)));
    if let Some(fact) = &model.rolling {
        all.push(plain("word_perplexity", fact.word_perplexity));
        all.push(plain("byte_perplexity", fact.byte_perplexity));
    }
    if let Some(fact) = &model.divergence {
        all.push(plain("mean_kl", fact.mean_kl));
        all.push(plain("top1_agreement", fact.top1_agreement));
    }
    for (task, result) in &model.results {
        let metrics = &result.metrics;
        all.push((format!("{task}.acc"), metrics.acc, metrics.acc_stderr));
        all.extend(metrics.acc_norm.map(|value| (format!("{task}.acc_norm"), value, metrics.acc_norm_stderr)));
        all.extend(metrics.perplexity.map(|value| (format!("{task}.perplexity"), value, metrics.perplexity_stderr)));
    }
    all.extend(model.average.map(|average| ("average".to_owned(), average.value, average.stderr)));
    if let Some(speed) = &model.speed {
        all.push(plain("prefill_tokens_per_second", speed.prefill_tokens_per_second));
        all.push(plain("decode_tokens_per_second", speed.decode_tokens_per_second));
    }
    all.push(plain("seconds", model.seconds));
    all
}
