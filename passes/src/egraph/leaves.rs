//! What the leaves of a term stand for, and the types of terms.

use super::language::{Format, Leaf, Nemo};
use egg::{Analysis, DidMerge, EGraph, Id};
use ir::types::{Act, PLAIN, Storage, Weight};
use ir::weights::{Rotation, RotationKind};

/// A leaf, as far as rewriting and costs depend on it. Names are not part of it, so that the same layer elsewhere in the
/// model has equal leaves.
#[derive(Clone, Debug, PartialEq)]
pub enum LeafKind {
    /// An activation computed elsewhere; `read_later` when something outside reads it after this region.
    Value { act: Act, read_later: bool },
    /// The weight of a linear or embedding.
    Weight(Weight),
    /// A norm weight.
    Vector { len: usize },
    /// The attributes of a norm.
    Norm { eps: f64 },
    /// The attributes of a gated norm.
    Gate { eps: f64, group_size: i64 },
    /// A convolution and its state.
    Conv { channels: usize, kernel: usize },
    /// A selective scan and its state.
    Scan { heads: usize, head_dim: usize, state_size: usize, storage: Storage },
    /// The attributes of an attention and its state.
    Attention { appended_bytes: u64 },
    /// An orthogonal matrix.
    Rotation(Rotation),
}

/// What is known of a term.
#[derive(Clone, Debug, PartialEq)]
pub enum TermType {
    /// An activation, or what a kernel computes before it is emitted.
    Act(Act),
    /// A weight.
    Weight(Weight),
    /// Anything else.
    Other,
}

impl TermType {
    /// The activation.
    ///
    /// # Panics
    /// When the term is none: a rule is wrong.
    pub fn act(&self) -> &Act {
        match self {
            TermType::Act(act) => act,
            other => panic!("bug: {other:?} stands for an activation"),
        }
    }

    fn weight(&self) -> &Weight {
        match self {
            TermType::Weight(weight) => weight,
            other => panic!("bug: {other:?} stands for a weight"),
        }
    }
}

/// Types of terms: what rules must preserve, and what costs and the way back to MLIR need.
#[derive(Clone, Debug, Default)]
pub struct Leaves(pub Vec<LeafKind>);

impl Leaves {
    /// The leaf.
    pub fn kind(&self, leaf: Leaf) -> &LeafKind {
        &self.0[leaf.0]
    }

    fn rotation(&self, term: &Nemo) -> Option<&Rotation> {
        match term {
            Nemo::Leaf(leaf) => match self.kind(*leaf) {
                LeafKind::Rotation(rotation) => Some(rotation),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Whether a kernel can apply this rotation to what it computes.
pub fn runs_online(rotation: &Rotation) -> bool {
    rotation.kind == RotationKind::Hadamard && rotation.size.is_power_of_two()
}

/// The leaf that a class holds, if it holds one.
pub fn leaf_of(egraph: &EGraph<Nemo, Leaves>, class: Id) -> Option<&LeafKind> {
    egraph[class].nodes.iter().find_map(|node| match node {
        Nemo::Leaf(leaf) => Some(egraph.analysis.kind(*leaf)),
        _ => None,
    })
}

/// The rotation that a class stands for; `None` for `none`.
pub fn rotation_of(egraph: &EGraph<Nemo, Leaves>, class: Id) -> Option<&Rotation> {
    egraph[class].nodes.iter().find_map(|node| egraph.analysis.rotation(node))
}

fn stored(act: &Act, format: Format) -> Act {
    act.stored_as(format.0, format.granularity())
}

/// The format that a class stands for.
pub(super) fn format_of(egraph: &EGraph<Nemo, Leaves>, class: Id) -> Format {
    egraph[class]
        .nodes
        .iter()
        .find_map(|node| match node {
            Nemo::Format(format) => Some(*format),
            _ => None,
        })
        .unwrap_or_else(|| panic!("bug: a rule puts a term where a format belongs"))
}

impl Analysis<Nemo> for Leaves {
    type Data = TermType;

    fn make(egraph: &mut EGraph<Nemo, Self>, node: &Nemo, _id: Id) -> TermType {
        let act = |id: &Id| egraph[*id].data.act().clone();
        let float = |id: &Id| stored(&act(id), Format::F32);
        let basis = |id: &Id| rotation_of(egraph, *id).map_or(PLAIN, |rotation| &rotation.name);
        TermType::Act(match node {
            Nemo::Absent | Nemo::Format(_) => return TermType::Other,
            Nemo::Leaf(leaf) => match egraph.analysis.kind(*leaf) {
                LeafKind::Value { act, .. } => act.clone(),
                LeafKind::Weight(weight) => return TermType::Weight(weight.clone()),
                _ => return TermType::Other,
            },
            Nemo::RotateIn([r, w]) => {
                let weight = egraph[*w].data.weight().clone();
                return TermType::Weight(Weight { basis_in: basis(r).to_owned(), storage: Storage::F32, ..weight });
            }
            Nemo::RotateOut([r, w]) => {
                let weight = egraph[*w].data.weight().clone();
                return TermType::Weight(Weight { basis_out: basis(r).to_owned(), storage: Storage::F32, ..weight });
            }
            // A rotation of the rows of a table is one of its columns.
            Nemo::Embed([w]) => {
                let table = egraph[*w].data.weight();
                Act::f32(table.cols).in_basis(&table.basis_in)
            }
            Nemo::Linear([w, format, _]) => {
                stored(&linear_result(egraph[*w].data.weight()), format_of(egraph, *format))
            }
            Nemo::LinearRelu2([w, _]) | Nemo::LinearAdd([w, _, _]) => linear_result(egraph[*w].data.weight()),
            Nemo::Dequantize([x]) => float(x),
            Nemo::Rotate([r, x]) => act(x).in_basis(basis(r)),
            Nemo::Unrotate([_, x]) => act(x).in_basis(PLAIN),
            Nemo::Emit([r, format, k]) => {
                let y = stored(&act(k), format_of(egraph, *format));
                if rotation_of(egraph, *r).is_some() { y.in_basis(basis(r)) } else { y }
            }
            Nemo::Scan([s, _, _]) => match leaf_of(egraph, *s) {
                Some(LeafKind::Scan { heads, head_dim, .. }) => Act::f32(heads * head_dim),
                other => panic!("bug: {other:?} stands for a scan"),
            },
            Nemo::Mixer([_, _, _, _, z, _, _]) => act(z),
            // Each head of y is a mean of values, so it lives where the values live.
            Nemo::Attention([_, q, _, v]) => act(q).in_basis(&act(v).basis),
            Nemo::Add([x, _])
            | Nemo::Select([x])
            | Nemo::Convert([x])
            | Nemo::Conv([_, x])
            | Nemo::Copy([x])
            | Nemo::Relu2([x])
            | Nemo::Norm([_, _, x])
            | Nemo::NormAdd([_, _, x, _])
            | Nemo::Sum([x])
            | Nemo::Gate([_, _, x, _]) => act(x),
        })
    }

    /// Equal terms have equal types; a rule that breaks this is wrong.
    fn merge(&mut self, a: &mut TermType, b: TermType) -> DidMerge {
        assert_eq!(*a, b, "bug: a rule equates terms of different types");
        DidMerge(false, false)
    }
}

fn linear_result(weight: &Weight) -> Act {
    Act {
        cols: weight.rows,
        storage: Storage::F32,
        granularity: Format::F32.granularity(),
        basis: weight.basis_out.clone(),
    }
}
