//! What the user decides about quantization: a phase, exceptions from it, and rotations. On disk a recipe is TOML:
//!
//! ```toml
//! phase = 2                  # 0 to 3
//! group_size = 128           # inputs that share a scale in 4-bit weights
//! kv_cache = "bf16"          # or "int8", "f16", "f32"; f32 in phase 0 and bf16 elsewhere when absent
//! ssm_state = "f16"          # or "f32", "bf16", "int8": scan states; f32 in phases 0 and 1 and f16 elsewhere when absent
//!
//! fold_norms = true          # norm weights into the linears that follow
//! rounding = "gptq"          # or "rtn", "rtn-absmax"; gptq with calibration and rtn without when absent
//!
//! [[override]]               # later ones win
//! match = '^lm_head$'        # regular expression over names of linears, and `embeddings`
//! precision = "w8a8"         # or "float", "w4a8", "w4a8-group"; the phase decides when absent
//! rounding = "rtn"           # the recipe decides when absent; `embeddings` are never rounded by gptq
//!
//! [gptq]
//! damping = 0.01             # share of the mean of the Hessian's diagonal
//! act_order = false          # the largest inputs first
//! clip = true                # search for 4-bit scales that may clip
//! refit = 0.5                # how much of what earlier layers lost a weight takes back
//! sweeps = 3                 # how often all values are looked at again, each with the others known
//!
//! [rotation]
//! kind = "hadamard"          # or "none", "random-hadamard", "klt"
//! residual = true            # the residual stream
//! value_output = true        # v and o_proj, per head
//! query_key = true           # q and k, per head
//! out_proj = true            # online, before out_proj of Mamba layers
//! down_proj = true           # online, before down_proj
//! seed = 0
//!
//! [smooth]                   # with calibration statistics
//! enabled = true             # false for none; only inputs of linears that are quantized when absent
//! alpha = 0.5                # 0 levels the weights, 1 the activations; "search" for the best of each activation
//! match = '\.(down_proj|o_proj)$'
//!
//! [smooth.alphas]            # exceptions by name, none when absent
//! "layers.1.mixer.down_proj" = 0.4
//! ```

mod error;
mod rotation;
mod rounding;
mod smooth;
mod states;

pub use error::RecipeError;
pub use rotation::Rotations;
pub use rounding::{Gptq, Roundings};
pub use smooth::{Alpha, Smoothing};
pub use states::{KvCache, SsmState};

use crate::precision::Precision;
use ir::types::Storage;
use ir::weights::Rounding;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The user's word for a quantization scheme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Phase {
    /// Nothing is quantized.
    #[default]
    Reference,
    /// 8 bits.
    Conservative,
    /// 4 bits.
    Aggressive,
    /// 4 bits for the projections of Mamba layers, 8 bits elsewhere.
    Mixed,
}

impl Phase {
    /// Every phase, by number.
    pub const ALL: [Phase; 4] = [Phase::Reference, Phase::Conservative, Phase::Aggressive, Phase::Mixed];
}

impl From<Phase> for u8 {
    fn from(phase: Phase) -> u8 {
        phase as u8
    }
}

impl TryFrom<u8> for Phase {
    type Error = String;
    fn try_from(number: u8) -> Result<Self, String> {
        Phase::ALL.get(usize::from(number)).copied().ok_or_else(|| format!("phase {number}, expected 0, 1, 2 or 3"))
    }
}

impl std::str::FromStr for Phase {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<u8>().map_err(|_| format!("phase {text}, expected 0, 1, 2 or 3"))?.try_into()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", u8::from(*self))
    }
}

/// A recipe; see the module's documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The scheme that overrides are exceptions from.
    #[serde(default)]
    pub phase: Phase,
    /// Inputs that share a scale in 4-bit weights.
    #[serde(default = "default_group_size")]
    pub group_size: usize,
    /// Storage of keys and values; the phase decides when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<KvCache>,
    /// Storage of scan states between steps; the phase decides when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssm_state: Option<SsmState>,
    /// Norm weights become part of the linears that read the norm.
    #[serde(default = "default_fold_norms", skip_serializing_if = "is_true")]
    pub fold_norms: bool,
    /// How linears are rounded; whether there is calibration decides when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<Rounding>,
    /// Exceptions, in order; later ones win.
    #[serde(default, rename = "override", skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// Rotations.
    #[serde(default, skip_serializing_if = "Rotations::is_none")]
    pub rotation: Rotations,
    /// Exact folds that level the channels of activations.
    #[serde(default, skip_serializing_if = "Smoothing::is_default")]
    pub smooth: Smoothing,
    /// What GPTQ does.
    #[serde(default, skip_serializing_if = "Gptq::is_default")]
    pub gptq: Gptq,
}

/// The precision or the rounding of some linears.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Regular expression over full names, unanchored.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What they run in; as the phase says when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// How their weights are rounded; as the recipe says when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<Rounding>,
}

const fn default_group_size() -> usize {
    128
}

const fn default_fold_norms() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_true(value: &bool) -> bool {
    *value
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe::new(Phase::default())
    }
}

/// Groups of 4-bit weights start at chunk boundaries of the stored rows.
const GROUP_ALIGN: usize = 32;
/// No weight has more columns.
const MAX_GROUP_SIZE: usize = 65536;

impl Recipe {
    /// A phase without exceptions or rotations.
    pub fn new(phase: Phase) -> Self {
        Recipe {
            phase,
            group_size: default_group_size(),
            kv_cache: None,
            ssm_state: None,
            fold_norms: default_fold_norms(),
            rounding: None,
            overrides: Vec::new(),
            rotation: Rotations::default(),
            smooth: Smoothing::default(),
            gptq: Gptq::default(),
        }
    }

    /// Reads a recipe; `file` is for messages.
    ///
    /// # Errors
    /// When the text is no legal recipe: names the file, the key and what was expected.
    pub fn parse(text: &str, file: &str) -> Result<Self, RecipeError> {
        let recipe: Recipe = toml::from_str(text)
            .map_err(|error| RecipeError::Syntax { file: file.to_owned(), message: error.to_string() })?;
        recipe.validate(file)?;
        Ok(recipe)
    }

    fn validate(&self, file: &str) -> Result<(), RecipeError> {
        let is_legal = (1..=MAX_GROUP_SIZE).contains(&self.group_size) && self.group_size.is_multiple_of(GROUP_ALIGN);
        if !is_legal {
            return Err(RecipeError::GroupSize { file: file.to_owned(), found: self.group_size });
        }
        if let Some(found) = self.smooth.bad_share() {
            return Err(RecipeError::Alpha { file: file.to_owned(), found });
        }
        let pattern = |pattern: &str, error: regex::Error| RecipeError::Pattern {
            file: file.to_owned(),
            pattern: pattern.to_owned(),
            message: error.to_string(),
        };
        self.smooth.regex().map_err(|error| pattern(&self.smooth.pattern, error))?;
        for rule in &self.overrides {
            rule.regex().map_err(|error| pattern(&rule.pattern, error))?;
            if rule.precision.is_none() && rule.rounding.is_none() {
                return Err(RecipeError::Idle { file: file.to_owned(), pattern: rule.pattern.clone() });
            }
        }
        if let Some(message) = self.gptq.refusal() {
            return Err(RecipeError::Gptq { file: file.to_owned(), message });
        }
        Ok(())
    }

    /// Storage of keys and values.
    pub fn kv_storage(&self) -> Storage {
        let by_phase = if self.phase == Phase::Reference { KvCache::F32 } else { KvCache::Bf16 };
        self.kv_cache.unwrap_or(by_phase).storage()
    }

    /// Storage of scan states. In half precision, rounded stochastically, they cost nothing that can be measured beside 4-bit weights
    /// of Mamba-2 layers, as in NVIDIA's own quantized checkpoints of the family.
    pub fn ssm_storage(&self) -> Storage {
        let by_phase = match self.phase {
            Phase::Reference | Phase::Conservative => SsmState::F32,
            Phase::Aggressive | Phase::Mixed => SsmState::F16,
        };
        self.ssm_state.unwrap_or(by_phase).storage()
    }
}

impl Override {
    /// The compiled pattern.
    ///
    /// # Errors
    /// When it is no regular expression.
    pub fn regex(&self) -> Result<Regex, regex::Error> {
        Regex::new(&self.pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::weights::RotationKind;

    fn refused(text: &str) -> String {
        Recipe::parse(text, "recipe.toml").expect_err("it was accepted").to_string()
    }

    #[test]
    fn reads_the_example_of_the_documentation() {
        let text: String = include_str!("recipe.rs")
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .flat_map(|line| [line.trim_start_matches("//!"), "\n"])
            .collect();
        let recipe = Recipe::parse(&text, "recipe.toml").unwrap();
        assert_eq!(recipe.phase, Phase::Aggressive);
        assert_eq!(recipe.kv_cache, Some(KvCache::Bf16));
        assert_eq!(recipe.ssm_state, Some(SsmState::F16));
        assert_eq!(recipe.overrides[0].precision, Some(Precision::W8a8));
        assert_eq!(recipe.rotation, Rotations { kind: Some(RotationKind::Hadamard), ..Rotations::default() });
    }

    #[test]
    fn a_phase_decides_how_states_are_kept() {
        let kept = |phase| {
            let recipe = Recipe::new(phase);
            (recipe.kv_storage(), recipe.ssm_storage())
        };
        assert_eq!(kept(Phase::Reference), (Storage::F32, Storage::F32));
        assert_eq!(kept(Phase::Conservative), (Storage::Bf16, Storage::F32));
        assert_eq!(kept(Phase::Aggressive), (Storage::Bf16, Storage::F16));
        assert_eq!(kept(Phase::Mixed), (Storage::Bf16, Storage::F16));
        let recipe = Recipe::parse("phase = 2\nssm_state = 'f32'", "recipe.toml").unwrap();
        assert_eq!(recipe.ssm_storage(), Storage::F32);
    }

    #[test]
    fn takes_an_empty_recipe_for_phase_0() {
        assert_eq!(Recipe::parse("", "recipe.toml").unwrap(), Recipe::new(Phase::Reference));
    }

    #[test]
    fn reads_back_what_it_writes() {
        let text = "phase = 3\ngroup_size = 64\nkv_cache = 'int8'\nssm_state = 'bf16'\n[[override]]\nmatch = 'q_proj'\nprecision = 'w4a8-group'\n[rotation]\nkind = 'random-hadamard'\nseed = 7";
        let recipe = Recipe::parse(text, "recipe.toml").unwrap();
        let json = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe);
        assert_eq!(Recipe::parse(&toml::to_string(&recipe).unwrap(), "again").unwrap(), recipe);
    }

    #[test]
    fn names_the_offending_key_and_its_line() {
        let message = refused("phase = 1\ngroupsize = 64");
        assert!(message.contains("recipe.toml") && message.contains("line 2"), "{message}");
        assert!(message.contains("`groupsize`") && message.contains("`group_size`"), "{message}");
        let message = refused("[rotation]\nonline = true");
        assert!(message.contains("`online`"), "{message}");
        let message = refused("[[override]]\nmatch = 'x'\nprecision = 'w8a8'\nlayers = 3");
        assert!(message.contains("`layers`"), "{message}");
    }

    #[test]
    fn says_what_values_are_expected() {
        assert!(refused("phase = 4").contains("expected 0, 1, 2 or 3"));
        assert!(refused("[rotation]\nkind = 'fourier'").contains("`random-hadamard` or `klt`"));
        assert!(refused("[[override]]\nmatch = 'x'\nprecision = 'w2a8'").contains("`w4a8-group`"));
        assert!(refused("kv_cache = 'int4'").contains("`bf16`"));
        assert!(refused("ssm_state = 'int4'").contains("`int8`"));
        assert!(refused("group_size = 100").contains("multiple of 32"));
        assert!(refused("group_size = 0").contains("multiple of 32"));
        assert!(refused("group_size = 1000000000000000000").contains("up to 65536"));
    }

    #[test]
    fn writes_smoothing_only_where_it_differs_from_the_default() {
        assert!(!toml::to_string(&Recipe::new(Phase::Mixed)).unwrap().contains("smooth"));
        let text = "phase = 3\n[smooth]\nenabled = false\nalpha = 0.25\nmatch = 'o_proj'";
        let recipe = Recipe::parse(text, "recipe.toml").unwrap();
        let (alpha, pattern) = (Alpha::Share(0.25), "o_proj".to_owned());
        let expected = Smoothing { enabled: Some(false), alpha, pattern, ..Smoothing::default() };
        assert_eq!(recipe.smooth, expected);
        assert_eq!(Recipe::parse(&toml::to_string(&recipe).unwrap(), "again").unwrap(), recipe);
        let json = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe);
    }

    #[test]
    fn reads_back_a_search_for_alpha_and_what_it_found() {
        let text = "[smooth]\nalpha = 'search'\n[smooth.alphas]\n'layers.1.mixer.down_proj' = 0.3";
        let recipe = Recipe::parse(text, "recipe.toml").unwrap();
        assert_eq!(recipe.smooth.alpha, Alpha::Search);
        assert_eq!(recipe.smooth.alphas["layers.1.mixer.down_proj"], 0.3);
        assert_eq!(Recipe::parse(&toml::to_string(&recipe).unwrap(), "again").unwrap(), recipe);
        let json = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe);
        assert_eq!(Recipe::parse("[smooth]\nalpha = 1", "recipe.toml").unwrap().smooth.alpha, Alpha::Share(1.0));
    }

    #[test]
    fn refuses_shares_out_of_range_and_bad_patterns_of_smoothing() {
        assert!(refused("[smooth]\nalpha = 1.5").contains("alpha of [smooth] is 1.5, expected 0 to 1"));
        assert!(refused("[smooth]\nalpha = 'most'").contains("is `most`, expected 0 to 1, or `search`"));
        assert!(refused("[smooth.alphas]\nx = -0.1").contains("alpha of [smooth] is -0.1 for x"));
        assert!(refused("[smooth]\nalpha = nan").contains("NaN"));
        assert!(refused("[smooth]\nmatch = '('").contains("not a regular expression"));
    }

    #[test]
    fn refuses_a_pattern_that_is_no_regular_expression() {
        let message = refused("[[override]]\nmatch = '(q_proj'\nprecision = 'w8a8'");
        assert!(message.contains("(q_proj") && message.contains("not a regular expression"), "{message}");
    }
}
