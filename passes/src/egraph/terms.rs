//! From ops to terms.

use super::language::{Format, Leaf, Nemo};
use super::leaves::{LeafKind, Leaves};
use super::region::Region;
use super::uses::Uses;
use crate::uses::key;
use crate::{cost, names};
use egg::{Id, RecExpr};
use ir::melior::ir::{Value, operation::OperationLike};
use ir::module::{defining, type_of};
use ir::ops::{Op, views};
use ir::types::{Act, NemoType, PLAIN, Storage, Weight};
use ir::weights::{Rotation, RotationKind};
use std::collections::{HashMap, HashSet};

/// What a leaf is in the graph at hand.
#[derive(Clone)]
pub enum Source<'c, 'm> {
    /// A value from outside the region.
    Value(Value<'c, 'm>),
    /// The attributes, weight and states of an op.
    Op(Op<'c, 'm>),
    /// An orthogonal matrix.
    Rotation(Rotation),
}

/// A region as terms.
pub struct Terms<'c, 'm> {
    /// The terms, operands first.
    pub expr: RecExpr<Nemo>,
    /// What the leaves are, as far as rules and costs care.
    pub leaves: Leaves,
    /// What the leaves are in this region.
    pub sources: Vec<Source<'c, 'm>>,
    /// Names of bases; types of terms call the first `0` and so on, so that equal layers have equal terms.
    pub bases: Vec<String>,
    /// Values that something outside reads, with their terms.
    pub outputs: Vec<(Value<'c, 'm>, Id)>,
    /// The op that a term comes from.
    pub origins: HashMap<Id, Op<'c, 'm>>,
}

/// Whether an op can be a term, unless its region has to stay as it is.
pub fn is_term(op: &Op<'_, '_>, uses: &Uses) -> bool {
    match op {
        Op::Embed(_) | Op::Add(_) | Op::SelectOutputs(_) | Op::Convert(_) | Op::Relu2(_) => true,
        Op::RmsNorm(_) | Op::GatedRmsNorm(_) | Op::Quantize(_) | Op::Map(_) => true,
        Op::Rotate(rotate) => rotate.rotation().is_some(),
        Op::Linear(linear) => linear.residual().is_none() || linear.epilogue().is_none(),
        Op::Dequantize(dequantize) => act(dequantize.x()).storage == Storage::I32,
        Op::Conv1d(conv) => uses.updates(conv.state(), conv.new_state()),
        Op::SsmScan(scan) => uses.updates(scan.state(), scan.new_state()),
        Op::Attention(attention) => uses.updates(attention.state(), attention.new_state()),
        Op::Mixer(mixer) => {
            uses.updates(mixer.conv_state(), mixer.new_conv_state())
                && uses.updates(mixer.ssm_state(), mixer.new_ssm_state())
        }
        _ => false,
    }
}

fn act(value: Value<'_, '_>) -> Act {
    match type_of(value) {
        NemoType::Act(act) => act,
        other => panic!("bug: {other} is no activation"),
    }
}

impl<'c, 'm> Terms<'c, 'm> {
    /// The terms of a region whose ops all satisfy [`is_term`].
    pub fn of(region: &Region<'c, 'm>, uses: &Uses) -> Self {
        let members: HashSet<usize> = region.positions.iter().copied().collect();
        let mut reader = Reader {
            terms: Terms {
                expr: RecExpr::default(),
                leaves: Leaves::default(),
                sources: Vec::new(),
                bases: Vec::new(),
                outputs: Vec::new(),
                origins: HashMap::new(),
            },
            values: HashMap::new(),
            uses,
            members: &members,
            position: 0,
        };
        for (op, position) in region.ops.iter().zip(&region.positions) {
            reader.position = *position;
            reader.op(*op);
        }
        let mut terms = reader.terms;
        for op in &region.ops {
            for result in op.operation().results() {
                let value: Value<'c, 'm> = result.into();
                let Some(id) = reader.values.get(&key(value)) else { continue };
                if uses.leaves_region(value, &members) || uses.is_unused(value) && has_state(op) {
                    terms.outputs.push((value, *id));
                }
            }
        }
        terms
    }
}

fn has_state(op: &Op<'_, '_>) -> bool {
    matches!(op, Op::Conv1d(_) | Op::SsmScan(_) | Op::Mixer(_) | Op::Attention(_))
}

struct Reader<'u, 'c, 'm> {
    terms: Terms<'c, 'm>,
    /// Terms of values by key.
    values: HashMap<usize, Id>,
    uses: &'u Uses,
    members: &'u HashSet<usize>,
    /// Of the op being read.
    position: usize,
}

impl<'c, 'm> Reader<'_, 'c, 'm> {
    fn add(&mut self, node: Nemo) -> Id {
        self.terms.expr.add(node)
    }

    /// What a basis is called in this region's terms.
    fn basis(&mut self, name: &str) -> String {
        if name == PLAIN {
            return name.to_owned();
        }
        let bases = &mut self.terms.bases;
        let known = bases.iter().position(|basis| basis == name);
        let index = known.unwrap_or_else(|| {
            bases.push(name.to_owned());
            bases.len() - 1
        });
        index.to_string()
    }

    fn leaf(&mut self, kind: LeafKind, source: Source<'c, 'm>) -> Id {
        let leaf = Leaf(self.terms.sources.len());
        self.terms.leaves.0.push(kind);
        self.terms.sources.push(source);
        self.add(Nemo::Leaf(leaf))
    }

    fn value(&mut self, value: Value<'c, 'm>) -> Id {
        if let Some(id) = self.values.get(&key(value)) {
            return *id;
        }
        let kind = match type_of(value) {
            NemoType::Vector(vector) => LeafKind::Vector { len: vector.len },
            NemoType::Act(act) => {
                let read_later = self.uses.read_after(value, self.position, self.members);
                let act = Act { basis: self.basis(&act.basis), ..act };
                LeafKind::Value { act, read_later }
            }
            other => panic!("bug: {other} is no operand of a term"),
        };
        let id = self.leaf(kind, Source::Value(value));
        self.values.insert(key(value), id);
        id
    }

    fn optional(&mut self, value: Option<Value<'c, 'm>>) -> Id {
        match value {
            Some(value) => self.value(value),
            None => self.add(Nemo::Absent),
        }
    }

    fn rotation(&mut self, rotation: Rotation) -> Id {
        let kind = LeafKind::Rotation(Rotation { name: self.basis(&rotation.name), ..rotation.clone() });
        let known = self.terms.leaves.0.iter().position(|other| *other == kind);
        match known {
            Some(index) => self.add(Nemo::Leaf(Leaf(index))),
            None => self.leaf(kind, Source::Rotation(rotation)),
        }
    }

    /// The term of an emitted result.
    fn emit(&mut self, y: Value<'c, 'm>, hadamard_block: Option<i64>, kernel: Id) -> Id {
        let act = act(y);
        let rotation = match hadamard_block.and_then(|block| usize::try_from(block).ok()) {
            Some(size) => {
                self.rotation(Rotation { name: act.basis.clone(), kind: RotationKind::Hadamard, size, seed: 0 })
            }
            None => self.add(Nemo::Absent),
        };
        let format = self.add(Nemo::Format(Format(act.storage)));
        self.add(Nemo::Emit([rotation, format, kernel]))
    }

    fn defines(&mut self, op: Op<'c, 'm>, value: Value<'c, 'm>, id: Id) {
        self.values.insert(key(value), id);
        self.terms.origins.entry(id).or_insert(op);
    }

    fn op(&mut self, op: Op<'c, 'm>) {
        let (y, id) = match op {
            Op::Embed(embed) => {
                let table = self.weight(embed.table(), op);
                (embed.y(), self.add(Nemo::Embed([table])))
            }
            Op::Linear(linear) => (linear.y(), self.linear(op, linear)),
            Op::Add(add) => {
                let operands = [self.value(add.a()), self.value(add.b())];
                (add.y(), self.add(Nemo::Add(operands)))
            }
            Op::SelectOutputs(select) => {
                let x = self.value(select.x());
                (select.y(), self.add(Nemo::Select([x])))
            }
            Op::Convert(convert) => {
                let x = self.value(convert.x());
                (convert.y(), self.add(Nemo::Convert([x])))
            }
            Op::Dequantize(dequantize) => {
                let x = self.value(dequantize.x());
                (dequantize.y(), self.add(Nemo::Dequantize([x])))
            }
            Op::Rotate(rotate) => {
                let Some(rotation) = rotate.rotation() else { return };
                let operands = [self.rotation(rotation), self.value(rotate.x())];
                let node = if rotate.transpose() { Nemo::Unrotate(operands) } else { Nemo::Rotate(operands) };
                (rotate.y(), self.add(node))
            }
            Op::Relu2(relu2) => (relu2.y(), self.map(relu2.x(), relu2.y(), true, None)),
            Op::Quantize(quantize) => (quantize.y(), self.map(quantize.x(), quantize.y(), false, None)),
            Op::Map(map) => (map.y(), self.map(map.x(), map.y(), map.relu2(), map.hadamard_block())),
            Op::RmsNorm(norm) => (norm.y(), self.rms_norm(op, norm)),
            Op::GatedRmsNorm(norm) => {
                let attributes = LeafKind::Gate { eps: norm.eps(), group_size: norm.group_size() };
                let operands = [
                    self.leaf(attributes, Source::Op(op)),
                    self.optional(norm.weight()),
                    self.value(norm.x()),
                    self.value(norm.z()),
                ];
                let kernel = self.add(Nemo::Gate(operands));
                (norm.y(), self.emit(norm.y(), norm.hadamard_block(), kernel))
            }
            Op::Conv1d(conv) => {
                let operands = [self.conv(op, conv.weight()), self.value(conv.x())];
                (conv.y(), self.add(Nemo::Conv(operands)))
            }
            Op::SsmScan(scan) => {
                let state = self.scan(op, [scan.heads(), scan.head_dim(), scan.state_size()], scan.state());
                let operands = [state, self.value(scan.xbc()), self.value(scan.dt())];
                (scan.y(), self.add(Nemo::Scan(operands)))
            }
            Op::Mixer(mixer) => (mixer.y(), self.mixer(op, mixer)),
            Op::Attention(attention) => {
                let appended_bytes = match type_of(attention.state()) {
                    NemoType::State(cache) => cost::appended_bytes(&cache, attention.head_dim()),
                    _ => 0,
                };
                let operands = [
                    self.leaf(LeafKind::Attention { appended_bytes }, Source::Op(op)),
                    self.value(attention.q()),
                    self.value(attention.k()),
                    self.value(attention.v()),
                ];
                let kernel = self.add(Nemo::Attention(operands));
                (attention.y(), self.emit(attention.y(), attention.hadamard_block(), kernel))
            }
            _ => return,
        };
        self.defines(op, y, id);
    }

    fn weight(&mut self, weight: Value<'c, 'm>, op: Op<'c, 'm>) -> Id {
        match type_of(weight) {
            NemoType::Weight(weight) => {
                let (basis_in, basis_out) = (self.basis(&weight.basis_in), self.basis(&weight.basis_out));
                self.leaf(LeafKind::Weight(Weight { basis_in, basis_out, ..weight }), Source::Op(op))
            }
            other => panic!("bug: {other} is no weight"),
        }
    }

    fn linear(&mut self, op: Op<'c, 'm>, linear: views::Linear<'c, 'm>) -> Id {
        let weight = self.weight(linear.weight(), op);
        let x = self.value(linear.x());
        match (linear.residual(), linear.epilogue()) {
            (Some(residual), _) => {
                let residual = self.value(residual);
                self.add(Nemo::LinearAdd([weight, residual, x]))
            }
            (None, Some(_)) => self.add(Nemo::LinearRelu2([weight, x])),
            (None, None) => {
                let format = self.add(Nemo::Format(Format(act(linear.y()).storage)));
                self.add(Nemo::Linear([weight, format, x]))
            }
        }
    }

    fn map(&mut self, x: Value<'c, 'm>, y: Value<'c, 'm>, relu2: bool, hadamard_block: Option<i64>) -> Id {
        let x = self.value(x);
        let kernel = self.add(if relu2 { Nemo::Relu2([x]) } else { Nemo::Copy([x]) });
        self.emit(y, hadamard_block, kernel)
    }

    fn rms_norm(&mut self, op: Op<'c, 'm>, norm: views::RmsNorm<'c, 'm>) -> Id {
        let attributes = self.leaf(LeafKind::Norm { eps: norm.eps() }, Source::Op(op));
        let weight = self.optional(norm.weight());
        let x = self.value(norm.x());
        let kernel = match norm.delta() {
            Some(delta) => {
                let delta = self.value(delta);
                self.add(Nemo::NormAdd([attributes, weight, x, delta]))
            }
            None => self.add(Nemo::Norm([attributes, weight, x])),
        };
        if let Some(sum) = norm.sum() {
            let id = self.add(Nemo::Sum([kernel]));
            self.defines(op, sum, id);
        }
        self.emit(norm.y(), norm.hadamard_block(), kernel)
    }

    fn conv(&mut self, op: Op<'c, 'm>, weight: Value<'c, 'm>) -> Id {
        match type_of(weight) {
            NemoType::Weight(weight) => {
                self.leaf(LeafKind::Conv { channels: weight.rows, kernel: weight.cols }, Source::Op(op))
            }
            other => panic!("bug: {other} is no convolution"),
        }
    }

    fn scan(&mut self, op: Op<'c, 'm>, sizes: [i64; 3], state: Value<'c, 'm>) -> Id {
        let [heads, head_dim, state_size] = sizes.map(|size| size as usize);
        let storage = cost::state_storage(&type_of(state));
        self.leaf(LeafKind::Scan { heads, head_dim, state_size, storage }, Source::Op(op))
    }

    fn mixer(&mut self, op: Op<'c, 'm>, mixer: views::Mixer<'c, 'm>) -> Id {
        let gate = LeafKind::Gate { eps: mixer.eps(), group_size: mixer.group_size() };
        let operands = [
            self.conv(op, mixer.conv_weight()),
            self.scan(op, [mixer.heads(), mixer.head_dim(), mixer.state_size()], mixer.ssm_state()),
            self.leaf(gate, Source::Op(op)),
            self.optional(mixer.norm_weight()),
            self.value(mixer.z()),
            self.value(mixer.xbc()),
            self.value(mixer.dt()),
        ];
        let kernel = self.add(Nemo::Mixer(operands));
        self.emit(mixer.y(), mixer.hadamard_block(), kernel)
    }
}

/// The name of the state that a value is read from.
pub fn state_name(state: Value<'_, '_>) -> Option<String> {
    match defining(state)? {
        Op::ReadState(read) => Some(read.name()),
        _ => None,
    }
}

impl Terms<'_, '_> {
    /// The name of a basis that types of terms call by number.
    pub fn basis(&self, basis: &str) -> String {
        let named = basis.parse::<usize>().ok().and_then(|index| self.bases.get(index));
        named.map_or(basis, String::as_str).to_owned()
    }

    /// What a leaf is, in a word.
    pub fn describe(&self, leaf: Leaf) -> String {
        match &self.sources[leaf.0] {
            Source::Rotation(rotation) => rotation.name.clone(),
            Source::Value(value) => {
                format!("<{}>", defining(*value).map_or_else(String::new, |op| names::canonical(&op)))
            }
            Source::Op(op) => names::canonical(op),
        }
    }
}
