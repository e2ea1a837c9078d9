//! The precision of every linear under a budget of bytes, from what each precision costs.
//!
//! Linears have 4 or 8 bits; those that 8 bits for all leave room for become float, which takes most of the loss away
//! but runs slower, and is no use before.

use crate::budget::{Cost, Item, Solution, assign, largest, smallest, total};
use crate::precision::Precision;

/// A linear, and what it costs in each precision that it may get; at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Precisions and costs.
    pub forms: Vec<(Precision, Cost)>,
}

impl Candidate {
    /// What it costs in a precision; in its largest form if it cannot have it.
    pub fn cost(&self, precision: Precision) -> Cost {
        let same = self.forms.iter().find(|(form, _)| *form == precision);
        let largest = self.forms.iter().max_by_key(|(_, cost)| cost.bytes);
        same.or(largest).expect("bug: a linear without precisions").1
    }
}

/// Bytes and loss of all linears together.
pub fn cost(candidates: &[Candidate], precisions: &[Precision]) -> Cost {
    let costs = candidates.iter().zip(precisions).map(|(candidate, precision)| candidate.cost(*precision));
    costs.fold(Cost { bytes: 0, loss: 0.0 }, |sum, cost| Cost {
        bytes: sum.bytes + cost.bytes,
        loss: sum.loss + cost.loss,
    })
}

/// The precisions of least loss that fit; never worse than `given`, if those fit. `None` when nothing fits.
pub fn allocate(candidates: &[Candidate], given: &[Precision], budget: u64) -> Option<Vec<Precision>> {
    let eight = Stage::new(candidates, true);
    let stage = if eight.range().0 <= budget { eight } else { Stage::new(candidates, false) };
    let forms = assign(&stage.items, &stage.forms_of(given), budget)?;
    let chosen = stage.precisions(&forms);
    let (given_cost, chosen_cost) = (cost(candidates, given), cost(candidates, &chosen));
    let keeps_given = given_cost.bytes <= budget && given_cost.loss < chosen_cost.loss;
    Some(if keeps_given { given.to_vec() } else { chosen })
}

/// Bytes of the smallest and of the largest choice.
pub fn range(candidates: &[Candidate]) -> (u64, u64) {
    (Stage::new(candidates, false).range().0, Stage::new(candidates, true).range().1)
}

/// The least loss over bytes, some points of it: from all 4 bits to all 8 bits, and on to all floats.
pub fn frontier(candidates: &[Candidate], points: usize) -> Vec<Cost> {
    let stages = [Stage::new(candidates, false), Stage::new(candidates, true)];
    let mut frontier: Vec<Cost> = Vec::new();
    for stage in stages {
        let costs = Solution::new(&stage.items, u64::MAX).frontier(points);
        let better = |cost: &Cost| frontier.last().is_none_or(|last| cost.bytes > last.bytes && cost.loss < last.loss);
        let more: Vec<Cost> = costs.into_iter().filter(better).collect();
        frontier.extend(more);
    }
    frontier
}

/// The forms that are to be chosen from: 4 and 8 bits, or 8 bits and floats.
struct Stage<'a> {
    candidates: &'a [Candidate],
    /// By candidate: places in its forms.
    places: Vec<Vec<usize>>,
    items: Vec<Item>,
}

impl<'a> Stage<'a> {
    fn new(candidates: &'a [Candidate], floats: bool) -> Stage<'a> {
        let belongs = |precision: Precision| match precision {
            Precision::W8a8 => true,
            Precision::Float => floats,
            Precision::W4a8 | Precision::W4a8Group => !floats,
        };
        let places = |candidate: &Candidate| {
            let some: Vec<usize> = (0..candidate.forms.len()).filter(|at| belongs(candidate.forms[*at].0)).collect();
            // A precision that the user fixed.
            if some.is_empty() { (0..candidate.forms.len()).collect() } else { some }
        };
        let places: Vec<Vec<usize>> = candidates.iter().map(places).collect();
        let item =
            |(candidate, places): (&Candidate, &Vec<usize>)| places.iter().map(|at| candidate.forms[*at].1).collect();
        let items = candidates.iter().zip(&places).map(item).collect();
        Stage { candidates, places, items }
    }

    /// The form of each precision; the largest where it has none.
    fn forms_of(&self, precisions: &[Precision]) -> Vec<usize> {
        let largest = largest(&self.items);
        let form = |index: usize| {
            let is_wanted = |at: &usize| self.candidates[index].forms[*at].0 == precisions[index];
            self.places[index].iter().position(is_wanted).unwrap_or(largest[index])
        };
        (0..self.candidates.len()).map(form).collect()
    }

    fn precisions(&self, forms: &[usize]) -> Vec<Precision> {
        let precision = |(index, form): (usize, &usize)| self.candidates[index].forms[self.places[index][*form]].0;
        forms.iter().enumerate().map(precision).collect()
    }

    fn range(&self) -> (u64, u64) {
        let bytes = |assignment: Vec<usize>| total(&self.items, &assignment).bytes;
        (bytes(smallest(&self.items)), bytes(largest(&self.items)))
    }
}

#[cfg(test)]
mod tests {
    use super::Precision::{Float, W4a8, W8a8};
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn candidate(name: &str, forms: &[(Precision, u64, f64)]) -> Candidate {
        let forms = forms.iter().map(|(precision, bytes, loss)| (*precision, Cost { bytes: *bytes, loss: *loss }));
        Candidate { name: name.to_owned(), forms: forms.collect() }
    }

    fn model() -> Vec<Candidate> {
        vec![
            candidate("a", &[(W4a8, 4, 1.0), (W8a8, 8, 0.1), (Float, 32, 0.0)]),
            candidate("dt", &[(W8a8, 1, 0.1), (Float, 4, 0.0)]),
            candidate("b", &[(W4a8, 4, 0.5), (W8a8, 8, 0.05), (Float, 32, 0.0)]),
        ]
    }

    #[test]
    fn nothing_is_float_while_something_has_4_bits() {
        // The float dt would fit beside a 4-bit b, and save a little.
        assert_eq!(allocate(&model(), &[W4a8, W8a8, W4a8], 16), Some(vec![W8a8, W8a8, W4a8]));
        assert_eq!(allocate(&model(), &[W4a8, W8a8, W4a8], 17), Some(vec![W8a8, W8a8, W8a8]));
        assert_eq!(allocate(&model(), &[W4a8, W8a8, W4a8], 20), Some(vec![W8a8, Float, W8a8]));
        assert_eq!(allocate(&model(), &[W4a8, W8a8, W4a8], 68), Some(vec![Float, Float, Float]));
    }

    #[test]
    fn keeps_what_the_user_fixed() {
        let fixed = candidate("head", &[(W4a8, 4, 9.0)]);
        let all = [model(), vec![fixed]].concat();
        assert_eq!(allocate(&all, &[W4a8; 4], 72).unwrap()[3], W4a8);
        assert_eq!(range(&all), (13, 72));
    }

    #[test]
    fn has_no_answer_below_the_smallest() {
        assert_eq!(allocate(&model(), &[W4a8, W8a8, W4a8], 8), None);
        assert_eq!(range(&model()), (9, 68));
    }

    #[test]
    fn the_frontier_goes_from_4_bits_through_8_bits_to_floats() {
        let frontier = frontier(&model(), 16);
        let bytes: Vec<u64> = frontier.iter().map(|cost| cost.bytes).collect();
        assert_eq!((bytes[0], *bytes.last().unwrap()), (9, 68));
        assert!(bytes.contains(&17), "{bytes:?}");
        assert!(frontier.windows(2).all(|pair| pair[0].bytes < pair[1].bytes && pair[0].loss > pair[1].loss));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(8_100_852_736),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn is_never_worse_than_the_phase_given_at_its_bytes(
            linears in prop::collection::vec((1..40_u64, 0.0..1.0_f64, 0.0..1.0_f64, any::<bool>()), 1..12),
            slack in 0..100_u64,
        ) {
            let candidates: Vec<Candidate> = linears
                .iter()
                .map(|(size, loss, share, _)| {
                    candidate("x", &[(W4a8, size * 17, *loss), (W8a8, size * 33, loss * share), (Float, size * 128, 0.0)])
                })
                .collect();
            let given: Vec<Precision> =
                linears.iter().map(|(.., is_large)| if *is_large { W8a8 } else { W4a8 }).collect();
            let given_cost = cost(&candidates, &given);
            let budget = given_cost.bytes + slack;
            let found = cost(&candidates, &allocate(&candidates, &given, budget).expect("the phase fits"));
            prop_assert!(found.bytes <= budget && found.loss <= given_cost.loss, "{found:?}, given {given_cost:?}");
        }
    }
}
