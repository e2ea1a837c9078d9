//! What `--phase auto` prints and writes.

use super::{Choice, Linear};
use crate::failure::Failure;
use crate::table::{bytes, count, table};
use passes::Precision;
use passes::budget::Cost;
use serde_json::{Value, json};

/// Points of the frontier that a table shows.
const SHOWN: usize = 9;

/// The linears, the totals and the frontier.
pub fn tables(choice: &Choice) -> String {
    let mut linears = table(&["linear", "output error>", "KL at 4 bits>", "KL at 8 bits>", "phase 3>", "chosen>"]);
    for (index, linear) in choice.linears.iter().enumerate() {
        let (small, large) = (loss(linear, Precision::W4a8), loss(linear, Precision::W8a8));
        let coarsest = linear.output_errors.first().map_or(0.0, |error| error.sqrt());
        linears.add_row([
            linear.candidate.name.clone(),
            format!("{:.2} %", 100.0 * coarsest),
            small.map_or_else(String::new, |loss| format!("{loss:.6}")),
            large.map_or_else(String::new, |loss| format!("{loss:.6}")),
            choice.phases[2][index].to_string(),
            choice.chosen[index].to_string(),
        ]);
    }
    let mut totals = table(&["", "artifact>", "sum of KL>"]);
    for (phase, precisions) in (1..).zip(&choice.phases) {
        totals.add_row(row(&format!("phase {phase}"), choice.cost(precisions)));
    }
    totals.add_row(row("chosen", choice.cost(&choice.chosen)));
    let mut curve = table(&["best for its size>", "sum of KL>"]);
    for point in shown(&choice.frontier()) {
        curve.add_row([bytes(point.bytes), format!("{:.5}", point.loss)]);
    }
    format!(
        "KL: what each weight alone, rounded by GPTQ, does to predictions, in nats, on {} tokens; output error: of its own \
         outputs, in the fewest bits it may have\n{linears}\n\n{totals}\n\n{curve}\n\nchosen: {} ({} bytes) of a budget of {} bytes\n",
        count(choice.tokens as u64),
        bytes(choice.file_bytes),
        count(choice.file_bytes),
        count(choice.budget)
    )
}

fn loss(linear: &Linear, precision: Precision) -> Option<f64> {
    linear.candidate.forms.iter().find(|(form, _)| *form == precision).map(|(_, cost)| cost.loss)
}

fn row(name: &str, cost: Cost) -> [String; 3] {
    [name.to_owned(), bytes(cost.bytes), format!("{:.5}", cost.loss)]
}

fn shown(frontier: &[Cost]) -> Vec<Cost> {
    let last = frontier.len() - 1;
    let count = SHOWN.min(frontier.len()).max(2);
    (0..count).map(|point| frontier[point * last / (count - 1)]).collect()
}

/// Everything, for scripts and plots.
pub fn json(choice: &Choice) -> Result<String, Failure> {
    let point = |cost: Cost| json!({ "bytes": cost.bytes, "divergence": cost.loss });
    let linear = |(index, linear): (usize, &Linear)| {
        let forms = linear.candidate.forms.iter().zip(&linear.output_errors).map(|((precision, cost), error)| {
            json!({
                "precision": precision, "bytes": cost.bytes, "divergence": cost.loss, "output_error": error.sqrt(),
            })
        });
        json!({
            "name": linear.candidate.name,
            "forms": forms.collect::<Vec<Value>>(),
            "phase_3": choice.phases[2][index],
            "chosen": choice.chosen[index],
        })
    };
    let linears: Vec<Value> = choice.linears.iter().enumerate().map(linear).collect();
    let [conservative, aggressive, mixed] = &choice.phases;
    let text = serde_json::to_string_pretty(&json!({
        "budget": choice.budget,
        "file_bytes": choice.file_bytes,
        "tokens": choice.tokens,
        "chosen": point(choice.cost(&choice.chosen)),
        "phases": {
            "1": point(choice.cost(conservative)),
            "2": point(choice.cost(aggressive)),
            "3": point(choice.cost(mixed)),
        },
        "linears": linears,
        "frontier": choice.frontier().into_iter().map(point).collect::<Vec<Value>>(),
    }))?;
    Ok(text + "\n")
}

/// The recipe, with what is worth knowing about it.
pub fn recipe(choice: &Choice) -> Result<String, Failure> {
    let (chosen, phase_3) = (choice.cost(&choice.chosen), choice.cost(&choice.phases[2]));
    Ok(format!(
        "# {}: chosen by nemoc compile --phase auto --budget {}.\n\
         # The artifact takes {} bytes; the linears alone diverge by {:.5} nats in sum, those of phase 3 by {:.5} in {} bytes.\n\
         # Later overrides win. Compile with --recipe and this file.\n{}",
        choice.model,
        choice.budget,
        choice.file_bytes,
        chosen.loss,
        phase_3.loss,
        phase_3.bytes,
        toml::to_string(&choice.recipe)?
    ))
}
