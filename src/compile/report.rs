//! What `compile` prints.

use super::Planned;
use crate::calibrate::Session;
use crate::inspect::memory;
use crate::table::{bytes, count, elapsed, table};
use codegen::calibrate::Rounded;
use codegen::weights::{Contents, Summary};
use frontend::Checkpoint;
use ir::manager::PassStatus;
use ir::weights::StorageFormat;
use std::fmt::Write;
use std::time::Duration;

/// What is known before weights are read.
pub fn plan(checkpoint: &Checkpoint, planned: &Planned, time: Duration) -> String {
    let model = &planned.compiled.plan.model;
    let ran = planned.passes.passes.iter().filter(|run| run.status != PassStatus::Skipped).count();
    let ops = planned.passes.passes.first().map_or(0, |run| run.ops_before);
    format!(
        "{}, {} parameters, layers {}\n\
         phase {}: {ops} ops, {ran} passes in {}, {} launches a step; checked, imported and planned in {}\n{}\n",
        model.name,
        count(checkpoint.parameters()),
        model.layer_pattern,
        model.phase,
        elapsed(planned.passes.total_time()),
        planned.compiled.plan.launches.len(),
        elapsed(time),
        memory(&planned.compiled.plan),
    )
}

/// What calibration did.
pub fn calibrated(rounded: &Rounded, session: &Session, time: Duration) -> String {
    if rounded.linears.is_empty() {
        return "calibrated: no weight is rounded by GPTQ\n".to_owned();
    }
    let head = rounded.linears.last().map_or_else(String::new, |head| {
        format!("; the input of {} is off by {:.2} %", head.name, 100.0 * head.input_error)
    });
    let (weights, tokens) = (rounded.linears.len(), count(session.tokens() as u64));
    let (time, place) = (elapsed(time), session.place());
    format!("calibrated: {weights} weights rounded by GPTQ on {tokens} tokens in {time}, the models on {place}{head}\n")
}

/// Sizes by storage format, without weights.
pub fn planned_sizes(contents: &Contents<'_>, file_bytes: u64) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for weight in contents.weights {
        let format = format_name(weight.format);
        match counts.iter_mut().find(|(name, _)| *name == format) {
            Some((_, count)) => *count += 1,
            None => counts.push((format, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(format, count)| format!("{count} in {format}")).collect();
    format!(
        "planned artifact: {} ({} bytes); linears and embedding: {}{}\n",
        bytes(file_bytes),
        count(file_bytes),
        counts.join(", "),
        peak_memory().map_or_else(String::new, |peak| format!("; peak memory {}", bytes(peak)))
    )
}

/// What was written.
pub fn written(checkpoint: &Checkpoint, summary: &Summary, time: Duration) -> String {
    let input: u64 = checkpoint.files().iter().map(|(_, size)| size).sum();
    let threads = rayon::current_num_threads();
    let rate = input as f64 / time.as_secs_f64();
    let mut text = format!("{}\n", formats(summary));
    let _ = writeln!(
        text,
        "{}: {}, {:.1} % of the checkpoint's {}",
        summary.path.display(),
        bytes(summary.file_bytes),
        100.0 * summary.file_bytes as f64 / input.max(1) as f64,
        bytes(input)
    );
    let _ = writeln!(
        text,
        "weights in {}: {}/s of input, {}/s a core on {threads}{}",
        elapsed(time),
        bytes(rate as u64),
        bytes((rate / threads as f64) as u64),
        peak_memory().map_or_else(String::new, |peak| format!("; peak memory {}", bytes(peak)))
    );
    text
}

/// One row a storage format.
struct Row {
    format: String,
    weights: usize,
    parameters: u64,
    stored: u64,
    squared_error: f64,
    squared_values: f64,
}

fn formats(summary: &Summary) -> String {
    let mut rows: Vec<Row> = Vec::new();
    for weight in &summary.weights {
        let format = format_name(weight.format);
        let at = rows.iter().position(|row| row.format == format).unwrap_or_else(|| {
            let (weights, parameters, stored) = (0, 0, 0);
            rows.push(Row { format, weights, parameters, stored, squared_error: 0.0, squared_values: 0.0 });
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.weights += 1;
        row.parameters += weight.shape.iter().map(|&n| n as u64).product::<u64>();
        row.stored += weight.stored_bytes as u64;
        row.squared_error += weight.error.squared_error;
        row.squared_values += weight.error.squared_weight;
    }
    let mut drawn = table(&["linears, embedding", "number>", "parameters>", "bytes>", "bits each>", "relative error>"]);
    for row in rows {
        drawn.add_row([
            row.format,
            row.weights.to_string(),
            count(row.parameters),
            bytes(row.stored),
            format!("{:.2}", 8.0 * row.stored as f64 / row.parameters as f64),
            format!("{:.4} %", 100.0 * (row.squared_error / row.squared_values.max(f64::MIN_POSITIVE)).sqrt()),
        ]);
    }
    drawn.to_string()
}

fn format_name(format: StorageFormat) -> String {
    match format {
        StorageFormat::Float { dtype } => format!("{dtype:?}").to_lowercase(),
        StorageFormat::W8 => "8 bit, scale per row".to_owned(),
        StorageFormat::W4TwoLevel { group_size } => format!("4 bit, two-level, groups of {group_size}"),
        StorageFormat::W4Group { group_size } => format!("4 bit, f16 groups of {group_size}"),
    }
}

/// The most memory this process has held, mapped pages of the checkpoint included.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
