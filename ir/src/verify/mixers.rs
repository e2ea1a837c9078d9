//! Rules 17 to 19 and 21: norms, the Mamba-2 core and attention.

use super::checker::{Checker, product};
use super::elementwise::{float, is, plain_float};
use super::emit;
use super::graph::Bases;
use crate::ops::views;
use crate::types::{Act, PLAIN};
use melior::ir::Value;

/// Rule 17.
pub(super) fn rms_norm(checker: &mut Checker<'_, '_>, op: views::RmsNorm<'_, '_>) {
    let x = checker.act(op.x());
    float(checker, "x", &x);
    checker.positive("eps", op.eps());
    if let Some(weight) = op.weight() {
        length(checker, "weight", weight, x.cols);
        let plain = x.basis == PLAIN;
        checker.require(plain, || format!("a norm in basis {} has a weight, expected it to be folded first", x.basis));
    }
    checker.require(op.delta().is_some() == op.sum().is_some(), || "delta and sum come together".into());
    if let Some(delta) = op.delta() {
        is(checker, "delta", delta, &x);
    }
    if let Some(sum) = op.sum() {
        is(checker, "sum", sum, &x);
    }
    emit::check(checker, &x, op.y(), op.hadamard_block());
}

fn length(checker: &mut Checker<'_, '_>, what: &str, vector: Value<'_, '_>, expected: usize) {
    let len = checker.vector(vector).len;
    checker.same(&format!("the length of {what}"), len, expected);
}

/// Rule 18.
pub(super) fn gated_rms_norm(checker: &mut Checker<'_, '_>, op: views::GatedRmsNorm<'_, '_>) {
    let x = checker.act(op.x());
    plain_float(checker, "x", &x);
    is(checker, "z", op.z(), &x);
    gated(checker, x.cols, op.weight(), op.eps(), op.group_size());
    emit::check(checker, &x, op.y(), op.hadamard_block());
}

fn gated(checker: &mut Checker<'_, '_>, cols: usize, weight: Option<Value<'_, '_>>, eps: f64, group_size: i64) {
    checker.positive("eps", eps);
    if let Some(weight) = weight {
        length(checker, "the norm weight", weight, cols);
    }
    if let Some(group) = checker.size("group_size", group_size) {
        checker.require(cols.is_multiple_of(group), || format!("groups of {group} do not divide {cols} columns"));
    }
}

/// Rule 18.
pub(super) fn conv1d(checker: &mut Checker<'_, '_>, op: views::Conv1d<'_, '_>) {
    let x = checker.act(op.x());
    plain_float(checker, "x", &x);
    convolution(checker, x.cols, op.weight(), op.bias());
    is(checker, "the result", op.y(), &x);
}

fn convolution(checker: &mut Checker<'_, '_>, channels: usize, weight: Value<'_, '_>, bias: Option<Value<'_, '_>>) {
    let weight = checker.weight(weight);
    let plain = weight.storage.is_float() && weight.basis_in == PLAIN && weight.basis_out == PLAIN;
    checker.require(plain, || "the convolution's weight is rotated or quantized, expected plain floats".into());
    checker.same("the rows of the convolution's weight", weight.rows, channels);
    checker.require(weight.cols >= 2, || format!("the convolution has {} taps, expected 2 or more", weight.cols));
    if let Some(bias) = bias {
        length(checker, "bias", bias, channels);
    }
}

/// The sizes of a selective scan.
struct Scan<'c, 'm> {
    heads: i64,
    head_dim: i64,
    groups: i64,
    state_size: i64,
    dt_min: f64,
    dt_max: Option<f64>,
    parameters: [(&'static str, Value<'c, 'm>); 3],
}

impl Scan<'_, '_> {
    /// Checks that operands fit; the width of the result, when that can be said.
    fn check(&self, checker: &mut Checker<'_, '_>, xbc: &Act, dt: &Act) -> Option<usize> {
        plain_float(checker, "xbc", xbc);
        plain_float(checker, "dt", dt);
        checker.require(self.dt_min.is_finite(), || format!("dt_min is {}, expected a number", self.dt_min));
        if let Some(dt_max) = self.dt_max {
            let holds = dt_max.is_finite() && dt_max > self.dt_min;
            checker.require(holds, || format!("dt_max is {dt_max}, expected a number above dt_min"));
        }
        let heads = checker.size("heads", self.heads);
        let head_dim = checker.size("head_dim", self.head_dim);
        let groups = checker.size("groups", self.groups);
        let state_size = checker.size("state_size", self.state_size);
        let (heads, head_dim, groups, state_size) = (heads?, head_dim?, groups?, state_size?);
        checker.require(heads.is_multiple_of(groups), || format!("{groups} groups do not divide {heads} heads"));
        checker.same("the columns of dt", dt.cols, heads);
        for (name, parameter) in self.parameters {
            length(checker, name, parameter, heads);
        }
        let inner = product(&[heads, head_dim]);
        let expected = inner + product(&[2, groups, state_size]);
        checker.same("the columns of xbc", xbc.cols as u128, expected);
        usize::try_from(inner).ok()
    }
}

/// Rule 18.
pub(super) fn ssm_scan(checker: &mut Checker<'_, '_>, op: views::SsmScan<'_, '_>) {
    let (xbc, dt) = (checker.act(op.xbc()), checker.act(op.dt()));
    let scan = Scan {
        heads: op.heads(),
        head_dim: op.head_dim(),
        groups: op.groups(),
        state_size: op.state_size(),
        dt_min: op.dt_min(),
        dt_max: op.dt_max(),
        parameters: [("a_log", op.a_log()), ("d", op.d()), ("dt_bias", op.dt_bias())],
    };
    if let Some(inner) = scan.check(checker, &xbc, &dt) {
        is(checker, "the result", op.y(), &Act::f32(inner));
    }
}

/// Rule 18.
pub(super) fn mixer(checker: &mut Checker<'_, '_>, op: views::Mixer<'_, '_>) {
    let (z, xbc, dt) = (checker.act(op.z()), checker.act(op.xbc()), checker.act(op.dt()));
    plain_float(checker, "z", &z);
    convolution(checker, xbc.cols, op.conv_weight(), op.conv_bias());
    let scan = Scan {
        heads: op.heads(),
        head_dim: op.head_dim(),
        groups: op.groups(),
        state_size: op.state_size(),
        dt_min: op.dt_min(),
        dt_max: op.dt_max(),
        parameters: [("a_log", op.a_log()), ("d", op.d()), ("dt_bias", op.dt_bias())],
    };
    if let Some(inner) = scan.check(checker, &xbc, &dt) {
        checker.same("the columns of z", z.cols, inner);
    }
    gated(checker, z.cols, op.norm_weight(), op.eps(), op.group_size());
    emit::check(checker, &z, op.y(), op.hadamard_block());
}

/// Rule 19.
pub(super) fn attention(checker: &mut Checker<'_, '_>, bases: &Bases, op: views::Attention<'_, '_>) {
    let (q, k, v) = (checker.act(op.q()), checker.act(op.k()), checker.act(op.v()));
    for (name, act) in [("q", &q), ("k", &k), ("v", &v)] {
        float(checker, name, act);
    }
    checker.positive("scale", op.scale());
    checker.same("the basis of k", &k.basis, &q.basis);
    let heads = checker.size("heads", op.heads());
    let kv_heads = checker.size("kv_heads", op.kv_heads());
    let head_dim = checker.size("head_dim", op.head_dim());
    let (Some(heads), Some(kv_heads), Some(head_dim)) = (heads, kv_heads, head_dim) else { return };
    checker.require(heads.is_multiple_of(kv_heads), || format!("{kv_heads} kv_heads do not divide {heads} heads"));
    checker.same("the columns of q", q.cols as u128, product(&[heads, head_dim]));
    checker.same("the columns of k", k.cols as u128, product(&[kv_heads, head_dim]));
    checker.same("the columns of v", v.cols as u128, product(&[kv_heads, head_dim]));
    for act in [&q, &v] {
        let size = bases.size(&act.basis);
        checker.require(size.is_none_or(|size| head_dim.is_multiple_of(size)), || {
            format!("blocks of basis {} do not divide a head of {head_dim}", act.basis)
        });
    }
    emit::check(checker, &Act::f32(q.cols).in_basis(&v.basis), op.y(), op.hadamard_block());
}
