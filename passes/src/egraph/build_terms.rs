//! The op of each term.

mod states;

use super::build::{Change, Rebuild};
use super::language::Nemo;
use super::leaves::{LeafKind, TermType};
use super::terms::Source;
use egg::Id;
use ir::IrError;
use ir::melior::ir::{Location, Value, operation::OperationLike};
use ir::module::type_of;
use ir::ops::{Op, build};
use ir::types::{NemoType, Weight};
use ir::weights::{Rotation, Side};

impl<'c: 'n, 'm, 'n> Rebuild<'_, 'c, 'm, 'n> {
    /// The value of a term of a change.
    pub(super) fn term(&mut self, change: usize, id: Id) -> Result<Value<'c, 'n>, IrError> {
        if let Some(value) = self.built[change].get(&id) {
            return Ok(*value);
        }
        let value = self.build(change, id)?;
        self.built[change].insert(id, value);
        Ok(value)
    }

    fn change(&self, change: usize) -> &Change<'c, 'm> {
        &self.changes[change]
    }

    fn node(&self, change: usize, id: Id) -> Nemo {
        self.change(change).choice.expr[id].clone()
    }

    fn is_quantized(&self, change: usize, id: Id) -> bool {
        self.change(change).choice.types[usize::from(id)].act().is_quantized()
    }

    fn r#type(&self, change: usize, id: Id) -> NemoType {
        let Change { terms, choice } = self.change(change);
        match &choice.types[usize::from(id)] {
            TermType::Act(act) => NemoType::Act(act.in_basis(&terms.basis(&act.basis))),
            TermType::Weight(weight) => NemoType::Weight(Weight {
                basis_in: terms.basis(&weight.basis_in),
                basis_out: terms.basis(&weight.basis_out),
                ..weight.clone()
            }),
            TermType::Other => panic!("bug: a term without a type is built"),
        }
    }

    /// The place of the op whose value a term is, else unknown.
    fn origin(&self, change: usize, id: Id) -> Location<'c> {
        let Change { terms, choice } = self.change(change);
        let op = choice.origins[usize::from(id)].and_then(|imported| terms.origins.get(&imported));
        op.map_or_else(|| Location::unknown(self.rewriter.builder().context()), |op| op.operation().location())
    }

    fn source(&self, change: usize, id: Id) -> &Source<'c, 'm> {
        match self.node(change, id) {
            Nemo::Leaf(leaf) => &self.change(change).terms.sources[leaf.0],
            other => panic!("bug: {other} is no leaf"),
        }
    }

    /// The op whose attributes a leaf stands for.
    fn op(&self, change: usize, id: Id) -> Op<'c, 'm> {
        match self.source(change, id) {
            Source::Op(op) => *op,
            _ => panic!("bug: a leaf stands for no op"),
        }
    }

    fn rotation(&self, change: usize, id: Id) -> Option<Rotation> {
        match self.node(change, id) {
            Nemo::Absent => None,
            _ => match self.source(change, id) {
                Source::Rotation(rotation) => Some(rotation.clone()),
                _ => panic!("bug: a leaf stands for no rotation"),
            },
        }
    }

    fn optional(&mut self, change: usize, id: Id) -> Result<Option<Value<'c, 'n>>, IrError> {
        match self.node(change, id) {
            Nemo::Absent => Ok(None),
            _ => self.term(change, id).map(Some),
        }
    }

    fn build(&mut self, change: usize, id: Id) -> Result<Value<'c, 'n>, IrError> {
        let (at, builder) = (self.origin(change, id), self.rewriter.builder());
        Ok(match self.node(change, id) {
            Nemo::Leaf(_) => match self.source(change, id).clone() {
                Source::Value(old) => self.value(old)?,
                _ => panic!("bug: an attribute is used as a value"),
            },
            Nemo::Embed([w]) => {
                let (op, table) = self.weight(change, w)?;
                let Op::Embed(old) = op else { panic!("bug: the table of no embedding") };
                let (tokens, y) = (self.value(old.tokens())?, self.r#type(change, id));
                let (name, precision) = (old.name(), old.precision());
                builder.push(build::Embed { tokens, table, name, precision, y }, old.0.location())?.y()
            }
            Nemo::Linear([w, _, x]) => self.linear(change, id, w, x, None, None)?,
            Nemo::LinearRelu2([w, x]) => self.linear(change, id, w, x, None, Some("relu2"))?,
            Nemo::LinearAdd([w, residual, x]) => {
                let residual = self.term(change, residual)?;
                self.linear(change, id, w, x, Some(residual), None)?
            }
            Nemo::Add([a, b]) => {
                let (a, b, y) = (self.term(change, a)?, self.term(change, b)?, self.r#type(change, id));
                builder.push(build::Add { a, b, y }, at)?.y()
            }
            Nemo::Select([x]) => {
                let (x, y) = (self.term(change, x)?, self.r#type(change, id));
                builder.push(build::SelectOutputs { x, y }, at)?.y()
            }
            Nemo::Dequantize([x]) => {
                let (x, y) = (self.term(change, x)?, self.r#type(change, id));
                builder.push(build::Dequantize { x, y }, at)?.y()
            }
            Nemo::Rotate([r, x]) => self.rotate(change, id, (r, x), false, at)?,
            Nemo::Unrotate([r, x]) => self.rotate(change, id, (r, x), true, at)?,
            Nemo::Conv([c, x]) => self.conv(change, id, c, x)?,
            Nemo::Scan([s, xbc, dt]) => self.scan(change, id, s, xbc, dt)?,
            Nemo::Emit([r, _, k]) => self.emit(change, id, r, k, at)?,
            Nemo::Sum([k]) => self.sum(change, id, k)?,
            other => panic!("bug: {other} is no value"),
        })
    }

    /// The new weight that a term stands for, and the op that reads it.
    fn weight(&mut self, change: usize, id: Id) -> Result<(Op<'c, 'm>, Value<'c, 'n>), IrError> {
        let (side, r, w) = match self.node(change, id) {
            Nemo::RotateIn([r, w]) => (Side::In, r, w),
            Nemo::RotateOut([r, w]) => (Side::Out, r, w),
            _ => {
                let op = self.op(change, id);
                let old = match op {
                    Op::Linear(linear) => linear.weight(),
                    Op::Embed(embed) => embed.table(),
                    _ => panic!("bug: the weight of an op without one"),
                };
                return Ok((op, self.value(old)?));
            }
        };
        let (op, base) = self.weight(change, w)?;
        let rotation = self.rotation(change, r).unwrap_or_else(|| panic!("bug: a weight is rotated by nothing"));
        let rotate = build::RotateWeight {
            base,
            side: side.as_str().to_owned(),
            basis: rotation.name,
            kind: rotation.kind.as_str().to_owned(),
            size: rotation.size as i64,
            seed: rotation.seed as i64,
            transpose: false,
            value: self.r#type(change, id),
        };
        let value = self.rewriter.builder().push(rotate, op.operation().location())?.value();
        Ok((op, value))
    }

    fn linear(
        &mut self,
        change: usize,
        id: Id,
        w: Id,
        x: Id,
        residual: Option<Value<'c, 'n>>,
        epilogue: Option<&str>,
    ) -> Result<Value<'c, 'n>, IrError> {
        let x = self.term(change, x)?;
        let (op, weight) = self.weight(change, w)?;
        let Op::Linear(old) = op else { panic!("bug: the weight of no linear") };
        let linear = build::Linear {
            x,
            weight,
            residual,
            name: old.name(),
            precision: old.precision(),
            epilogue: epilogue.map(str::to_owned),
            y: self.r#type(change, id),
        };
        Ok(self.rewriter.builder().push(linear, old.0.location())?.y())
    }

    fn rotate(
        &mut self,
        change: usize,
        id: Id,
        (r, x): (Id, Id),
        transpose: bool,
        at: Location<'c>,
    ) -> Result<Value<'c, 'n>, IrError> {
        let rotation = self.rotation(change, r).unwrap_or_else(|| panic!("bug: a value is rotated by nothing"));
        let (x, y) = (self.term(change, x)?, self.r#type(change, id));
        let rotate = build::Rotate {
            x,
            basis: rotation.name,
            kind: rotation.kind.as_str().to_owned(),
            size: rotation.size as i64,
            seed: rotation.seed as i64,
            transpose,
            y,
        };
        Ok(self.rewriter.builder().push(rotate, at)?.y())
    }

    /// Builds the norm that writes a sum.
    fn sum(&mut self, change: usize, id: Id, k: Id) -> Result<Value<'c, 'n>, IrError> {
        let nodes = self.change(change).choice.expr.as_ref();
        let emits = |node: &Nemo| matches!(node, Nemo::Emit([_, _, kernel]) if *kernel == k);
        let emit = nodes.iter().position(emits).unwrap_or_else(|| panic!("bug: a sum that no launch writes"));
        self.term(change, Id::from(emit))?;
        Ok(self.built[change][&id])
    }

    fn emit(&mut self, change: usize, id: Id, r: Id, k: Id, at: Location<'c>) -> Result<Value<'c, 'n>, IrError> {
        let rotation = self.rotation(change, r);
        let hadamard_block = rotation.as_ref().map(|rotation| rotation.size as i64);
        let (y, builder) = (self.r#type(change, id), self.rewriter.builder());
        Ok(match self.node(change, k) {
            Nemo::Copy([x]) => match rotation {
                Some(_) if !self.is_quantized(change, id) => self.rotate(change, id, (r, x), false, at)?,
                None => {
                    let x = self.term(change, x)?;
                    builder.push(build::Quantize { x, y }, at)?.y()
                }
                Some(_) => {
                    let x = self.term(change, x)?;
                    builder.push(build::Map { x, relu2: false, hadamard_block, y }, at)?.y()
                }
            },
            Nemo::Relu2([x]) => {
                let x = self.term(change, x)?;
                if hadamard_block.is_none() && !self.is_quantized(change, id) {
                    builder.push(build::Relu2 { x, y }, at)?.y()
                } else {
                    builder.push(build::Map { x, relu2: true, hadamard_block, y }, at)?.y()
                }
            }
            Nemo::Norm([a, w, x]) => self.norm(change, (id, k), (a, w, x), None, hadamard_block)?,
            Nemo::NormAdd([a, w, x, delta]) => self.norm(change, (id, k), (a, w, x), Some(delta), hadamard_block)?,
            Nemo::Gate([a, w, x, z]) => {
                let at = self.op(change, a).operation().location();
                let (x, z, weight) = (self.term(change, x)?, self.term(change, z)?, self.optional(change, w)?);
                let (eps, group_size) = self.gate(change, a);
                builder.push(build::GatedRmsNorm { x, z, weight, eps, group_size, hadamard_block, y }, at)?.y()
            }
            Nemo::Mixer(operands) => self.mixer(change, id, operands, hadamard_block)?,
            Nemo::Attention(operands) => self.attention(change, id, operands, hadamard_block)?,
            other => panic!("bug: {other} is no kernel"),
        })
    }

    fn norm(
        &mut self,
        change: usize,
        (id, k): (Id, Id),
        (a, w, x): (Id, Id, Id),
        delta: Option<Id>,
        hadamard_block: Option<i64>,
    ) -> Result<Value<'c, 'n>, IrError> {
        let (source, LeafKind::Norm { eps }) = (self.op(change, a), self.leaf_kind(change, a)) else {
            panic!("bug: a norm without eps");
        };
        let x = self.term(change, x)?;
        let sum = delta.map(|_| type_of(x));
        let delta = delta.map(|delta| self.term(change, delta)).transpose()?;
        let weight = self.optional(change, w)?;
        let y = self.r#type(change, id);
        let norm = build::RmsNorm { x, delta, weight, eps, hadamard_block, y, sum };
        let norm = self.rewriter.builder().push(norm, source.operation().location())?;
        if let Some(sum) = norm.sum() {
            let nodes = self.change(change).choice.expr.as_ref().iter().enumerate();
            let sums: Vec<_> = nodes
                .filter(|(_, node)| matches!(node, Nemo::Sum([kernel]) if *kernel == k))
                .map(|(index, _)| Id::from(index))
                .collect();
            self.built[change].extend(sums.into_iter().map(|id| (id, sum)));
        }
        Ok(norm.y())
    }

    fn leaf_kind(&self, change: usize, id: Id) -> LeafKind {
        match self.node(change, id) {
            Nemo::Leaf(leaf) => self.change(change).terms.leaves.kind(leaf).clone(),
            other => panic!("bug: {other} is no leaf"),
        }
    }

    fn gate(&self, change: usize, a: Id) -> (f64, i64) {
        match self.leaf_kind(change, a) {
            LeafKind::Gate { eps, group_size } => (eps, group_size),
            other => panic!("bug: {other:?} is no gate"),
        }
    }
}
