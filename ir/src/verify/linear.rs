//! Rules 11 to 13: what reads a weight.

use super::checker::Checker;
use crate::ops::views;
use crate::types::{Act, Granularity, NemoType, PLAIN, Storage, Weight};

/// `255 * 127 * 65536 < 2^31`: longer integer sums could overflow.
const MAX_INTEGER_COLS: usize = 65536;

/// Rules 11 and 12.
pub(super) fn linear(checker: &mut Checker<'_, '_>, op: views::Linear<'_, '_>) {
    let (x, weight, y) = (checker.act(op.x()), checker.weight(op.weight()), checker.act(op.y()));
    name(checker, &op.name());
    checker.same("the columns of x", x.cols, weight.cols);
    checker.same("the columns of the result", y.cols, weight.rows);
    checker.same("the basis of x", &x.basis, &weight.basis_in);
    checker.same("the basis of the result", &y.basis, &weight.basis_out);
    formats(checker, &x, &weight, &y);
    if let Some(epilogue) = op.epilogue() {
        checker.word("epilogue", &epilogue, &["relu2"]);
        let plain = y.storage == Storage::F32 && y.basis == PLAIN;
        checker
            .require(plain, || format!("an epilogue on a result of {}, expected plain f32", NemoType::Act(y.clone())));
        checker.require(op.residual().is_none(), || "epilogue and residual exclude each other".into());
    }
    if let Some(residual) = op.residual() {
        let residual = checker.act(residual);
        checker.same("residual", NemoType::Act(residual), NemoType::Act(Act::f32(y.cols).in_basis(&y.basis)));
        checker.same("the storage of a result with residual", y.storage, Storage::F32);
    }
}

fn formats(checker: &mut Checker<'_, '_>, x: &Act, weight: &Weight, y: &Act) {
    if weight.storage.is_float() {
        checker.same("the storage of x with a float weight", x.storage, Storage::F32);
        checker.same("the storage of the result with a float weight", y.storage, Storage::F32);
        return;
    }
    checker.require(x.is_quantized(), || {
        format!("x is stored as {} with an {} weight, expected 8 bits", x.storage, weight.storage)
    });
    checker.require(weight.cols <= MAX_INTEGER_COLS, || {
        format!("{} columns could overflow an i32 sum, expected at most {MAX_INTEGER_COLS}", weight.cols)
    });
    let group = matches!(weight.granularity, Granularity::Group(_));
    let legal = y.storage == Storage::F32 || (y.storage == Storage::I32 && !group);
    let expected = if group { "f32" } else { "i32 or f32" };
    checker.require(legal, || {
        format!("the result of a {} weight is stored as {}, expected {expected}", weight.granularity, y.storage)
    });
}

/// Rule 13.
pub(super) fn embed(checker: &mut Checker<'_, '_>, op: views::Embed<'_, '_>) {
    let (table, y) = (checker.weight(op.table()), checker.act(op.y()));
    name(checker, &op.name());
    checker.same("the output basis of the table", table.basis_out.as_str(), PLAIN);
    let expected = Act::f32(table.cols).in_basis(&table.basis_in);
    checker.same("the result", NemoType::Act(y), NemoType::Act(expected));
}

fn name(checker: &mut Checker<'_, '_>, name: &str) {
    checker.require(!name.is_empty(), || "name is empty".into());
}
