//! How the values of weights are rounded, as a recipe says it.

use super::Recipe;
use ir::weights::Rounding;
use regex::Regex;
use serde::{Deserialize, Serialize};

/// Sweeps end by themselves long before.
const MAX_SWEEPS: usize = 100;

/// What GPTQ does, where weights are rounded by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gptq {
    /// Added to the diagonal of the Hessian, as a share of its mean; ten and a hundred times as much where that is not
    /// enough.
    pub damping: f64,
    /// Inputs with the largest mean square are rounded first.
    pub act_order: bool,
    /// Scales of 4-bit groups are searched for, and may clip.
    pub clip: bool,
    /// How much of what the layers before have lost each weight is fitted to take back before it is rounded.
    pub refit: f64,
    /// How often every value is looked at again, once all others of its row are known.
    pub sweeps: usize,
}

impl Default for Gptq {
    fn default() -> Self {
        Gptq { damping: 0.01, act_order: false, clip: true, refit: 0.5, sweeps: 3 }
    }
}

impl Gptq {
    pub(super) fn is_default(&self) -> bool {
        *self == Gptq::default()
    }

    /// The key that is out of range, and what was expected.
    pub(super) fn refusal(&self) -> Option<String> {
        let Gptq { damping, refit, sweeps, .. } = self;
        if !(*damping > 0.0 && *damping <= 1.0) {
            return Some(format!("damping of [gptq] is {damping}, expected more than 0 and at most 1"));
        }
        if *sweeps > MAX_SWEEPS {
            return Some(format!("sweeps of [gptq] is {sweeps}, expected at most {MAX_SWEEPS}"));
        }
        (!(0.0..=1.0).contains(refit)).then(|| format!("refit of [gptq] is {refit}, expected 0 to 1"))
    }
}

/// Roundings by name.
pub struct Roundings {
    default: Rounding,
    rules: Vec<(Regex, Rounding)>,
}

impl Roundings {
    /// Of the linear of this name; the last rule wins.
    pub fn of(&self, name: &str) -> Rounding {
        self.rules.iter().rfind(|(regex, _)| regex.is_match(name)).map_or(self.default, |(_, rounding)| *rounding)
    }
}

impl Recipe {
    /// How each linear is rounded; `default` where the recipe leaves it open.
    ///
    /// # Errors
    /// When a pattern is no regular expression.
    pub fn roundings(&self, default: Rounding) -> Result<Roundings, regex::Error> {
        let with_rounding = self.overrides.iter().filter_map(|rule| Some((rule, rule.rounding?)));
        let rules = with_rounding.map(|(rule, rounding)| Ok((rule.regex()?, rounding))).collect::<Result<_, _>>()?;
        Ok(Roundings { default: self.rounding.unwrap_or(default), rules })
    }

    /// Whether every linear is rounded to nearest, calibrated or not.
    pub fn rounds_to_nearest(&self) -> bool {
        self.rounding.is_some() && !self.asks_for_gptq()
    }

    /// Whether it asks for a rounding that needs calibration.
    pub fn asks_for_gptq(&self) -> bool {
        let asked = self.overrides.iter().map(|rule| rule.rounding).chain([self.rounding]);
        asked.flatten().any(|rounding| rounding == Rounding::Gptq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(text: &str) -> Recipe {
        Recipe::parse(text, "recipe.toml").unwrap()
    }

    fn refused(text: &str) -> String {
        Recipe::parse(text, "recipe.toml").unwrap_err().to_string()
    }

    #[test]
    fn the_last_override_that_says_how_to_round_wins() {
        let text = "rounding = 'rtn'\n[[override]]\nmatch = 'proj'\nrounding = 'gptq'\n[[override]]\nmatch = 'up_proj'\n\
                    rounding = 'rtn-absmax'\n[[override]]\nmatch = 'up_proj'\nprecision = 'w8a8'";
        let roundings = recipe(text).roundings(Rounding::Gptq).unwrap();
        assert_eq!(roundings.of("lm_head"), Rounding::Rtn);
        assert_eq!(roundings.of("layers.1.mixer.down_proj"), Rounding::Gptq);
        assert_eq!(roundings.of("layers.1.mixer.up_proj"), Rounding::RtnAbsmax);
    }

    #[test]
    fn leaves_open_what_the_recipe_does_not_say() {
        let roundings = recipe("").roundings(Rounding::Gptq).unwrap();
        assert_eq!(roundings.of("lm_head"), Rounding::Gptq);
        assert!(!recipe("").asks_for_gptq() && !recipe("").rounds_to_nearest());
        assert!(recipe("rounding = 'rtn'").rounds_to_nearest());
        let mixed = recipe("rounding = 'rtn'\n[[override]]\nmatch = 'x'\nrounding = 'gptq'");
        assert!(mixed.asks_for_gptq() && !mixed.rounds_to_nearest());
    }

    #[test]
    fn reads_back_what_it_writes_about_rounding() {
        let text = "fold_norms = false\nrounding = 'gptq'\n[gptq]\ndamping = 0.02\nact_order = true\nsweeps = 0";
        let recipe = recipe(text);
        assert_eq!(recipe.gptq, Gptq { damping: 0.02, act_order: true, sweeps: 0, ..Gptq::default() });
        assert_eq!(Recipe::parse(&toml::to_string(&recipe).unwrap(), "again").unwrap(), recipe);
        let json = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe);
        let default = toml::to_string(&Recipe::default()).unwrap();
        assert!(["gptq", "rounding", "fold_norms"].iter().all(|key| !default.contains(key)), "{default}");
    }

    #[test]
    fn refuses_options_out_of_range_and_overrides_of_nothing() {
        assert!(refused("[gptq]\ndamping = 0").contains("damping of [gptq] is 0, expected more than 0"));
        assert!(refused("[gptq]\ndamping = nan").contains("damping"));
        assert!(refused("[gptq]\nrefit = 1.5").contains("refit of [gptq] is 1.5, expected 0 to 1"));
        assert!(refused("[gptq]\nsweeps = 1000").contains("expected at most 100"));
        assert!(refused("[gptq]\norder = true").contains("`act_order`"));
        assert!(refused("rounding = 'up'").contains("`rtn-absmax`"));
        assert!(refused("[[override]]\nmatch = 'x'").contains("neither precision nor rounding"));
    }
}
