//! What the user decides about quantization: `compile` and `opt` share it.

use crate::failure::Failure;
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use ir::weights::RotationKind;
use passes::cost::{TARGETS, Target};
use passes::{Phase, PipelineOptions, Recipe};
use std::path::PathBuf;
use std::str::FromStr;

/// Phase, recipe, rotations.
#[derive(clap::Args)]
#[command(next_help_heading = "Quantization")]
pub struct RecipeArguments {
    /// 0 reference, 1 conservative (W8A8), 2 aggressive (W4A8, embedding and head in 8 bits), 3 mixed (W4A8 in Mamba-2, W8A8 elsewhere);
    /// auto measures every linear and chooses under --budget.
    #[arg(long, value_name = "N|auto")]
    phase: Option<PhaseArgument>,
    /// A TOML recipe: a phase, exceptions by name, rotations. Other options win over it.
    #[arg(long, value_name = "R.toml")]
    recipe: Option<PathBuf>,
    /// Rotations of activations and weights, so that outliers spread.
    #[arg(long, value_enum)]
    rotations: Option<Rotations>,
    /// Of everything random in rotations.
    #[arg(long)]
    seed: Option<u64>,
    /// The GPU whose bandwidth and arithmetic decide between fusions. The artifact runs everywhere.
    #[arg(long, value_name = "GPU", default_value = TARGETS[0].name, value_parser = target_names())]
    target: String,
}

fn target_names() -> PossibleValuesParser {
    TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().into()
}

/// A phase, or the wish to have one chosen.
#[derive(Clone, Copy, PartialEq)]
enum PhaseArgument {
    Given(Phase),
    Auto,
}

impl FromStr for PhaseArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(PhaseArgument::Auto),
            _ => text.parse().map(PhaseArgument::Given).map_err(|error: String| format!("{error}, or auto")),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Rotations {
    /// No rotations.
    None,
    /// Sylvester-Hadamard matrices.
    Hadamard,
    /// Hadamard matrices with random signs.
    RandomHadamard,
    /// Eigenvectors of the covariance that calibration measures, then Hadamard: the residual stream, v and o_proj.
    Klt,
}

impl RecipeArguments {
    /// What the passes need to know.
    pub fn options(&self) -> Result<PipelineOptions, Failure> {
        let mut recipe = match &self.recipe {
            Some(path) => Some(read(path)?),
            None => None,
        };
        if let (Some(Rotations::None), Some(recipe)) = (self.rotations, &mut recipe) {
            recipe.rotation.kind = None;
        }
        let rotations = match self.rotations {
            None | Some(Rotations::None) => None,
            Some(Rotations::Hadamard) => Some(RotationKind::Hadamard),
            Some(Rotations::RandomHadamard) => Some(RotationKind::RandomHadamard),
            Some(Rotations::Klt) => Some(RotationKind::Klt),
        };
        let target = *Target::find(&self.target).unwrap_or(&TARGETS[0]);
        Ok(PipelineOptions {
            phase: self.phase.map(|phase| match phase {
                PhaseArgument::Given(phase) => phase,
                // What the choice starts from.
                PhaseArgument::Auto => Phase::Mixed,
            }),
            recipe,
            rotations,
            seed: self.seed,
            target,
            ..PipelineOptions::default()
        })
    }

    /// Whether precisions are to be chosen by measuring.
    pub fn is_auto(&self) -> bool {
        self.phase == Some(PhaseArgument::Auto)
    }

    /// Whether rotations were chosen, or left to what is best.
    pub fn chooses_rotations(&self) -> bool {
        self.rotations.is_some() || self.recipe.is_some()
    }

    /// Whether the user said how to quantize.
    pub fn is_given(&self) -> bool {
        self.phase.is_some() || self.recipe.is_some()
    }
}

fn read(path: &PathBuf) -> Result<Recipe, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::at(path.display(), format!("cannot read the recipe: {error}\nhelp: it is a TOML file"))
    })?;
    Recipe::parse(&text, &path.display().to_string())
        .map_err(|error| Failure::Message(format!("{error}\nhelp: {}", error.help())))
}
