//! The choice of `--phase auto` as one page that needs nothing else.

use super::Choice;
use crate::report::charts::{Axes, Point, escape, frontier};
use crate::report::html::{document, figure, mebibytes};
use crate::table::{bytes, count};
use std::fmt::Write;

/// The whole page.
pub fn page(choice: &Choice) -> String {
    let title = escape(&format!("{}: precision under a budget", choice.model));
    let intro = format!(
        "<h1>{title}</h1><p class=\"soft\">{} of a budget of {}. Divergence of the predictions when one weight alone is \
         rounded by GPTQ, measured on {} tokens of the calibration text, and added up.</p>",
        bytes(choice.file_bytes),
        bytes(choice.budget),
        count(choice.tokens as u64)
    );
    document(&title, &format!("{intro}<div class=\"cards\">{}</div>{}", chart(choice), table(choice)))
}

const MEBIBYTE: f64 = (1 << 20) as f64;

fn chart(choice: &Choice) -> String {
    let curve: Vec<(f64, f64)> =
        choice.frontier().iter().map(|point| (point.bytes as f64 / MEBIBYTE, point.loss)).collect();
    let names = ["phase 1", "phase 2", "phase 3"].into_iter().zip(&choice.phases);
    let points: Vec<Point> = names
        .chain([("chosen", &choice.chosen)])
        .map(|(label, precisions)| {
            let cost = choice.cost(precisions);
            Point { label: label.to_owned(), x: cost.bytes as f64 / MEBIBYTE, y: cost.loss, error: None }
        })
        .collect();
    let axes = Axes {
        x: "size of the artifact",
        y: "sum of divergences, nats (less is better)",
        show_x: mebibytes,
        show_y: |value| format!("{value:.3}"),
    };
    let caption = "The dashed line is the least sum that any choice of precisions reaches in so many bytes.";
    figure("Loss against bytes", &frontier(&curve, &points, &axes), "", caption)
}

fn table(choice: &Choice) -> String {
    let mut rows = String::new();
    for (index, linear) in choice.linears.iter().enumerate() {
        let costs: Vec<String> = linear
            .candidate
            .forms
            .iter()
            .map(|(precision, cost)| format!("{precision} {:.6} in {}", cost.loss, bytes(cost.bytes)))
            .collect();
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&linear.candidate.name),
            costs.join("; "),
            choice.phases[2][index],
            choice.chosen[index]
        );
    }
    format!(
        "<section><div class=\"wide\"><table><thead><tr><th>weight</th><th>divergence and size</th><th>phase 3</th>\
         <th>chosen</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )
}
