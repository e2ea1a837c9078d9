//! From the precision of every linear to a recipe that says so, for people to read and edit.

use crate::assign_precision::{decide, is_dt};
use crate::precision::Precision;
use crate::recipe::{Override, Recipe};
use ir::pass::PassError;
use std::collections::{BTreeMap, HashMap};

/// What a recipe gives each of these names.
///
/// # Errors
/// When one of its overrides is impossible or matches none of them.
pub fn precisions(recipe: &Recipe, names: &[String]) -> Result<HashMap<String, Precision>, PassError> {
    decide(recipe, names)
}

/// Whether an override of the recipe decides the precision of this name.
pub fn is_exception(recipe: &Recipe, name: &str) -> bool {
    let decides = |rule: &&Override| rule.precision.is_some();
    recipe.overrides.iter().filter(decides).any(|rule| rule.regex().is_ok_and(|regex| regex.is_match(name)))
}

/// Whether a linear must have 8 bits or more.
pub fn needs_8_bits(name: &str) -> bool {
    is_dt(name)
}

/// `recipe` with overrides added, one for all layers that have the same exception, so that every name gets the precision
/// beside it.
///
/// # Errors
/// When an override of the recipe is impossible or matches none of the names.
pub fn with_precisions(recipe: &Recipe, wanted: &[(String, Precision)]) -> Result<Recipe, PassError> {
    let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
    let decided = decide(recipe, &names)?;
    let mut layers: BTreeMap<(String, &'static str), Vec<String>> = BTreeMap::new();
    let mut order: Vec<(String, Precision)> = Vec::new();
    for (name, precision) in wanted.iter().filter(|(name, precision)| decided[name] != *precision) {
        let (layer, rest) = split(name);
        let group = layers.entry((rest.to_owned(), precision.as_str())).or_default();
        if group.is_empty() {
            order.push((rest.to_owned(), *precision));
        }
        group.extend(layer.map(str::to_owned));
    }
    let mut recipe = recipe.clone();
    for (rest, precision) in order {
        let escaped = regex::escape(&rest);
        let pattern = match &layers[&(rest, precision.as_str())][..] {
            [] => format!("^{escaped}$"),
            [layer] => format!(r"^layers\.{layer}\.{escaped}$"),
            layers => format!(r"^layers\.({})\.{escaped}$", layers.join("|")),
        };
        recipe.overrides.push(Override { pattern, precision: Some(precision), rounding: None });
    }
    Ok(recipe)
}

/// `layers.7.mixer.o_proj` into `7` and `mixer.o_proj`; other names have no layer.
fn split(name: &str) -> (Option<&str>, &str) {
    let parts = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
    match parts {
        Some((layer, rest)) if layer.bytes().all(|byte| byte.is_ascii_digit()) => (Some(layer), rest),
        _ => (None, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Phase;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn names() -> Vec<String> {
        let in_layer = |layer: usize| {
            let linears = ["in_proj.z", "in_proj.dt", "out_proj", "up_proj", "down_proj", "o_proj"];
            linears.map(|linear| format!("layers.{layer}.mixer.{linear}"))
        };
        let layers = [0, 1, 2, 10, 11, 21].into_iter().flat_map(in_layer);
        ["embeddings".to_owned()].into_iter().chain(layers).chain(["lm_head".to_owned()]).collect()
    }

    #[test]
    fn joins_the_layers_that_have_the_same_exception() {
        let wanted: Vec<(String, Precision)> = names()
            .into_iter()
            .map(|name| {
                let is_small = name.ends_with("up_proj") && !name.contains("1.") || name == "lm_head";
                (name, if is_small { Precision::W4a8 } else { Precision::W8a8 })
            })
            .collect();
        let recipe = with_precisions(&Recipe::new(Phase::Conservative), &wanted).unwrap();
        let patterns: Vec<&str> = recipe.overrides.iter().map(|rule| rule.pattern.as_str()).collect();
        assert_eq!(patterns, [r"^layers\.(0|2|10)\.mixer\.up_proj$", "^lm_head$"]);
    }

    #[test]
    fn adds_nothing_to_a_recipe_that_says_it_already() {
        let recipe = Recipe::new(Phase::Mixed);
        let decided = precisions(&recipe, &names()).unwrap();
        let wanted: Vec<(String, Precision)> = names().into_iter().map(|name| (name.clone(), decided[&name])).collect();
        assert_eq!(with_precisions(&recipe, &wanted).unwrap(), recipe);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(8_100_852_736),
            failure_persistence: None,
            cases: 64,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_recipe_says_what_was_wanted(phase in 0..4_u8, picks in prop::collection::vec(0..4_usize, 38)) {
            let all = [Precision::W8a8, Precision::Float, Precision::W4a8, Precision::W4a8Group];
            let pick = |(name, pick): (String, usize)| {
                let precision = all[if needs_8_bits(&name) { pick % 2 } else { pick }];
                (name, precision)
            };
            let wanted: Vec<(String, Precision)> = names().into_iter().zip(picks).map(pick).collect();
            let recipe = with_precisions(&Recipe::new(phase.try_into().unwrap()), &wanted).unwrap();
            let text = toml::to_string(&recipe).unwrap();
            let found = precisions(&Recipe::parse(&text, "written").unwrap(), &names()).unwrap();
            for (name, precision) in wanted {
                prop_assert_eq!(found[&name], precision, "{}", name);
            }
        }
    }
}
