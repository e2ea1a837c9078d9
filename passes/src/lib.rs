//! The passes that rewrite the nemo IR from imported to planned: THE pass table and the pipeline.

pub mod allocate;
pub mod assign_precision;
pub mod budget;
mod copy;
pub mod cost;
pub mod egraph;
pub mod exceptions;
mod fold_norms;
pub mod fold_rotations;
pub mod fuse_conversions;
mod insert_qdq;
mod insert_rotations;
pub mod lower_to_plan;
mod names;
mod nearest;
mod precision;
pub mod recipe;
mod smooth;
mod uses;

pub use assign_precision::AssignPrecision;
pub use fold_norms::FoldNorms;
pub use fold_rotations::FoldRotations;
pub use fuse_conversions::FuseConversions;
pub use insert_qdq::InsertQdq;
pub use insert_rotations::InsertRotations;
pub use lower_to_plan::LowerToPlan;
pub use precision::Precision;
pub use recipe::{Phase, Recipe};
pub use smooth::Smooth;

use cost::Target;
use ir::pass::Pass;
use ir::statistics::Statistics;
use ir::weights::{RotationKind, Rounding};
use std::sync::Arc;

/// A row of the pass table.
pub struct PassSpec {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, a line for `--help`.
    pub summary: &'static str,
    /// Makes it.
    pub make: fn(&PipelineOptions) -> Box<dyn Pass>,
}

macro_rules! passes {
    ($(#[doc = $summary:literal] $name:literal => $make:expr;)*) => {
        /// Every pass, in the order of the pipeline.
        pub const PASSES: &[PassSpec] =
            &[$(PassSpec { name: $name, summary: $summary.trim_ascii(), make: |options| Box::new($make(options)) }),*];
    };
}

passes! {
    /// Level the channels of activations by scaling the weights on both sides, as calibration says.
    "smooth" => |options: &PipelineOptions| Smooth { recipe: options.recipe(), statistics: options.statistics.clone() };
    /// Move norm weights into the linears that read the norm.
    "fold-norms" => |options: &PipelineOptions| FoldNorms { recipe: options.chosen_recipe() };
    /// Decide the arithmetic of every linear and embedding, by phase and recipe.
    "assign-precision" => |options: &PipelineOptions| AssignPrecision { recipe: options.recipe() };
    /// Rotate the residual stream and the heads, and online the inputs of out_proj and down_proj.
    "insert-rotations" => |options: &PipelineOptions| InsertRotations { rotations: options.recipe().rotation };
    /// Merge rotations into the weights next to them; online Hadamards remain.
    "fold-rotations" => |_| FoldRotations;
    /// Quantize the inputs and weights of linears as assigned; mark where values change arithmetic.
    "insert-qdq" => |options: &PipelineOptions| InsertQdq { rounding: options.rounding };
    /// Make conversions part of the launches next to them, as the target's roofline says.
    "fuse-conversions" => |options: &PipelineOptions| FuseConversions::new(options.target);
    /// Lower the graph to buffers and kernel launches.
    "lower-to-plan" => |_| LowerToPlan;
}

/// What a user chooses.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// The scheme; by default the recipe's.
    pub phase: Option<Phase>,
    /// Exceptions from it.
    pub recipe: Option<Recipe>,
    /// The family of rotations; by default the recipe's.
    pub rotations: Option<RotationKind>,
    /// The seed of rotations; by default the recipe's.
    pub seed: Option<u64>,
    /// What calibration measured; without, nothing is smoothed.
    pub statistics: Option<Arc<Statistics>>,
    /// How the weights of linears are rounded.
    pub rounding: Rounding,
    /// The GPU that cost decides for.
    pub target: Target,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        PipelineOptions {
            phase: None,
            recipe: None,
            rotations: None,
            seed: None,
            statistics: None,
            rounding: Rounding::Rtn,
            target: cost::TARGETS[0],
        }
    }
}

impl PipelineOptions {
    /// The recipe, with what the other options say in place of what it says.
    pub fn recipe(&self) -> Recipe {
        let mut recipe = self.recipe.clone().unwrap_or_default();
        recipe.phase = self.phase.unwrap_or(recipe.phase);
        recipe.rotation.kind = self.rotations.or(recipe.rotation.kind);
        recipe.rotation.seed = self.seed.unwrap_or(recipe.rotation.seed);
        recipe
    }

    /// The recipe, if the user chose a phase or a recipe at all.
    fn chosen_recipe(&self) -> Option<Recipe> {
        (self.recipe.is_some() || self.phase.is_some()).then(|| self.recipe())
    }
}

/// The passes of `nemoc compile`, in order.
pub fn pipeline(options: &PipelineOptions) -> Vec<Box<dyn Pass>> {
    let recipe = options.recipe();
    let rotates = !recipe.rotation.is_none();
    let smooths = options.statistics.is_some() && recipe.smooth.enabled != Some(false);
    let options = &PipelineOptions { recipe: Some(recipe), ..options.clone() };
    let wanted = |name: &str| match name {
        "smooth" => smooths,
        "insert-rotations" | "fold-rotations" => rotates,
        _ => true,
    };
    PASSES.iter().filter(|spec| wanted(spec.name)).map(|spec| (spec.make)(options)).collect()
}

/// The passes that give the same model without quantization, every value in the same basis: what calibration compares
/// with. Precisions are assigned twice, for a rotation in front of a linear depends on whether that is quantized.
pub fn reference_pipeline(options: &PipelineOptions) -> Vec<Box<dyn Pass>> {
    let mut passes = pipeline(options);
    let at = passes.iter().position(|pass| pass.name() == "insert-qdq").unwrap_or(passes.len());
    passes.insert(at, Box::new(AssignPrecision { recipe: Recipe::new(Phase::Reference) }));
    passes
}

/// The pass of this name.
///
/// # Errors
/// When there is none: lists those there are, nearest first.
pub fn find(name: &str, options: &PipelineOptions) -> Result<Box<dyn Pass>, UnknownPass> {
    match PASSES.iter().find(|spec| spec.name == name) {
        Some(spec) => Ok((spec.make)(options)),
        None => {
            Err(UnknownPass { name: name.to_owned(), known: nearest::first(name, PASSES.iter().map(|spec| spec.name)) })
        }
    }
}

/// A name that is no pass's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no pass is called `{name}`; the passes are {}", .known.join(", "))]
pub struct UnknownPass {
    /// What was asked for.
    pub name: String,
    /// What there is, nearest first.
    pub known: Vec<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(options: &PipelineOptions) -> Vec<&'static str> {
        pipeline(options).iter().map(|pass| pass.name()).collect()
    }

    #[test]
    fn calls_each_pass_as_the_table_does() {
        for spec in PASSES {
            assert_eq!((spec.make)(&PipelineOptions::default()).name(), spec.name);
        }
    }

    #[test]
    fn rotates_only_when_asked_to() {
        assert!(!names(&PipelineOptions::default()).contains(&"insert-rotations"));
        let rotated = PipelineOptions { rotations: Some(RotationKind::Hadamard), ..PipelineOptions::default() };
        assert!(names(&rotated).contains(&"insert-rotations"));
    }

    #[test]
    fn smooths_only_with_statistics_and_unless_told_not_to() {
        assert!(!names(&PipelineOptions::default()).contains(&"smooth"));
        let statistics = Statistics {
            model: String::new(),
            samples: 1,
            length: 512,
            seed: 0,
            text: String::new(),
            inputs: std::collections::BTreeMap::new(),
            covariances: std::collections::BTreeMap::new(),
        };
        let calibrated = PipelineOptions { statistics: Some(Arc::new(statistics)), ..PipelineOptions::default() };
        assert_eq!(names(&calibrated)[0], "smooth");
        let recipe = Recipe::parse("[smooth]\nenabled = false", "recipe.toml").unwrap();
        assert!(!names(&PipelineOptions { recipe: Some(recipe), ..calibrated }).contains(&"smooth"));
    }

    #[test]
    fn lists_the_passes_nearest_first_when_one_is_unknown() {
        let Err(error) = find("insert-rotation", &PipelineOptions::default()) else { panic!("found it") };
        assert_eq!(error.known[0], "insert-rotations");
        assert_eq!(error.known.len(), PASSES.len());
    }
}
