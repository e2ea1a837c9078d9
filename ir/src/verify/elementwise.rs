//! Rules 14 to 16: ops that treat each value, or each block of a row, alike.

use super::checker::Checker;
use super::{PRECISIONS, emit, weights};
use crate::ops::views;
use crate::types::{Act, NemoType, PLAIN, Storage};
use melior::ir::Value;

/// Reports unless an activation is f32.
pub(super) fn float(checker: &mut Checker<'_, '_>, what: &str, act: &Act) {
    checker.same(&format!("the storage of {what}"), act.storage, Storage::F32);
}

/// Reports unless an activation is f32 in the plain basis.
pub(super) fn plain_float(checker: &mut Checker<'_, '_>, what: &str, act: &Act) {
    float(checker, what, act);
    checker.same(&format!("the basis of {what}"), act.basis.as_str(), PLAIN);
}

/// Reports unless a value has this type.
pub(super) fn is(checker: &mut Checker<'_, '_>, what: &str, value: Value<'_, '_>, expected: &Act) {
    let found = checker.act(value);
    checker.same(what, NemoType::Act(found), NemoType::Act(expected.clone()));
}

/// Rule 14.
pub(super) fn select_outputs(checker: &mut Checker<'_, '_>, op: views::SelectOutputs<'_, '_>) {
    let x = checker.act(op.x());
    float(checker, "x", &x);
    is(checker, "the result", op.y(), &x);
}

/// Rule 14.
pub(super) fn add(checker: &mut Checker<'_, '_>, op: views::Add<'_, '_>) {
    let a = checker.act(op.a());
    float(checker, "a", &a);
    is(checker, "b", op.b(), &a);
    is(checker, "the result", op.y(), &a);
}

/// Rule 14.
pub(super) fn relu2(checker: &mut Checker<'_, '_>, op: views::Relu2<'_, '_>) {
    let x = checker.act(op.x());
    plain_float(checker, "x", &x);
    is(checker, "the result", op.y(), &x);
}

/// Rule 15.
pub(super) fn rotate(checker: &mut Checker<'_, '_>, op: views::Rotate<'_, '_>) {
    let x = checker.act(op.x());
    float(checker, "x", &x);
    let to = weights::rotated(checker, x.cols, &x.basis, (&op.basis(), op.size(), op.transpose()));
    is(checker, "the result", op.y(), &x.in_basis(&to));
}

/// Rule 16.
pub(super) fn quantize(checker: &mut Checker<'_, '_>, op: views::Quantize<'_, '_>) {
    let (x, y) = (checker.act(op.x()), checker.act(op.y()));
    float(checker, "x", &x);
    checker.require(y.is_quantized(), || format!("the result is stored as {}, expected i8 or ui8", y.storage));
    is(checker, "the result", op.y(), &x.stored_as(y.storage, y.granularity));
}

/// Rule 16.
pub(super) fn dequantize(checker: &mut Checker<'_, '_>, op: views::Dequantize<'_, '_>) {
    let x = checker.act(op.x());
    checker.require(!x.storage.is_float(), || format!("x is stored as {}, expected integers", x.storage));
    is(checker, "the result", op.y(), &Act::f32(x.cols).in_basis(&x.basis));
}

/// Rule 16.
pub(super) fn convert(checker: &mut Checker<'_, '_>, op: views::Convert<'_, '_>) {
    let x = checker.act(op.x());
    float(checker, "x", &x);
    is(checker, "the result", op.y(), &x);
    checker.word("from", &op.from(), &PRECISIONS);
    checker.word("to", &op.to(), &PRECISIONS);
    checker.require(op.from() != op.to(), || format!("from and to are both \"{}\"", op.to()));
}

/// Rule 20, with relu2 only in the plain basis.
pub(super) fn map(checker: &mut Checker<'_, '_>, op: views::Map<'_, '_>) {
    let x = checker.act(op.x());
    float(checker, "x", &x);
    if op.relu2() {
        checker.same("the basis of x", x.basis.as_str(), PLAIN);
    }
    emit::check(checker, &x, op.y(), op.hadamard_block());
}
