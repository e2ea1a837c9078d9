//! The best choice of one form for each item under a budget of bytes.
//!
//! This is the knapsack problem with multiple choice, solved by dynamic programming over bytes. Bytes are counted in units
//! of their greatest common divisor, which makes the result exact, or in larger ones when there are too many, each form
//! rounded up: then at most a unit an item is left unused, and the budget is kept all the same. Ties go to the smaller
//! form, so the result is deterministic.

/// What a form takes, and what it loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Bytes.
    pub bytes: u64,
    /// Loss; the losses of items add up.
    pub loss: f64,
}

/// The forms that an item can take; at least one.
pub type Item = Vec<Cost>;

/// Which form each item takes.
pub type Assignment = Vec<usize>;

/// Most units that bytes are counted in.
const MAX_UNITS: u64 = 1 << 16;

/// Bytes and loss of an assignment.
pub fn total(items: &[Item], assignment: &[usize]) -> Cost {
    let chosen = items.iter().zip(assignment).map(|(item, form)| item[*form]);
    chosen.fold(Cost { bytes: 0, loss: 0.0 }, |sum, cost| Cost {
        bytes: sum.bytes + cost.bytes,
        loss: sum.loss + cost.loss,
    })
}

/// Every item as small as it can be.
pub fn smallest(items: &[Item]) -> Assignment {
    items.iter().map(smallest_form).collect()
}

/// Every item as large as it can be.
pub fn largest(items: &[Item]) -> Assignment {
    let largest = |item: &Item| (0..item.len()).max_by_key(|form| (item[*form].bytes, *form)).unwrap_or(0);
    items.iter().map(largest).collect()
}

fn smallest_form(item: &Item) -> usize {
    let order = |a: &usize, b: &usize| {
        item[*a].bytes.cmp(&item[*b].bytes).then(item[*a].loss.total_cmp(&item[*b].loss)).then(a.cmp(b))
    };
    (0..item.len()).min_by(order).expect("bug: an item without forms")
}

/// The best assignments for every budget up to some.
pub struct Solution<'a> {
    items: &'a [Item],
    /// Bytes of the smallest assignment.
    base: u64,
    unit: u64,
    /// The least loss in this many units beyond the base.
    best: Vec<f64>,
    /// By item and units: the form taken.
    forms: Vec<Vec<u8>>,
}

impl<'a> Solution<'a> {
    /// Solves for budgets up to `limit`; larger ones are better by nothing if all items fit.
    ///
    /// # Panics
    /// When an item has no form, or more than 255.
    pub fn new(items: &'a [Item], limit: u64) -> Solution<'a> {
        let base = total(items, &smallest(items)).bytes;
        let range = total(items, &largest(items)).bytes.min(limit).saturating_sub(base);
        let more = |item: &Item, form: usize| item[form].bytes - item[smallest_form(item)].bytes;
        let extras = items.iter().flat_map(|item| (0..item.len()).map(move |form| more(item, form)));
        let unit = extras.fold(0, gcd).max(range.div_ceil(MAX_UNITS)).max(1);
        let units = (range / unit) as usize;
        let mut best = vec![0.0; units + 1];
        let mut forms = Vec::with_capacity(items.len());
        for item in items {
            let sizes: Vec<usize> = (0..item.len()).map(|form| more(item, form).div_ceil(unit) as usize).collect();
            let (losses, taken) = with_item(&best, item, &sizes);
            best = losses;
            forms.push(taken);
        }
        Solution { items, base, unit, best, forms }
    }

    /// The best assignment that takes no more than `budget`; `None` when not even the smallest forms fit.
    pub fn assignment(&self, budget: u64) -> Option<Assignment> {
        let room = budget.checked_sub(self.base)? / self.unit;
        let mut left = (room as usize).min(self.best.len() - 1);
        let mut assignment = vec![0; self.items.len()];
        for (index, item) in self.items.iter().enumerate().rev() {
            let form = usize::from(self.forms[index][left]);
            assignment[index] = form;
            left -= (item[form].bytes - item[smallest_form(item)].bytes).div_ceil(self.unit) as usize;
        }
        Some(assignment)
    }

    /// About `count` points of the best loss over bytes, both ends among them; each has less loss than the one before.
    pub fn frontier(&self, count: usize) -> Vec<Cost> {
        let steps: Vec<usize> =
            (0..self.best.len()).filter(|at| *at == 0 || self.best[*at] < self.best[*at - 1]).collect();
        let last = steps.len() - 1;
        let count = count.clamp(2, steps.len().max(2));
        let mut points: Vec<usize> = (0..count).map(|point| steps[point * last / (count - 1)]).collect();
        points.dedup();
        points.iter().map(|at| Cost { bytes: self.base + *at as u64 * self.unit, loss: self.best[*at] }).collect()
    }
}

/// The best that is never worse than `given`, if that fits.
pub fn assign(items: &[Item], given: &[usize], budget: u64) -> Option<Assignment> {
    let found = Solution::new(items, budget).assignment(budget)?;
    let given_cost = total(items, given);
    let keeps_given = given_cost.bytes <= budget && given_cost.loss < total(items, &found).loss;
    Some(if keeps_given { given.to_vec() } else { found })
}

/// The losses with one more item, and the form it takes, for each number of units.
fn with_item(before: &[f64], item: &Item, sizes: &[usize]) -> (Vec<f64>, Vec<u8>) {
    let mut order: Vec<usize> = (0..item.len()).collect();
    order.sort_by_key(|form| (sizes[*form], *form));
    let mut losses = vec![f64::INFINITY; before.len()];
    let mut taken = vec![0; before.len()];
    for form in order {
        let number = u8::try_from(form).expect("bug: too many forms");
        for at in sizes[form]..before.len() {
            let loss = before[at - sizes[form]] + item[form].loss;
            if loss < losses[at] {
                (losses[at], taken[at]) = (loss, number);
            }
        }
    }
    (losses, taken)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn item(forms: &[(u64, f64)]) -> Item {
        forms.iter().map(|(bytes, loss)| Cost { bytes: *bytes, loss: *loss }).collect()
    }

    fn items(scale: u64) -> impl Strategy<Value = Vec<Item>> {
        let one = prop::collection::vec((1..60_u64, 0.0..1.0_f64), 1..4);
        let one =
            one.prop_map(move |forms| forms.iter().map(|(b, loss)| Cost { bytes: b * scale, loss: *loss }).collect());
        prop::collection::vec(one, 1..7)
    }

    fn every(items: &[Item]) -> Vec<Assignment> {
        items.iter().fold(vec![vec![]], |all, item| {
            all.iter().flat_map(|some| (0..item.len()).map(|form| [&some[..], &[form]].concat())).collect()
        })
    }

    /// The best of all assignments.
    fn optimum(items: &[Item], budget: u64) -> f64 {
        let fitting = every(items).into_iter().map(|one| total(items, &one)).filter(|cost| cost.bytes <= budget);
        fitting.map(|cost| cost.loss).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn takes_what_saves_the_most_loss() {
        let items = [item(&[(4, 1.0), (8, 0.9)]), item(&[(4, 1.0), (8, 0.1)]), item(&[(4, 0.5), (8, 0.1)])];
        let given = [0; 3];
        assert_eq!(assign(&items, &given, 15), Some(vec![0, 0, 0]));
        assert_eq!(assign(&items, &given, 16), Some(vec![0, 1, 0]));
        assert_eq!(assign(&items, &given, 20), Some(vec![0, 1, 1]));
        assert_eq!(assign(&items, &given, 1000), Some(vec![1, 1, 1]));
    }

    #[test]
    fn sees_that_the_best_ratio_may_be_in_the_way() {
        let items = [item(&[(0, 0.30), (2, 0.0)]), item(&[(0, 1.0), (10, 0.0)])];
        assert_eq!(assign(&items, &[0, 0], 10), Some(vec![0, 1]));
    }

    #[test]
    fn has_no_answer_when_nothing_fits() {
        assert_eq!(assign(&[item(&[(4, 1.0), (8, 0.0)])], &[1], 3), None);
        assert_eq!(assign(&[], &[], 0), Some(vec![]));
    }

    #[test]
    fn a_larger_form_that_loses_more_is_not_taken() {
        assert_eq!(assign(&[item(&[(4, 0.1), (8, 0.2)])], &[1], 100), Some(vec![0]));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(8_100_852_736),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn is_the_best_of_all_assignments(items in items(256), share in 0.0..1.2_f64) {
            let (low, high) = (total(&items, &smallest(&items)).bytes, total(&items, &largest(&items)).bytes);
            let budget = (low as f64 * 0.9 + share * (high as f64 - low as f64 * 0.9)) as u64;
            match Solution::new(&items, budget).assignment(budget) {
                None => prop_assert_eq!(optimum(&items, budget), f64::INFINITY),
                Some(found) => {
                    let found = total(&items, &found);
                    prop_assert!(found.bytes <= budget);
                    prop_assert!((found.loss - optimum(&items, budget)).abs() < 1e-9, "{:?}", found);
                }
            }
        }

        // Sizes without a common divisor, far more bytes than units.
        #[test]
        fn is_never_worse_than_what_is_given_nor_over_the_budget(
            (items, picks, slack) in (items(1_000_003), prop::collection::vec(0..100_usize, 7), 0..100_000_000_u64),
        ) {
            let items: Vec<Item> = items
                .into_iter()
                .enumerate()
                .map(|(i, item)| item.into_iter().map(|cost| Cost { bytes: cost.bytes + 7 * i as u64, ..cost }).collect())
                .collect();
            let given: Vec<usize> = items.iter().zip(picks).map(|(item, pick)| pick % item.len()).collect();
            let given_cost = total(&items, &given);
            let budget = given_cost.bytes + slack;
            let found = total(&items, &assign(&items, &given, budget).expect("the assignment given fits"));
            prop_assert!(found.bytes <= budget, "{found:?} of {budget}");
            prop_assert!(found.loss <= given_cost.loss, "{found:?}, given {given_cost:?}");
        }

        #[test]
        fn the_frontier_only_falls_and_ends_at_the_best(items in items(64)) {
            let solution = Solution::new(&items, u64::MAX);
            let frontier = solution.frontier(16);
            prop_assert!(frontier.windows(2).all(|pair| pair[0].bytes < pair[1].bytes && pair[0].loss > pair[1].loss));
            for point in &frontier {
                let found = total(&items, &solution.assignment(point.bytes).unwrap());
                prop_assert!((found.loss - point.loss).abs() < 1e-9 && found.bytes <= point.bytes);
            }
            let last = frontier.last().unwrap();
            prop_assert!((last.loss - optimum(&items, u64::MAX)).abs() < 1e-9);
        }
    }
}
