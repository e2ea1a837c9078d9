//! Rules 6 to 10, 30 and 31: weight expressions.

use super::checker::Checker;
use crate::ops::views;
use crate::types::{NemoType, PLAIN, Storage, Weight};
use crate::weights::{Rounding, Side};

/// Rule 6.
pub(super) fn tensor(checker: &mut Checker<'_, '_>, op: views::Weight<'_, '_>) {
    checker.require(!op.tensor().is_empty(), || "the tensor has no name".into());
    match checker.type_of(op.value()) {
        NemoType::Weight(weight) => {
            float(checker, "the tensor", &weight);
            let plain = weight.basis_in == PLAIN && weight.basis_out == PLAIN;
            checker.require(plain, || "a tensor of the checkpoint is in the plain basis on both sides".into());
        }
        NemoType::Vector(_) => {}
        other => checker.refuse(format!("value is {other}, expected a matrix or a vector")),
    }
}

fn float(checker: &mut Checker<'_, '_>, what: &str, weight: &Weight) {
    checker.require(weight.storage.is_float(), || format!("{what} is stored as {}, expected floats", weight.storage));
}

/// The result type of an op must be this.
fn result(checker: &mut Checker<'_, '_>, value: melior::ir::Value<'_, '_>, expected: Weight) {
    let found = checker.type_of(value);
    checker.same("the result", found, NemoType::Weight(expected));
}

/// The result of an op that computes with the values must be floats, of any width, of this shape and these bases.
fn float_result(checker: &mut Checker<'_, '_>, value: melior::ir::Value<'_, '_>, expected: Weight) {
    let found = checker.type_of(value);
    let storage = match &found {
        NemoType::Weight(weight) if weight.storage.is_float() => weight.storage,
        _ => expected.storage,
    };
    checker.same("the result", found, NemoType::Weight(Weight { storage, ..expected }));
}

/// Rule 7.
pub(super) fn slice_rows(checker: &mut Checker<'_, '_>, op: views::SliceRows<'_, '_>) {
    let base = checker.weight(op.base());
    float(checker, "base", &base);
    checker.same("the output basis of base", base.basis_out.as_str(), PLAIN);
    checker.require(op.start() >= 0, || format!("start is {}, expected 0 or more", op.start()));
    let Some(count) = checker.size("count", op.count()) else { return };
    let end = usize::try_from(op.start()).ok().and_then(|start| start.checked_add(count));
    let inside = end.is_some_and(|end| end <= base.rows);
    checker.require(inside, || {
        format!("rows {}..{}+{count} are not all in a base of {} rows", op.start(), op.start(), base.rows)
    });
    result(checker, op.value(), Weight { rows: count, ..base });
}

/// Rule 8, columns: of a matrix, or the elements of a vector.
pub(super) fn scale_columns(checker: &mut Checker<'_, '_>, op: views::ScaleColumns<'_, '_>) {
    let factors = checker.vector(op.by()).len;
    match checker.type_of(op.base()) {
        NemoType::Weight(weight) => {
            float(checker, "base", &weight);
            checker.same("the input basis of base", weight.basis_in.as_str(), PLAIN);
            checker.same("the length of by", factors, weight.cols);
            float_result(checker, op.value(), weight);
        }
        NemoType::Vector(vector) => {
            checker.same("the length of by", factors, vector.len);
            match checker.type_of(op.value()) {
                NemoType::Vector(found) => checker.same("the length of the result", found.len, vector.len),
                other => checker.refuse(format!("the result is {other}, expected a vector")),
            }
        }
        other => checker.refuse(format!("base is {other}, expected a matrix or a vector")),
    }
}

/// Rule 8, rows.
pub(super) fn scale_rows(checker: &mut Checker<'_, '_>, op: views::ScaleRows<'_, '_>) {
    let factors = checker.vector(op.by()).len;
    let base = checker.weight(op.base());
    float(checker, "base", &base);
    checker.same("the output basis of base", base.basis_out.as_str(), PLAIN);
    checker.same("the length of by", factors, base.rows);
    float_result(checker, op.value(), base);
}

/// Rule 30.
pub(super) fn column_absmax(checker: &mut Checker<'_, '_>, op: views::ColumnAbsmax<'_, '_>) {
    let base = checker.weight(op.base());
    float(checker, "base", &base);
    checker.same("the input basis of base", base.basis_in.as_str(), PLAIN);
    checker.same("the output basis of base", base.basis_out.as_str(), PLAIN);
    if let Some(other) = op.other() {
        let found = checker.vector(other).len;
        checker.same("the length of other", found, base.cols);
    }
    factors(checker, op.value(), &[base.cols]);
}

/// Rule 31.
pub(super) fn smooth_factors(checker: &mut Checker<'_, '_>, op: views::SmoothFactors<'_, '_>) {
    let channels = checker.vector(op.absmax()).len;
    let columns = checker.vector(op.columns()).len;
    checker.same("the length of columns", columns, channels);
    let alpha = op.alpha();
    checker.require((0.0..=1.0).contains(&alpha), || format!("alpha is {alpha}, expected 0 to 1"));
    checker.positive("power", op.power());
    let (Some(share), Some(block)) = (checker.size("share", op.share()), checker.size("block", op.block())) else {
        return;
    };
    let divides = share.checked_mul(block).is_some_and(|run| channels.is_multiple_of(run));
    checker.require(divides, || format!("runs of {share} times {block} do not divide {channels} channels"));
    factors(checker, op.value(), &[channels, channels / share]);
}

/// A result must be an f32 vector of one of these lengths.
fn factors(checker: &mut Checker<'_, '_>, value: melior::ir::Value<'_, '_>, lengths: &[usize]) {
    let found = checker.vector(value);
    let fits = lengths.contains(&found.len) && found.storage == Storage::F32;
    checker.require(fits, || {
        let lengths: Vec<_> = lengths.iter().map(usize::to_string).collect();
        format!("the result is {}, expected {} of f32", NemoType::Vector(found), lengths.join(" or "))
    });
}

/// Rule 9.
pub(super) fn rotate(checker: &mut Checker<'_, '_>, op: views::RotateWeight<'_, '_>) {
    let base = checker.weight(op.base());
    float(checker, "base", &base);
    let Some(side) = op.rotated_side() else {
        checker.word("side", &op.side(), &[Side::In.as_str(), Side::Out.as_str()]);
        return;
    };
    let (width, basis) = match side {
        Side::In => (base.cols, &base.basis_in),
        Side::Out => (base.rows, &base.basis_out),
    };
    let to = rotated(checker, width, basis, (&op.basis(), op.size(), op.transpose()));
    let mut expected = base.clone();
    match side {
        Side::In => expected.basis_in = to,
        Side::Out => expected.basis_out = to,
    }
    float_result(checker, op.value(), expected);
}

/// Checks that blocks of a rotation fit and that it starts from the right basis; the basis it leads to.
pub(super) fn rotated(
    checker: &mut Checker<'_, '_>,
    width: usize,
    from: &str,
    (basis, size, transpose): (&str, i64, bool),
) -> String {
    if let Some(size) = checker.size("size", size) {
        checker.require(width.is_multiple_of(size), || format!("blocks of {size} do not divide a width of {width}"));
    }
    let (start, end) = if transpose { (basis, PLAIN) } else { (PLAIN, basis) };
    checker.same("the basis to rotate from", from, start);
    end.to_owned()
}

/// Rule 10.
pub(super) fn quantize(checker: &mut Checker<'_, '_>, op: views::QuantizeWeight<'_, '_>) {
    checker.word("rounding", &op.rounding(), &Rounding::ALL.map(Rounding::as_str));
    let base = checker.weight(op.base());
    float(checker, "base", &base);
    let to = checker.weight(op.value());
    checker.require(!to.storage.is_float(), || format!("the result is stored as {}, expected i8 or i4", to.storage));
    result(checker, op.value(), Weight { storage: to.storage, granularity: to.granularity, ..base });
}
