//! `compile --phase auto`: which precision each linear gets, so that an artifact of so many bytes loses least.

mod page;
mod show;

use crate::calibrate::{Sensitivities, Session};
use crate::failure::{Failure, Outcome, warn};
use crate::report::write;
use crate::table::{bytes, count};
use codegen::calibrate::Sensitivity;
use frontend::Checkpoint;
use ir::weights::{StorageFormat, StoredWeight, TensorSource};
use passes::allocate::{Candidate, allocate, cost, frontier, range};
use passes::budget::Cost;
use passes::exceptions::{is_exception, needs_8_bits, precisions, with_precisions};
use passes::{Phase, PipelineOptions, Precision, Recipe};
use runtime::generate::parse_bytes;
use std::io::Write;
use std::path::PathBuf;

/// Points of the frontier that are kept, on each side of all 8 bits.
const FRONTIER: usize = 48;
/// The plan and the recipe, which the artifact also holds, differ a little from choice to choice.
const ATTEMPTS: usize = 8;

/// What `--phase auto` is told.
#[derive(clap::Args)]
#[command(next_help_heading = "With --phase auto")]
pub struct AutoArguments {
    /// Most bytes of the artifact, all that is in it, for example 5.5GiB [default: those of phase 3].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    budget: Option<u64>,
    /// Write the recipe that was chosen: read it, edit it, give it to --recipe.
    #[arg(long, value_name = "R.toml")]
    save_recipe: Option<PathBuf>,
    /// Print what was chosen, and from what, as JSON, and nothing else.
    #[arg(long)]
    pub json: bool,
    /// One HTML page with what was chosen and the best loss for every size; it needs no network.
    #[arg(long, value_name = "PAGE.html")]
    html: Option<PathBuf>,
}

impl AutoArguments {
    /// An option that says nothing without `--phase auto`.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            ("--budget", self.budget.is_some()),
            ("--save-recipe", self.save_recipe.is_some()),
            ("--json", self.json),
            ("--html", self.html.is_some()),
        ];
        given.iter().find(|(_, is_given)| *is_given).map(|(name, _)| *name)
    }

    /// Tells the user what was chosen.
    pub fn report(&self, choice: &Choice) -> Outcome {
        if let Some(path) = &self.save_recipe {
            write(path, &show::recipe(choice)?)?;
        }
        if let Some(path) = &self.html {
            write(path, &page::page(choice))?;
        }
        let text = if self.json { show::json(choice)? } else { show::tables(choice) };
        anstream::stdout().write_all(text.as_bytes())?;
        Ok(())
    }
}

/// A model whose precisions are to be chosen.
pub struct Model<'a> {
    pub checkpoint: &'a Checkpoint,
    pub source: &'a dyn TensorSource,
    pub session: &'a Session,
    pub options: &'a PipelineOptions,
    /// Bytes of the whole artifact under a recipe.
    pub file_bytes: &'a dyn Fn(&Recipe) -> Result<u64, Failure>,
}

/// What is chosen, and what it was chosen from.
pub struct Choice {
    /// Of the model, for titles.
    model: String,
    /// Tokens that divergence was measured on.
    tokens: usize,
    linears: Vec<Linear>,
    /// What phases 1 to 3 give.
    phases: [Vec<Precision>; 3],
    chosen: Vec<Precision>,
    /// Everything in the artifact but the linears.
    fixed_bytes: u64,
    budget: u64,
    /// Planned size of the artifact.
    file_bytes: u64,
    /// The whole choice as a recipe.
    pub recipe: Recipe,
}

/// A linear, its costs and its errors.
struct Linear {
    candidate: Candidate,
    /// In the order of the candidate's forms: relative energy of the error of its outputs.
    output_errors: Vec<f64>,
}

impl Choice {
    fn candidates(&self) -> Vec<Candidate> {
        self.linears.iter().map(|linear| linear.candidate.clone()).collect()
    }

    /// Of the whole artifact.
    fn cost(&self, precisions: &[Precision]) -> Cost {
        self.whole(cost(&self.candidates(), precisions))
    }

    fn whole(&self, linears: Cost) -> Cost {
        Cost { bytes: linears.bytes + self.fixed_bytes, ..linears }
    }

    /// The best loss over bytes.
    fn frontier(&self) -> Vec<Cost> {
        frontier(&self.candidates(), FRONTIER).into_iter().map(|point| self.whole(point)).collect()
    }
}

/// Measures what each linear costs in each precision and chooses.
pub fn choose(arguments: &AutoArguments, model: &Model<'_>) -> Result<Choice, Failure> {
    let base = Recipe { phase: Phase::Mixed, ..model.options.recipe() };
    let formats = |weight: &StoredWeight| forms(&base, weight).into_iter().map(|(_, format)| format).collect();
    let found: Sensitivities = model.session.sensitivities(model.checkpoint, model.source, model.options, &formats)?;
    let linears: Vec<Linear> = found.weights.iter().map(|(weight, costs)| linear(&base, weight, costs)).collect();
    let names: Vec<String> = linears.iter().map(|linear| linear.candidate.name.clone()).collect();
    let candidates: Vec<Candidate> = linears.iter().map(|linear| linear.candidate.clone()).collect();
    let of_phase = |phase: Phase| -> Result<Vec<Precision>, Failure> {
        let decided = precisions(&Recipe { phase, ..base.clone() }, &names)?;
        Ok(names.iter().map(|name| decided[name]).collect())
    };
    let phases = [of_phase(Phase::Conservative)?, of_phase(Phase::Aggressive)?, of_phase(Phase::Mixed)?];
    let given = &phases[2];
    let phase_3 = (model.file_bytes)(&base)?;
    let fixed_bytes = phase_3.saturating_sub(cost(&candidates, given).bytes);
    let budget = arguments.budget.unwrap_or(phase_3);
    let limits = range(&candidates);
    let limits = (limits.0 + fixed_bytes, limits.1 + fixed_bytes);
    if budget > limits.1 {
        warn(&format!(
            "a budget of {} is more than there is use for: choices take {} to {}",
            bytes(budget),
            bytes(limits.0),
            bytes(limits.1)
        ));
    }
    let mut room = budget.saturating_sub(fixed_bytes);
    for _ in 0..ATTEMPTS {
        let chosen = allocate(&candidates, given, room).ok_or_else(|| too_small(budget, limits))?;
        let wanted: Vec<(String, Precision)> = names.iter().cloned().zip(chosen.iter().copied()).collect();
        let recipe = with_precisions(&base, &wanted)?;
        let file_bytes = (model.file_bytes)(&recipe)?;
        if file_bytes <= budget {
            let (tokens, model) = (found.tokens, model.checkpoint.config().name.clone());
            return Ok(Choice { model, tokens, linears, phases, chosen, fixed_bytes, budget, file_bytes, recipe });
        }
        room = room.checked_sub(file_bytes - budget).ok_or_else(|| too_small(budget, limits))?;
    }
    Err(too_small(budget, limits))
}

fn too_small(budget: u64, (least, most): (u64, u64)) -> Failure {
    Failure::Message(format!(
        "a budget of {} bytes is too small: the artifact takes {} to {} bytes\nhelp: raise --budget; a --recipe with a larger \
         group_size saves scales, one with overrides lets go of embeddings or head",
        count(budget),
        count(least),
        count(most)
    ))
}

/// What a weight may become, smallest first; what the recipe says of it by name stays.
fn forms(base: &Recipe, weight: &StoredWeight) -> Vec<(Precision, StorageFormat)> {
    let small = StorageFormat::W4TwoLevel { group_size: base.group_size };
    let all = [
        (Precision::W4a8, small),
        (Precision::W4a8Group, StorageFormat::W4Group { group_size: base.group_size }),
        (Precision::W8a8, StorageFormat::W8),
        (Precision::Float, weight.format),
    ];
    let fixed = is_exception(base, &weight.name)
        .then(|| precisions(base, std::slice::from_ref(&weight.name)).ok()?.get(&weight.name).copied())
        .flatten();
    let is_open = |precision: Precision| match fixed {
        Some(fixed) => precision == fixed,
        None => precision != Precision::W4a8Group && !(precision.is_4_bit() && needs_8_bits(&weight.name)),
    };
    all.into_iter().filter(|(precision, _)| is_open(*precision)).collect()
}

fn linear(base: &Recipe, weight: &StoredWeight, found: &Sensitivity) -> Linear {
    let forms = forms(base, weight).into_iter().zip(&found.costs);
    let forms = forms.map(|((precision, _), cost)| (precision, Cost { bytes: cost.bytes, loss: cost.divergence }));
    Linear {
        candidate: Candidate { name: found.name.clone(), forms: forms.collect() },
        output_errors: found.costs.iter().map(|cost| cost.output_error).collect(),
    }
}
