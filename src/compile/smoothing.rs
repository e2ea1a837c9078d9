//! `[smooth] alpha = "search"`: from what calibration measured to a recipe that has a number for each activation.

use crate::failure::{Failure, warn};
use crate::pipeline::compiled;
use crate::progress::count_bar;
use crate::table::table;
use codegen::smoothing::{ShareCost, Smoothed, best, share_costs};
use frontend::Checkpoint;
use ir::weights::TensorSource;
use passes::recipe::{Alpha, Smoothing};
use passes::{Phase, PipelineOptions, Recipe};

/// What alpha is chosen from.
fn shares() -> Vec<f64> {
    (0..=10).map(|tenths| f64::from(tenths) / 10.0).collect()
}

/// Where the recipe asks for it, searches, and writes what it found into the recipe; the text says what that was. The
/// source has the tensors that calibration adds.
pub fn search(
    checkpoint: &Checkpoint,
    source: &dyn TensorSource,
    options: &mut PipelineOptions,
) -> Result<String, Failure> {
    let mut recipe = options.recipe();
    if recipe.smooth.alpha != Alpha::Search || recipe.smooth.enabled == Some(false) || recipe.phase == Phase::Reference
    {
        return Ok(String::new());
    }
    let Some(statistics) = options.statistics.clone() else {
        warn("without calibration nothing is smoothed, and alpha is not searched for");
        return Ok(String::new());
    };
    recipe.smooth.alpha = Smoothing::default().alpha;
    let at_half = PipelineOptions { recipe: Some(recipe.clone()), ..options.clone() };
    let (compiled, _) = compiled(checkpoint, passes::pipeline(&at_half))?;
    let bar = count_bar("smoothing");
    let found =
        share_costs((&compiled.weights, &compiled.parameters), source, &statistics, &shares(), &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })?;
    bar.finish_and_clear();
    let text = show(&found, &recipe);
    for Smoothed { name, costs } in &found {
        if let Some(best) = best(costs) {
            recipe.smooth.alphas.entry(name.clone()).or_insert(best.alpha);
        }
    }
    options.recipe = Some(recipe);
    Ok(text)
}

/// What was found, and what half of the range would have cost.
fn show(found: &[Smoothed], recipe: &Recipe) -> String {
    let percent = |errors: f64, of: &ShareCost| format!("{:.3} %", 100.0 * errors / of.outputs.max(f64::MIN_POSITIVE));
    let mut drawn =
        table(&["smoothed input of", "alpha>", "expected error>", "at alpha 0.5>", "weights>", "activations>"]);
    for Smoothed { name, costs } in found {
        if recipe.smooth.alphas.contains_key(name) {
            continue;
        }
        let Some(best) = best(costs) else { continue };
        let part = |errors: f64| format!("{:.0} %", 100.0 * errors / best.errors().max(f64::MIN_POSITIVE));
        drawn.add_row([
            name.clone(),
            best.alpha.to_string(),
            percent(best.errors(), &best),
            costs.iter().find(|cost| cost.alpha == 0.5).map_or_else(String::new, |half| percent(half.errors(), &best)),
            part(best.weights + best.source),
            part(best.activations),
        ]);
    }
    format!("alpha of smoothing; errors: energy relative to that of the outputs, rounded to nearest\n{drawn}\n\n")
}
