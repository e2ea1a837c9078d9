//! `nemoc eval`: perplexity, and the divergence from a baseline.

use crate::device;
use crate::failure::{Failure, Outcome};
use crate::progress::count_bar;
use runtime::eval::{Comparison, Perplexity, Windows, compare, perplexity};
use runtime::generate::StepArgs;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// Measure perplexity on a text, and how far a model is from a baseline.
#[derive(clap::Args)]
pub struct Arguments {
    /// The artifact.
    #[arg(value_name = "M.nemo")]
    artifact: PathBuf,
    /// The text.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Compare with this artifact of the same model, usually phase 0: mean KL divergence and agreement.
    #[arg(long, value_name = "REF.nemo")]
    baseline: Option<PathBuf>,
    /// Tokens of a window; each window starts from a fresh state.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..1 << 24))]
    window: u32,
    /// Most windows [default: the whole text].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    windows: Option<u32>,
    /// For scripts.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    step: StepArgs,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let text = std::fs::read_to_string(&arguments.text).map_err(|error| {
        Failure::at(arguments.text.display(), format!("cannot read the text: {error}\nhelp: give a UTF-8 text file"))
    })?;
    let artifact = device::open(&arguments.artifact)?;
    let tokens = device::tokenizer(&artifact, &arguments.artifact)?.encode(&text)?;
    let windows = Windows {
        size: arguments.window as usize,
        count: arguments.windows.map(|count| count as usize),
        ..Windows::default()
    };
    let mut device = device::cpu(&artifact, &arguments.step)?;
    let bar = count_bar("windows");
    let mut progress = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let (value, text) = match &arguments.baseline {
        None => {
            let result = perplexity(&mut device, &tokens, &windows, &mut progress)?;
            (as_json(&result), draw(&result))
        }
        Some(path) => {
            let reference = device::open(path)?;
            let mut reference = device::cpu(&reference, &arguments.step)?;
            let result = compare(&mut reference, &mut device, &tokens, &windows, &mut progress)?;
            (comparison_as_json(&result), draw_comparison(&result))
        }
    };
    bar.finish_and_clear();
    let printed = if arguments.json { serde_json::to_string_pretty(&value)? + "\n" } else { text };
    anstream::stdout().write_all(printed.as_bytes())?;
    Ok(())
}

fn as_json(result: &Perplexity) -> serde_json::Value {
    json!({
        "windows": result.windows,
        "tokens": result.tokens,
        "mean_nll": result.mean_nll,
        "perplexity": result.perplexity(),
    })
}

fn draw(result: &Perplexity) -> String {
    format!("perplexity {:.3} over {} tokens, {} windows\n", result.perplexity(), result.tokens, result.windows)
}

fn comparison_as_json(result: &Comparison) -> serde_json::Value {
    json!({
        "baseline": as_json(&result.reference),
        "model": as_json(&result.model),
        "positions": result.positions,
        "mean_kl": result.mean_kl,
        "kl_p999": result.kl_p999,
        "top1_agreement": result.top1_agreement,
    })
}

fn draw_comparison(result: &Comparison) -> String {
    format!(
        "model:    {}baseline: {}mean KL(baseline || model) {:.6} over {} positions, 99.9 % below {:.4}\n\
         same likeliest token at {:.2} % of the positions\n",
        draw(&result.model),
        draw(&result.reference),
        result.mean_kl,
        result.positions,
        result.kl_p999,
        100.0 * result.top1_agreement
    )
}
