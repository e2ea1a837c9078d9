//! The op of each term.

use super::build::{Change, Rebuild};
use super::language::Nemo;
use super::leaves::{LeafKind, TermType};
use super::terms::{Source, state_name};
use egg::Id;
use ir::IrError;
use ir::melior::ir::{Location, Value, operation::OperationLike};
use ir::module::type_of;
use ir::ops::{Op, build};
use ir::types::{NemoType, Weight};
use ir::weights::{Rotation, Side};

/// A selective scan's operands and attributes, of the op that has them.
struct ScanParts<'c, 'm> {
    vectors: [Value<'c, 'm>; 3],
    state: Value<'c, 'm>,
    name: String,
    sizes: [i64; 4],
    dt_min: f64,
    dt_max: Option<f64>,
}

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

    fn update(&self, old_state: Value<'c, 'm>, new_state: Value<'c, 'n>, at: Location<'c>) -> Result<(), IrError> {
        let name = state_name(old_state).unwrap_or_else(|| panic!("bug: a state without a name"));
        self.rewriter.builder().push(build::UpdateState { value: new_state, name }, at).map(|_| ())
    }

    fn conv(&mut self, change: usize, id: Id, c: Id, x: Id) -> Result<Value<'c, 'n>, IrError> {
        let Op::Conv1d(old) = self.op(change, c) else { panic!("bug: a convolution of no op") };
        let conv = build::Conv1d {
            x: self.term(change, x)?,
            weight: self.value(old.weight())?,
            bias: old.bias().map(|bias| self.value(bias)).transpose()?,
            state: self.value(old.state())?,
            name: old.name(),
            y: self.r#type(change, id),
            new_state: type_of(old.new_state()),
        };
        let at = old.0.location();
        let conv = self.rewriter.builder().push(conv, at)?;
        self.update(old.state(), conv.new_state(), at)?;
        Ok(conv.y())
    }

    fn scan(&mut self, change: usize, id: Id, s: Id, xbc: Id, dt: Id) -> Result<Value<'c, 'n>, IrError> {
        let Op::SsmScan(old) = self.op(change, s) else { panic!("bug: a scan of no op") };
        let scan = build::SsmScan {
            xbc: self.term(change, xbc)?,
            dt: self.term(change, dt)?,
            a_log: self.value(old.a_log())?,
            d: self.value(old.d())?,
            dt_bias: self.value(old.dt_bias())?,
            state: self.value(old.state())?,
            name: old.name(),
            heads: old.heads(),
            head_dim: old.head_dim(),
            groups: old.groups(),
            state_size: old.state_size(),
            dt_min: old.dt_min(),
            dt_max: old.dt_max(),
            y: self.r#type(change, id),
            new_state: type_of(old.new_state()),
        };
        let at = old.0.location();
        let scan = self.rewriter.builder().push(scan, at)?;
        self.update(old.state(), scan.new_state(), at)?;
        Ok(scan.y())
    }

    fn mixer(
        &mut self,
        change: usize,
        id: Id,
        [c, s, a, w, z, xbc, dt]: [Id; 7],
        hadamard_block: Option<i64>,
    ) -> Result<Value<'c, 'n>, IrError> {
        let (weight, bias, conv_state) = match self.op(change, c) {
            Op::Conv1d(conv) => (conv.weight(), conv.bias(), conv.state()),
            Op::Mixer(mixer) => (mixer.conv_weight(), mixer.conv_bias(), mixer.conv_state()),
            _ => panic!("bug: a convolution of no op"),
        };
        let scan = scan_parts(self.op(change, s));
        let (eps, group_size) = self.gate(change, a);
        let at = self.op(change, a).operation().location();
        let [a_log, d, dt_bias] = scan.vectors;
        let [heads, head_dim, groups, state_size] = scan.sizes;
        let mixer = build::Mixer {
            z: self.term(change, z)?,
            xbc: self.term(change, xbc)?,
            dt: self.term(change, dt)?,
            conv_weight: self.value(weight)?,
            conv_bias: bias.map(|bias| self.value(bias)).transpose()?,
            a_log: self.value(a_log)?,
            d: self.value(d)?,
            dt_bias: self.value(dt_bias)?,
            norm_weight: self.optional(change, w)?,
            conv_state: self.value(conv_state)?,
            ssm_state: self.value(scan.state)?,
            name: scan.name,
            heads,
            head_dim,
            groups,
            state_size,
            dt_min: scan.dt_min,
            dt_max: scan.dt_max,
            eps,
            group_size,
            hadamard_block,
            y: self.r#type(change, id),
            new_conv_state: type_of(conv_state),
            new_ssm_state: type_of(scan.state),
        };
        let mixer = self.rewriter.builder().push(mixer, at)?;
        self.update(conv_state, mixer.new_conv_state(), at)?;
        self.update(scan.state, mixer.new_ssm_state(), at)?;
        Ok(mixer.y())
    }

    fn attention(
        &mut self,
        change: usize,
        id: Id,
        [a, q, k, v]: [Id; 4],
        hadamard_block: Option<i64>,
    ) -> Result<Value<'c, 'n>, IrError> {
        let Op::Attention(old) = self.op(change, a) else { panic!("bug: an attention of no op") };
        let attention = build::Attention {
            q: self.term(change, q)?,
            k: self.term(change, k)?,
            v: self.term(change, v)?,
            state: self.value(old.state())?,
            name: old.name(),
            heads: old.heads(),
            kv_heads: old.kv_heads(),
            head_dim: old.head_dim(),
            scale: old.scale(),
            hadamard_block,
            y: self.r#type(change, id),
            new_state: type_of(old.new_state()),
        };
        let at = old.0.location();
        let attention = self.rewriter.builder().push(attention, at)?;
        self.update(old.state(), attention.new_state(), at)?;
        Ok(attention.y())
    }
}

fn scan_parts<'c, 'm>(op: Op<'c, 'm>) -> ScanParts<'c, 'm> {
    macro_rules! parts {
        ($op:ident, $state:ident) => {
            ScanParts {
                vectors: [$op.a_log(), $op.d(), $op.dt_bias()],
                state: $op.$state(),
                name: $op.name(),
                sizes: [$op.heads(), $op.head_dim(), $op.groups(), $op.state_size()],
                dt_min: $op.dt_min(),
                dt_max: $op.dt_max(),
            }
        };
    }
    match op {
        Op::SsmScan(scan) => parts!(scan, state),
        Op::Mixer(mixer) => parts!(mixer, ssm_state),
        _ => panic!("bug: a scan of no op"),
    }
}
