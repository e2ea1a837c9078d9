//! What a selection of terms costs: the launches it becomes, on a target.
//!
//! The traffic and arithmetic of each launch are those of [`crate::cost`], which lower-to-plan also writes into the plan.

use super::Optimizer;
use super::extract::{Rank, Selection};
use super::language::{Format, Nemo};
use super::leaves::{LeafKind, Leaves, TermType, format_of, leaf_of, rotation_of};
use crate::cost::{self, ConvSize, Cost, Emitted, ScanSize};
use egg::{EGraph, Id};
use ir::types::{Act, Weight};
use std::collections::BTreeSet;

/// Prices selections of one e-graph.
pub struct Pricing<'e> {
    /// The e-graph.
    pub egraph: &'e EGraph<Nemo, Leaves>,
    /// What to optimize for.
    pub optimizer: &'e Optimizer<'e>,
    /// Classes that something outside the region reads.
    pub roots: &'e [Id],
}

impl Pricing<'_> {
    /// Rank of a selection; `None` when no sequence of launches computes it.
    pub fn rank(&self, selection: &Selection) -> Option<Rank> {
        self.check(selection)?;
        let mut seconds = 0.0;
        let mut inputs: BTreeSet<Id> = BTreeSet::new();
        for node in selection.nodes().values() {
            // Linears of one input share a launch, and read it once.
            if let Nemo::Linear([_, _, x]) | Nemo::LinearRelu2([_, x]) = node {
                seconds += self.segment_seconds(node)?;
                if inputs.insert(*x) {
                    seconds += self.seconds(cost::linear_input(self.act(*x)));
                }
            } else if let Some(cost) = self.launch(node, selection) {
                seconds += self.seconds(cost?);
            }
            if let Some(updated) = self.updated(node, selection)
                && self.is_read_later(updated)
            {
                seconds += self.seconds(cost::copy(self.act(updated)));
            }
        }
        let nodes = selection.nodes();
        let conversions = nodes.values().filter(|node| self.converts(node, selection)).count();
        Some(Rank { seconds, conversions, terms: nodes.len() })
    }

    /// What a term costs at least in any selection.
    pub fn bound(&self, node: &Nemo) -> f64 {
        match node {
            Nemo::Linear(_) | Nemo::LinearRelu2(_) => self.segment_seconds(node).unwrap_or(0.0),
            Nemo::LinearAdd(_) | Nemo::Add(_) | Nemo::Emit(_) | Nemo::Conv(_) | Nemo::Scan(_) => {
                self.optimizer.target.launch_seconds
            }
            _ => 0.0,
        }
    }

    /// Rules of what can run: a kernel is launched where its result is emitted, once; a state is updated once.
    fn check(&self, selection: &Selection) -> Option<()> {
        let nodes = selection.nodes();
        let emitted: Vec<Id> =
            nodes.values().filter_map(|node| if let Nemo::Emit([_, _, k]) = node { Some(*k) } else { None }).collect();
        let mut states = BTreeSet::new();
        for node in nodes.values() {
            match node {
                Nemo::Sum([k]) if !emitted.contains(k) => return None,
                Nemo::NormAdd(_) | Nemo::Mixer(_) | Nemo::Attention(_) => {
                    let launches = emitted.iter().filter(|k| nodes.get(k) == Some(node)).count();
                    (launches <= 1).then_some(())?;
                }
                _ => {}
            }
            let used: &[Id] = match node {
                Nemo::Conv([c, _]) => &[*c],
                Nemo::Scan([s, _, _]) => &[*s],
                Nemo::Mixer([c, s, ..]) => &[*c, *s],
                Nemo::Attention([a, ..]) => &[*a],
                _ => &[],
            };
            for state in used {
                states.insert(*state).then_some(())?;
            }
        }
        Some(())
    }

    fn seconds(&self, cost: Cost) -> f64 {
        self.optimizer.target.seconds(cost, self.optimizer.workload)
    }

    fn linear_segment(&self, weight: &Weight, y: &Act, residual: bool) -> Cost {
        let cost = cost::linear_segment(weight, y, residual);
        Cost { fixed_bytes: if self.optimizer.weights_are_final { cost.fixed_bytes } else { 0 }, ..cost }
    }

    /// Bytes and operations of a linear's own weight and result, without the launch, which its siblings share.
    fn segment_seconds(&self, node: &Nemo) -> Option<f64> {
        let (weight, format) = match node {
            Nemo::Linear([w, format, _]) => (*w, format_of(self.egraph, *format)),
            Nemo::LinearRelu2([w, _]) => (*w, Format::F32),
            _ => return None,
        };
        let weight = self.weight(weight)?;
        let y = Act::f32(weight.rows).stored_as(format.0, format.granularity());
        let launch = self.seconds(self.linear_segment(weight, &y, false));
        Some(launch - self.optimizer.target.launch_seconds)
    }

    /// The launch of a term: `None` when it needs none, `Some(None)` when there is no such kernel.
    fn launch(&self, node: &Nemo, selection: &Selection) -> Option<Option<Cost>> {
        Some(match node {
            Nemo::Embed([w]) if self.optimizer.weights_are_final => {
                self.weight(*w).map(|table| cost::embed(table, &Act::f32(table.cols)))
            }
            Nemo::LinearAdd([w, r, x]) => {
                self.weight(*w).map(|w| cost::linear_input(self.act(*x)) + self.linear_segment(w, self.act(*r), true))
            }
            Nemo::Add([x, _]) => Some(cost::add(self.act(*x))),
            Nemo::Select([x]) => Some(cost::copy(self.act(*x))),
            Nemo::Dequantize([x]) => {
                let sums = self.act(*x);
                Some(cost::dequantize(sums, &sums.stored_as(Format::F32.0, Format::F32.granularity())))
            }
            Nemo::Rotate([r, x]) | Nemo::Unrotate([r, x]) => {
                Some(cost::map(self.act(*x), false, Emitted { y: self.act(*x), hadamard_block: self.block(*r) }))
            }
            Nemo::Conv([c, x]) => self.conv(*c).map(|size| cost::conv1d(self.act(*x), size)),
            Nemo::Scan([s, xbc, dt]) => self.scan(*s).map(|size| {
                let y = Act::f32(size.heads * size.head_dim);
                cost::ssm_scan(self.act(*xbc), self.act(*dt), &y, size)
            }),
            Nemo::Emit([r, format, k]) => self.emit(*r, *format, selection.nodes().get(k)?),
            _ => return None,
        })
    }

    fn emit(&self, rotation: Id, format: Id, kernel: &Nemo) -> Option<Cost> {
        let format = format_of(self.egraph, format);
        let y = |like: &Act| like.stored_as(format.0, format.granularity());
        let hadamard_block = self.block(rotation);
        Some(match kernel {
            Nemo::Copy([x]) => cost::map(self.act(*x), false, Emitted { y: &y(self.act(*x)), hadamard_block }),
            Nemo::Relu2([x]) => cost::map(self.act(*x), true, Emitted { y: &y(self.act(*x)), hadamard_block }),
            Nemo::Norm([_, w, x]) => {
                cost::norm(self.act(*x), false, self.len(*w), Emitted { y: &y(self.act(*x)), hadamard_block })
            }
            Nemo::NormAdd([_, w, x, _]) => {
                cost::norm(self.act(*x), true, self.len(*w), Emitted { y: &y(self.act(*x)), hadamard_block })
            }
            Nemo::Gate([_, w, x, z]) => {
                let emitted = Emitted { y: &y(self.act(*x)), hadamard_block };
                cost::gate(self.act(*x), self.act(*z), self.len(*w), emitted)
            }
            Nemo::Mixer([c, s, _, w, z, xbc, dt]) => {
                let inputs = (self.act(*z), self.act(*xbc), self.act(*dt));
                let emitted = Emitted { y: &y(inputs.0), hadamard_block };
                cost::mixer(inputs, self.conv(*c)?, self.scan(*s)?, self.len(*w), emitted)
            }
            Nemo::Attention([a, q, k, v]) => {
                let Some(LeafKind::Attention { appended_bytes }) = leaf_of(self.egraph, *a) else { return None };
                let emitted = Emitted { y: &y(self.act(*q)), hadamard_block };
                cost::attention(self.act(*q), self.act(*k), self.act(*v), *appended_bytes, emitted)
            }
            _ => return None,
        })
    }

    /// The value that a term replaces by a sum in place.
    fn updated(&self, node: &Nemo, selection: &Selection) -> Option<Id> {
        match node {
            Nemo::LinearAdd([_, residual, _]) => Some(*residual),
            Nemo::Emit([_, _, k]) => match selection.nodes().get(k) {
                Some(Nemo::NormAdd([_, _, x, _])) => Some(*x),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_read_later(&self, value: Id) -> bool {
        self.roots.contains(&value)
            || matches!(leaf_of(self.egraph, value), Some(LeafKind::Value { read_later: true, .. }))
    }

    /// Whether a term does nothing but change a format or a basis.
    fn converts(&self, node: &Nemo, selection: &Selection) -> bool {
        match node {
            Nemo::Convert(_) | Nemo::Dequantize(_) | Nemo::Rotate(_) | Nemo::Unrotate(_) => true,
            Nemo::Emit([_, _, k]) => matches!(selection.nodes().get(k), Some(Nemo::Copy(_))),
            _ => false,
        }
    }

    fn act(&self, class: Id) -> &Act {
        self.egraph[class].data.act()
    }

    fn weight(&self, class: Id) -> Option<&Weight> {
        match &self.egraph[class].data {
            TermType::Weight(weight) => Some(weight),
            _ => None,
        }
    }

    fn len(&self, class: Id) -> Option<usize> {
        match leaf_of(self.egraph, class) {
            Some(LeafKind::Vector { len }) => Some(*len),
            _ => None,
        }
    }

    fn conv(&self, class: Id) -> Option<ConvSize> {
        match leaf_of(self.egraph, class) {
            Some(LeafKind::Conv { channels, kernel }) => Some(ConvSize { channels: *channels, kernel: *kernel }),
            _ => None,
        }
    }

    fn scan(&self, class: Id) -> Option<ScanSize> {
        match leaf_of(self.egraph, class) {
            Some(LeafKind::Scan { heads, head_dim, state_size, storage }) => {
                Some(ScanSize { heads: *heads, head_dim: *head_dim, state_size: *state_size, storage: *storage })
            }
            _ => None,
        }
    }

    fn block(&self, rotation: Id) -> Option<usize> {
        rotation_of(self.egraph, rotation).map(|rotation| rotation.size)
    }
}
