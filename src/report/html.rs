//! The comparison as one page that needs nothing else.

use super::charts::{Axes, Point, escape, lines, memory_split, pareto, precision_map, speeds};
use super::data::{ModelReport, Report};
use super::text::MEMORY_CONTEXT;
use crate::table::{bytes, count};
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn page(report: &Report) -> String {
    let body = [
        header(report),
        summary(report),
        format!("<div class=\"cards\">{}</div>", cards(report)),
        precision(report),
        task_details(report),
        provenance(report),
    ];
    document(&title(report), &body.concat())
}

/// A page of this title and body, in the house style.
pub fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n",
    )
}

fn title(report: &Report) -> String {
    let mut names: Vec<&str> = report.models.iter().map(|model| model.name.as_str()).collect();
    names.dedup();
    escape(&format!("{}: accuracy, size and speed", names.join(", ")))
}

fn header(report: &Report) -> String {
    let settings = &report.settings;
    let limit = settings.limit.map_or_else(String::new, |limit| format!(", first {limit} documents of each task"));
    let tasks = if settings.tasks.is_empty() { "no tasks".to_owned() } else { settings.scoring.clone() };
    format!(
        "<h1>{}</h1><p class=\"soft\">nemoc {} on {}. {}{limit}.</p>",
        title(report),
        escape(&report.nemoc_version),
        escape(&report.hardware.device),
        escape(&tasks)
    )
}

/// Name and color of every model.
fn key(models: &[ModelReport]) -> String {
    let entries: String = models
        .iter()
        .enumerate()
        .map(|(index, model)| {
            format!("<li class=\"c{}\"><i></i><span>{}</span></li>", index % 8, escape(&model.label()))
        })
        .collect();
    format!("<ul class=\"key\">{entries}</ul>")
}

fn cell(value: Option<(f64, Option<f64>)>) -> String {
    match value {
        None => "<td></td>".to_owned(),
        Some((value, None)) => format!("<td>{:.1}</td>", 100.0 * value),
        Some((value, Some(error))) => {
            format!("<td>{:.1} <span class=\"error\">± {:.1}</span></td>", 100.0 * value, 100.0 * error)
        }
    }
}

fn summary(report: &Report) -> String {
    let tasks = report.tasks();
    let has = |test: fn(&ModelReport) -> bool| report.models.iter().any(test);
    let (perplexity, divergence) = (has(|model| model.perplexity.is_some()), has(|model| model.divergence.is_some()));
    let (average, speed) = (has(|model| model.average.is_some()), has(|model| model.speed.is_some()));
    let mut head = "<th>model</th><th>file</th><th>memory, 8k</th>".to_owned();
    let mut add = |given: bool, name: &str| {
        if given {
            let _ = write!(head, "<th>{}</th>", escape(name));
        }
    };
    add(perplexity, "perplexity");
    add(divergence, "mean KL");
    tasks.iter().for_each(|task| add(true, task));
    add(average, "average");
    add(speed, "prefill t/s");
    add(speed, "decode t/s");
    let mut rows = String::new();
    for model in &report.models {
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td>",
            escape(&model.label()),
            bytes(model.artifact_bytes),
            bytes(model.memory_bytes(MEMORY_CONTEXT))
        );
        let plain = |value: Option<String>| format!("<td>{}</td>", value.unwrap_or_default());
        if perplexity {
            rows += &plain(model.perplexity.as_ref().map(|fact| format!("{:.3}", fact.perplexity)));
        }
        if divergence {
            rows += &plain(model.divergence.as_ref().map(|fact| format!("{:.5}", fact.mean_kl)));
        }
        for task in &tasks {
            rows += &cell(model.results.get(*task).map(|result| result.metrics.main()));
        }
        if average {
            rows += &cell(model.average.map(|average| (average.value, average.stderr)));
        }
        if speed {
            rows += &plain(model.speed.map(|speed| format!("{:.0}", speed.prefill_tokens_per_second)));
            rows += &plain(model.speed.map(|speed| format!("{:.1}", speed.decode_tokens_per_second)));
        }
        rows += "</tr>";
    }
    let note = "Tasks in % with standard error: acc_norm, or acc where the harness reports no other. \
                Memory is for one sequence of 8192 tokens.";
    format!(
        "<section><div class=\"wide\"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div><p class=\"note\">{note}</p></section>"
    )
}

/// A plot with its title, key and caption.
pub fn figure(title: &str, svg: &str, key: &str, caption: &str) -> String {
    format!("<figure><h2>{title}</h2>{svg}{key}<figcaption>{caption}</figcaption></figure>")
}

/// Sizes on an axis are in MiB, so that its ticks are round.
pub fn mebibytes(value: f64) -> String {
    if value >= 2048.0 { format!("{:.1} GiB", value / 1024.0) } else { format!("{value:.0} MiB") }
}

fn cards(report: &Report) -> String {
    let mut all = String::new();
    all += &accuracy_card(report).unwrap_or_default();
    all += &divergence_card(report).unwrap_or_default();
    all += &memory_cards(report);
    all += &roofline_card(report);
    all += &measured_card(report).unwrap_or_default();
    all += &layer_error_card(report).unwrap_or_default();
    all
}

fn points(report: &Report, y: impl Fn(&ModelReport) -> Option<(f64, Option<f64>)>) -> Option<Vec<Point>> {
    let point = |model: &ModelReport| {
        let (y, error) = y(model)?;
        Some(Point { label: model.label(), x: model.artifact_bytes as f64 / (1 << 20) as f64, y, error })
    };
    let points: Vec<Point> = report.models.iter().filter_map(point).collect();
    (!points.is_empty()).then_some(points)
}

fn accuracy_card(report: &Report) -> Option<String> {
    let points = points(report, |model| model.average.map(|average| (average.value, average.stderr)))?;
    let axes = Axes {
        x: "size of the artifact",
        y: "average over tasks, %",
        show_x: mebibytes,
        show_y: |value| format!("{:.1}", 100.0 * value),
    };
    let caption = "Bars are standard errors of the average. The dashed line joins what no other model beats.";
    Some(figure("Accuracy against bytes", &pareto(&points, &axes), "", caption))
}

fn divergence_card(report: &Report) -> Option<String> {
    let points = points(report, |model| model.divergence.as_ref().map(|fact| (-fact.mean_kl, None)))?;
    let axes = Axes {
        x: "size of the artifact",
        y: "mean KL from the baseline, nats (less is up)",
        show_x: mebibytes,
        show_y: |value| format!("{:.3}", value.abs()),
    };
    let caption = "Divergence of the predicted distributions on the same text: less noisy than task accuracy.";
    Some(figure("Divergence against bytes", &pareto(&points, &axes), "", caption))
}

fn memory_cards(report: &Report) -> String {
    let parts = ["weights", "keys and values", "states", "buffers"];
    let key: String = parts
        .iter()
        .enumerate()
        .map(|(color, name)| format!("<li class=\"c{color}\"><i></i><span>{name}</span></li>"))
        .collect();
    let plots: String = report
        .models
        .iter()
        .map(|model| format!("<h3>{}</h3>{}", escape(&model.label()), memory_split(&model.footprint)))
        .collect();
    let caption = "Shares of what one sequence needs, by length of its context; steps of 512 rows.";
    figure("Memory against context", &plots, &format!("<ul class=\"key\">{key}</ul>"), caption)
}

fn roofline_card(report: &Report) -> String {
    let mut rows = Vec::new();
    let mut targets: Vec<&str> = Vec::new();
    for predicted in report.models.iter().flat_map(|model| &model.predicted) {
        if !targets.contains(&predicted.target.as_str()) {
            targets.push(&predicted.target);
        }
    }
    for target in targets {
        for (color, model) in report.models.iter().enumerate() {
            for predicted in model.predicted.iter().filter(|predicted| predicted.target == target) {
                let speed = predicted.decode_tokens_per_second;
                rows.push((format!("{target}, {}", model.label()), color, speed, format!("{speed:.0} t/s")));
            }
        }
    }
    let caption = "What the cost model expects of decoding one sequence: bytes over bandwidth or operations over peak, \
                   plus the launches. A prediction, not a measurement.";
    figure("Roofline: predicted decode", &speeds(&rows), &key(&report.models), caption)
}

fn measured_card(report: &Report) -> Option<String> {
    let bandwidth = report.hardware.read_bytes_per_second?;
    let mut rows = Vec::new();
    for (color, model) in report.models.iter().enumerate() {
        let speed = model.speed?;
        let roof = bandwidth / speed.decode_bytes.max(1) as f64;
        let measured = speed.decode_tokens_per_second;
        rows.push((format!("{}, roof", model.label()), 7, roof, format!("{roof:.0} t/s")));
        let share = 100.0 * measured / roof;
        rows.push((
            format!("{}, measured", model.label()),
            color,
            measured,
            format!("{measured:.0} t/s, {share:.0} %"),
        ));
    }
    let caption = format!(
        "Decoding one sequence on {}: measured, and the bytes of a token over the {:.1} GB/s that plain reads reached. \
         A model that fits the caches may beat that roof.",
        escape(&report.hardware.device),
        bandwidth / 1e9
    );
    Some(figure("Roofline: measured decode", &speeds(&rows), "", &caption))
}

fn layer_error_card(report: &Report) -> Option<String> {
    let series: Vec<(usize, String, &[f64])> = report
        .models
        .iter()
        .enumerate()
        .filter(|(_, model)| !model.layer_errors.is_empty())
        .map(|(color, model)| (color, model.label(), model.layer_errors.as_slice()))
        .collect();
    if series.is_empty() {
        return None;
    }
    let axes = Axes {
        x: "layer",
        y: "relative error of the residual stream, %",
        show_x: |value| format!("{value:.0}"),
        show_y: |value| format!("{:.1}", 100.0 * value),
    };
    let caption = "Before each layer, against the baseline, over the first tokens of the text. A rotated residual stream \
                   is rotated back first.";
    Some(figure("Error by layer", &lines(&series, &axes), &key(&report.models), caption))
}

fn precision(report: &Report) -> String {
    let maps: String = report
        .models
        .iter()
        .map(|model| {
            format!(
                "<h3>{}</h3><div class=\"wide\">{}</div>",
                escape(&model.label()),
                precision_map(&model.layer_pattern, &model.linears)
            )
        })
        .collect();
    let bits: String = [32, 16, 8, 4]
        .into_iter()
        .filter(|bits| report.models.iter().flat_map(|model| &model.linears).any(|linear| linear.bits == *bits))
        .map(|bits| format!("<li class=\"bits{bits}\"><i></i><span>{bits}-bit weights</span></li>"))
        .collect();
    format!(
        "<section><h2>Precision by layer</h2>{maps}<ul class=\"key\">{bits}</ul><p class=\"note\">A column is a layer (M \
         Mamba-2, - MLP, * attention), a row one of its linears.</p></section>"
    )
}

fn task_details(report: &Report) -> String {
    let mut rows = String::new();
    for model in &report.models {
        for (task, result) in &model.results {
            let metrics = &result.metrics;
            let _ = write!(
                rows,
                "<tr><td>{}</td><td>{task}</td><td>{}</td>{}{}<td>{}</td></tr>",
                escape(&model.label()),
                count(result.documents as u64),
                cell(Some((metrics.acc, metrics.acc_stderr))),
                cell(metrics.acc_norm.map(|value| (value, metrics.acc_norm_stderr))),
                metrics.perplexity.map_or_else(String::new, |value| format!("{value:.2}"))
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<section><h2>Tasks</h2><div class=\"wide\"><table class=\"names\"><thead><tr><th>model</th><th>task</th><th>documents</th>\
         <th>acc</th><th>acc_norm</th><th>perplexity</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )
}

fn provenance(report: &Report) -> String {
    let mut text = "<section><h2>Where this comes from</h2>".to_owned();
    let hardware = &report.hardware;
    let machine = format!("{}, {} cores, {}", hardware.cpu, hardware.cores, bytes(hardware.memory_bytes));
    let _ = write!(text, "<dl><dt>machine</dt><dd>{}</dd>", escape(&machine));
    for gpu in &hardware.gpus {
        let _ = write!(text, "<dt>GPU</dt><dd>{}</dd>", escape(gpu));
    }
    text += "</dl>";
    for model in &report.models {
        let _ = write!(
            text,
            "<h3>{}</h3><dl><dt>artifact</dt><dd>{}, {}, {}</dd><dt>source</dt><dd>{}, {}, {} parameters</dd><dt>compiler</dt>\
             <dd>nemoc {}: {}</dd></dl>",
            escape(&model.label()),
            escape(&model.file),
            bytes(model.artifact_bytes),
            escape(&model.digest),
            escape(&model.source),
            escape(&model.source_digest),
            count(model.parameters),
            escape(&model.compiler_version),
            escape(&model.passes.join(", "))
        );
    }
    text + "</section>"
}
