//! Ops that take a state and give it back.

use super::super::build::Rebuild;
use super::super::terms::state_name;
use egg::Id;
use ir::IrError;
use ir::melior::ir::{Location, Value, operation::OperationLike};
use ir::module::type_of;
use ir::ops::{Op, build};

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
    fn update(&self, old_state: Value<'c, 'm>, new_state: Value<'c, 'n>, at: Location<'c>) -> Result<(), IrError> {
        let name = state_name(old_state).unwrap_or_else(|| panic!("bug: a state without a name"));
        self.rewriter.builder().push(build::UpdateState { value: new_state, name }, at).map(|_| ())
    }

    pub(super) fn conv(&mut self, change: usize, id: Id, c: Id, x: Id) -> Result<Value<'c, 'n>, IrError> {
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

    pub(super) fn scan(&mut self, change: usize, id: Id, s: Id, xbc: Id, dt: Id) -> Result<Value<'c, 'n>, IrError> {
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

    pub(super) fn mixer(
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

    pub(super) fn attention(
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
