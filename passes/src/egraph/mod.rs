//! Equality saturation over regions of a graph: all equal ways to compute a region, and the cheapest of them.
//!
//! The way through: [`region`] cuts the graph; [`terms`] reads a region as terms of [`language`]; egg applies
//! [`rules`]; [`extract`] picks the cheapest selection by [`cost`]; [`build`] makes ops of it. Layers of one shape are
//! regions of one shape: each shape is optimized once.
//!
//! Laws for rules: the right side computes the same value (a test proves it on random numbers); no bare commutativity;
//! a rule that applies to its own result is bounded by the node and iteration limits. There is no time limit, so the
//! result does not depend on the machine.

mod build;
mod build_terms;
mod cost;
mod extract;
mod language;
mod leaves;
mod region;
mod report;
pub mod rules;
mod terms;
mod uses;

pub use language::Nemo;
pub use leaves::Leaves;
pub use report::{Alternative, RegionReport, Report};
pub(crate) use terms::is_term;
pub(crate) use uses::Uses;

use crate::cost::{Target, Workload};
use build::{Change, Choice};
use cost::Pricing;
use egg::{EGraph, Id, Language, Rewrite, Runner, SimpleScheduler};
use extract::{Rank, Ranked, Selection, best_two};
use ir::IrError;
use ir::melior::{Context, ir::Module};
use ir::ops::Op;
use region::{Region, op_key, regions};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;
use terms::Terms;

/// A rule.
pub type Rule = Rewrite<Nemo, Leaves>;

/// Terms of one e-graph at most; regions have a few dozen.
const NODE_LIMIT: usize = 20_000;
/// Rounds of applying all rules at most; regions saturate in under ten.
const ITERATION_LIMIT: usize = 30;

/// What an e-graph pass does.
pub struct Optimizer<'r> {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Whether a rule could rewrite a producer and its consumer together.
    pub joined: &'r dyn Fn(&Op<'_, '_>, &Op<'_, '_>) -> bool,
    /// Whether a rule could rewrite an op by itself.
    pub alone: &'r dyn Fn(&Op<'_, '_>) -> bool,
    /// The GPU to optimize for.
    pub target: &'r Target,
    /// The step to optimize for.
    pub workload: Workload,
    /// Whether weights have the format they will be stored in, so that their bytes count.
    pub weights_are_final: bool,
}

/// A region's shape, optimized.
struct Optimized {
    /// What it becomes; `None` when nothing is better than what it is.
    choice: Option<Rc<Choice>>,
    /// Index of its report.
    report: usize,
}

impl Optimizer<'_> {
    /// Rewrites a module; no module when no region gets better.
    pub fn run<'c>(
        &self,
        context: &'c Context,
        module: &Module<'c>,
        uses: &Uses,
    ) -> Result<(Option<Module<'c>>, Report), IrError> {
        let mut shapes: HashMap<String, Optimized> = HashMap::new();
        let mut report = Report::new(self.target, self.workload);
        let mut changes = Vec::new();
        let mut replaced = HashSet::new();
        for region in regions(module, self.joined, self.alone)? {
            let terms = Terms::of(&region, uses);
            let outputs: Vec<Id> = terms.outputs.iter().map(|(_, id)| *id).collect();
            let shape = format!("{:?} {:?} {outputs:?}", terms.expr.as_ref(), terms.leaves.0);
            let optimized = shapes.entry(shape).or_insert_with(|| self.optimize(&terms, &outputs, &mut report));
            report.regions[optimized.report].places.push(place(&region));
            if let Some(choice) = &optimized.choice {
                replaced.extend(region.ops.iter().filter_map(op_key));
                changes.push(Change { terms, choice: Rc::clone(choice) });
            }
        }
        if changes.is_empty() {
            return Ok((None, report));
        }
        Ok((Some(build::rebuild(context, module, &changes, &replaced)?), report))
    }

    fn optimize(&self, terms: &Terms<'_, '_>, outputs: &[Id], report: &mut Report) -> Optimized {
        let (egraph, imported) = self.saturate(terms);
        let roots: Vec<Id> = outputs.iter().map(|id| egraph.find(imported[usize::from(*id)])).collect();
        let pricing = Pricing { egraph: &egraph, optimizer: self, roots: &roots };
        let (best, compared) = best_two(&egraph, &roots, |s| pricing.rank(s), |node| pricing.bound(node));
        let original = Selection::of(terms.expr.as_ref().iter().enumerate().map(|(index, node)| {
            let class = |id: Id| egraph.find(imported[usize::from(id)]);
            (egraph.find(imported[index]), node.clone().map_children(class))
        }));
        let original_rank =
            original.and_then(|selection| selection.reachable(&roots)).and_then(|selection| pricing.rank(&selection));
        let index = report.regions.len();
        report.regions.push(RegionReport::new(terms, &roots, &best, original_rank, compared));
        let better = |best: &Rank| original_rank.is_none_or(|original| best.compare(&original).is_lt());
        let choice = best.first().filter(|best| better(&best.rank)).map(|best| {
            let origins = imported_by_class(&egraph, &imported);
            Rc::new(choice(&egraph, &roots, best, &origins))
        });
        Optimized { choice, report: index }
    }

    /// The saturated e-graph of a region, and the class of each of its terms.
    fn saturate(&self, terms: &Terms<'_, '_>) -> (EGraph<Nemo, Leaves>, Vec<Id>) {
        let mut egraph = EGraph::new(terms.leaves.clone());
        let mut classes: Vec<Id> = Vec::new();
        for node in terms.expr.as_ref() {
            classes.push(egraph.add(node.clone().map_children(|child| classes[usize::from(child)])));
        }
        let runner: Runner<Nemo, Leaves> = Runner::new(terms.leaves.clone())
            .with_egraph(egraph)
            .with_scheduler(SimpleScheduler)
            .with_node_limit(NODE_LIMIT)
            .with_iter_limit(ITERATION_LIMIT)
            .with_time_limit(Duration::MAX)
            .run(&self.rules);
        (runner.egraph, classes)
    }
}

/// The first imported term of each class.
fn imported_by_class(egraph: &EGraph<Nemo, Leaves>, imported: &[Id]) -> HashMap<Id, Id> {
    let mut origins = HashMap::new();
    for (index, class) in imported.iter().enumerate() {
        origins.entry(egraph.find(*class)).or_insert(Id::from(index));
    }
    origins
}

fn choice(egraph: &EGraph<Nemo, Leaves>, roots: &[Id], best: &Ranked, origins: &HashMap<Id, Id>) -> Choice {
    let (expr, outputs, classes) = best.selection.terms(roots).unwrap_or_else(|| panic!("bug: a cyclic selection"));
    let types = classes.iter().map(|class| egraph[*class].data.clone()).collect();
    let origins = classes.iter().map(|class| origins.get(class).copied()).collect();
    Choice { expr, types, outputs, origins }
}

/// What a region is called in reports: what its ops come from, without repetition.
fn place(region: &Region<'_, '_>) -> String {
    let mut names: Vec<String> = Vec::new();
    for op in &region.ops {
        let name = crate::names::canonical(op);
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}
