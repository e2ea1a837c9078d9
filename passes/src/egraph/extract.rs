//! Choosing one term for every class that is needed: the cheapest graph, and the next.
//!
//! Graphs share values (the residual stream, a norm that several linears read), and costs belong to whole launches, so
//! the cost of a tree of terms says little. The e-graph of a region is small, though: all selections are enumerated in
//! a fixed order, cut off where the part that is chosen already costs more than the two best.

use super::language::Nemo;
use super::leaves::Leaves;
use egg::{EGraph, Id, Language, RecExpr};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// How good a selection is; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rank {
    /// Predicted time.
    pub seconds: f64,
    /// Among equals, fewer conversions between formats and bases that stand by themselves.
    pub conversions: usize,
    /// Then fewer terms.
    pub terms: usize,
}

impl Rank {
    /// The order of ranks. Times that differ by less than a femtosecond are equal: they differ by the order of adding.
    pub fn compare(&self, other: &Rank) -> Ordering {
        if (self.seconds - other.seconds).abs() > 1e-15 {
            return self.seconds.total_cmp(&other.seconds);
        }
        (self.conversions, self.terms).cmp(&(other.conversions, other.terms))
    }
}

/// One term for each needed class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection(BTreeMap<Id, Nemo>);

impl Selection {
    /// These terms by class; `None` when a class has two different ones.
    pub fn of(terms: impl Iterator<Item = (Id, Nemo)>) -> Option<Self> {
        let mut selection = Selection::default();
        for (class, node) in terms {
            if selection.0.insert(class, node.clone()).is_some_and(|other| other != node) {
                return None;
            }
        }
        Some(selection)
    }

    /// The part of the selection that `roots` need.
    pub fn reachable(self, roots: &[Id]) -> Option<Self> {
        let (_, _, needed) = self.terms(roots)?;
        Some(Selection(self.0.into_iter().filter(|(class, _)| needed.contains(class)).collect()))
    }

    /// The terms by class; their children are classes.
    pub fn nodes(&self) -> &BTreeMap<Id, Nemo> {
        &self.0
    }

    /// The selection as one list of terms, children first, and the place of each root in it. `None` when a term would
    /// be computed from itself.
    pub fn terms(&self, roots: &[Id]) -> Option<(RecExpr<Nemo>, Vec<Id>, Vec<Id>)> {
        let mut order = Order {
            selection: self,
            done: BTreeMap::new(),
            open: BTreeSet::new(),
            terms: RecExpr::default(),
            classes: Vec::new(),
        };
        let places = roots.iter().map(|root| order.visit(*root)).collect::<Option<_>>()?;
        Some((order.terms, places, order.classes))
    }
}

/// A depth-first walk over a selection.
struct Order<'s> {
    selection: &'s Selection,
    done: BTreeMap<Id, Id>,
    open: BTreeSet<Id>,
    terms: RecExpr<Nemo>,
    classes: Vec<Id>,
}

impl Order<'_> {
    fn visit(&mut self, class: Id) -> Option<Id> {
        if let Some(place) = self.done.get(&class) {
            return Some(*place);
        }
        if !self.open.insert(class) {
            return None;
        }
        let mut node = self.selection.0.get(&class)?.clone();
        for child in node.children_mut() {
            *child = self.visit(*child)?;
        }
        let place = self.terms.add(node);
        self.classes.push(class);
        self.done.insert(class, place);
        Some(place)
    }
}

/// A selection with its rank.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// How good it is.
    pub rank: Rank,
    /// What is selected.
    pub selection: Selection,
}

/// The selections tried at most; a region that has more keeps the best of these.
const MAX_SELECTIONS: usize = 100_000;

/// The best selection for `roots` and the next best, best first, and how many were compared.
pub fn best_two(
    egraph: &EGraph<Nemo, Leaves>,
    roots: &[Id],
    rank: impl Fn(&Selection) -> Option<Rank>,
    bound: impl Fn(&Nemo) -> f64,
) -> (Vec<Ranked>, usize) {
    let mut search = Search { egraph, roots, rank, bound, best: Vec::new(), tried: 0 };
    let pending: BTreeSet<Id> = roots.iter().map(|root| egraph.find(*root)).collect();
    search.run(&mut Selection::default(), pending, 0.0);
    (search.best, search.tried)
}

struct Search<'e, R, B> {
    egraph: &'e EGraph<Nemo, Leaves>,
    roots: &'e [Id],
    rank: R,
    bound: B,
    best: Vec<Ranked>,
    tried: usize,
}

impl<R: Fn(&Selection) -> Option<Rank>, B: Fn(&Nemo) -> f64> Search<'_, R, B> {
    fn run(&mut self, selection: &mut Selection, mut pending: BTreeSet<Id>, cost: f64) {
        if self.tried >= MAX_SELECTIONS || self.best.get(1).is_some_and(|worst| cost > worst.rank.seconds + 1e-15) {
            return;
        }
        let Some(class) = pending.pop_last() else {
            self.complete(selection);
            return;
        };
        for node in self.choices(class) {
            let cost = cost + (self.bound)(&node);
            let mut needed = pending.clone();
            needed.extend(node.children().iter().filter(|child| !selection.0.contains_key(child) && **child != class));
            selection.0.insert(class, node);
            self.run(selection, needed, cost);
            selection.0.remove(&class);
        }
    }

    /// The terms of a class, in an order that does not depend on how they were found. A leaf is at hand already.
    fn choices(&self, class: Id) -> Vec<Nemo> {
        let nodes = self.egraph[class].nodes.iter();
        let mut nodes: Vec<_> = nodes.map(|node| node.clone().map_children(|child| self.egraph.find(child))).collect();
        if let Some(leaf) = nodes.iter().find(|node| node.is_leaf()) {
            return vec![leaf.clone()];
        }
        nodes.retain(|node| !node.children().contains(&class));
        nodes.sort();
        nodes.dedup();
        nodes
    }

    fn complete(&mut self, selection: &Selection) {
        self.tried += 1;
        if selection.terms(self.roots).is_none() {
            return;
        }
        let Some(rank) = (self.rank)(selection) else { return };
        let place = self.best.iter().position(|other| rank.compare(&other.rank) == Ordering::Less);
        self.best.insert(place.unwrap_or(self.best.len()), Ranked { rank, selection: selection.clone() });
        self.best.truncate(2);
    }
}
