//! What an e-graph pass chose and what that beat, for people.

use super::extract::{Rank, Ranked};
use super::language::Nemo;
use super::terms::Terms;
use crate::cost::{Target, Workload};
use crate::lower_to_plan::Prediction;
use egg::{Id, Language, RecExpr};
use std::fmt;

/// A way to compute a region.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Predicted time.
    pub seconds: f64,
    /// Its terms, one a line.
    pub terms: Vec<String>,
}

/// What was decided for all regions of one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionReport {
    /// The ops of each region of this shape.
    pub places: Vec<String>,
    /// Predicted time of the region as it was; `None` when it held conversions that rewriting removes.
    pub original_seconds: Option<f64>,
    /// What was chosen.
    pub chosen: Option<Alternative>,
    /// The best graph other than the chosen one.
    pub runner_up: Option<Alternative>,
    /// Number of graphs compared.
    pub compared: usize,
}

/// What a run of an e-graph pass decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Name of the target.
    pub target: &'static str,
    /// The step that costs are for.
    pub workload: Workload,
    /// What is predicted for the whole graph as it was; `None` when it cannot be lowered as it is.
    pub before: Option<Prediction>,
    /// What is predicted for the rewritten graph.
    pub after: Option<Prediction>,
    /// One entry for each shape of region, in order of first appearance.
    pub regions: Vec<RegionReport>,
}

impl Report {
    pub(super) fn new(target: &Target, workload: Workload) -> Self {
        Report { target: target.name, workload, before: None, after: None, regions: Vec::new() }
    }
}

impl RegionReport {
    pub(super) fn new(
        terms: &Terms<'_, '_>,
        roots: &[Id],
        best: &[Ranked],
        original: Option<Rank>,
        compared: usize,
    ) -> Self {
        let alternative = |ranked: &Ranked| {
            let (expr, _, _) = ranked.selection.terms(roots)?;
            Some(Alternative { seconds: ranked.rank.seconds, terms: lines(&expr, terms) })
        };
        RegionReport {
            places: Vec::new(),
            original_seconds: original.map(|rank| rank.seconds),
            chosen: best.first().and_then(alternative),
            runner_up: best.get(1).and_then(alternative),
            compared,
        }
    }
}

/// The terms that compute something, one a line, operands by number.
fn lines(expr: &RecExpr<Nemo>, terms: &Terms<'_, '_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for node in expr.as_ref() {
        let name = match node {
            Nemo::Leaf(leaf) => terms.describe(*leaf),
            _ if node.is_leaf() => node.to_string(),
            _ => {
                let operands: Vec<_> = node.children().iter().map(|id| names[usize::from(*id)].as_str()).collect();
                let name = format!("%{}", lines.len());
                lines.push(format!("{name} = {node} {}", operands.join(" ")));
                name
            }
        };
        names.push(name);
    }
    lines
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Workload { rows, sequences } = self.workload;
        writeln!(f, "target {}, {rows} tokens of {sequences} sequences", self.target)?;
        for (name, prediction) in [("before", self.before), ("after", self.after)] {
            let Some(Prediction { launches, seconds }) = prediction else { continue };
            writeln!(f, "{name}: {launches} launches, {:.1} us predicted", seconds * 1e6)?;
        }
        for region in &self.regions {
            write!(f, "\n{region}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RegionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.places.len() == 1 { String::new() } else { format!(" x {}", self.places.len()) };
        writeln!(f, "region{times}: {}", self.places.first().map_or("", String::as_str))?;
        if let Some(seconds) = self.original_seconds {
            writeln!(f, "  as it was: {:.3} us", seconds * 1e6)?;
        }
        let alternatives = [("chosen", &self.chosen), ("runner-up", &self.runner_up)];
        for (name, alternative) in alternatives {
            let Some(alternative) = alternative else { continue };
            writeln!(f, "  {name}: {:.3} us", alternative.seconds * 1e6)?;
            for line in &alternative.terms {
                writeln!(f, "    {line}")?;
            }
        }
        writeln!(f, "  of {} graphs", self.compared)
    }
}
