//! Rules 27 to 29: what a module of each stage may hold.

use super::PRECISIONS;
use super::checker::Checker;
use crate::ops::Op;
use crate::stage::Stage;
use crate::types::{Granularity, NemoType, Weight};
use melior::ir::{Value, operation::OperationLike};

/// Checks the ops of a module at `stage`.
pub(super) fn check<'c, 'm>(checker: &mut Checker<'c, 'm>, stage: Stage, ops: &[Op<'c, 'm>]) {
    for op in ops {
        checker.enter(op.operation());
        if stage == Stage::Planned {
            checker.require(is_planned(op), || "a planned module has no such op".into());
            continue;
        }
        let launches = matches!(op, Op::Allocate(_) | Op::Launch(_));
        checker.require(!launches, || format!("a module at stage {stage} has no such op"));
        if stage < Stage::Quantized {
            floats_only(checker, stage, *op);
        }
        precision(checker, stage, *op);
    }
}

/// Rule 29.
fn is_planned(op: &Op<'_, '_>) -> bool {
    op.prepares_weight() || matches!(op, Op::ReadState(_) | Op::Allocate(_) | Op::Launch(_))
}

/// Rule 27.
fn floats_only<'c, 'm>(checker: &mut Checker<'c, 'm>, stage: Stage, op: Op<'c, 'm>) {
    checker.require(!matches!(op, Op::Convert(_)), || format!("a module at stage {stage} has no such op"));
    for value in op.operation().results().map(Value::from) {
        let storage = match checker.type_of(value) {
            NemoType::Act(act) => act.storage,
            NemoType::Weight(weight) => weight.storage,
            _ => continue,
        };
        checker.require(storage.is_float(), || {
            format!("the result is stored as {storage}, but a module at stage {stage} is not quantized")
        });
    }
}

/// Rule 28.
fn precision<'c, 'm>(checker: &mut Checker<'c, 'm>, stage: Stage, op: Op<'c, 'm>) {
    let (precision, weight) = match op {
        Op::Linear(op) => (op.precision(), op.weight()),
        Op::Embed(op) => (op.precision(), op.table()),
        _ => return,
    };
    let Some(precision) = precision else {
        checker.require(stage < Stage::Annotated, || format!("precision is missing at stage {stage}"));
        return;
    };
    checker.word("precision", &precision, &PRECISIONS);
    if stage == Stage::Quantized {
        let weight = checker.weight(weight);
        checker.require(!PRECISIONS.contains(&precision.as_str()) || precision == named(&weight), || {
            format!("precision is {precision}, but the weight is {}", NemoType::Weight(weight.clone()))
        });
    }
}

/// The precision that a weight's format amounts to.
fn named(weight: &Weight) -> &'static str {
    match weight.granularity {
        Granularity::Channel => "w8a8",
        Granularity::TwoLevel(_) => "w4a8",
        Granularity::Group(_) => "w4a8-group",
        _ => "float",
    }
}
