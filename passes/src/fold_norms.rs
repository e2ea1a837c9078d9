//! Norm weights move into the linears that read the norm.
//!
//! ```text
//! %n = rms_norm(%x, %w)                 %n = rms_norm(%x)
//! %y = linear(%n, %m)             =>    %y = linear(%n, scale_columns(%m, %w))
//! ```
//!
//! The same for `gated_rms_norm`, and for readers behind a `select_outputs`.
//!
//! Does not fire when a reader is anything but the input of a float-stored linear in the plain basis: the weight would
//! be lost to that reader. Legal because `(x * w) M^T = x (M * w)^T`: column j of `M` meets element j of the norm's
//! result. The scaled weight is f32, so nothing is rounded before quantization.
//!
//! Buys: a norm without weight commutes with orthogonal matrices, which insert-rotations needs, and one read less a norm.

use crate::copy;
use crate::uses::{Uses, key};
use ir::IrError;
use ir::melior::{
    Context,
    ir::{Module, Value, operation::OperationLike},
};
use ir::module::{defining, ops, type_of};
use ir::ops::{Op, build, views};
use ir::pass::{Pass, PassFailure};
use ir::rewrite::{Action, Rewriter, rewrite};
use ir::stage::Stage;
use ir::types::{NemoType, PLAIN, Storage, Weight};
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// See the module's documentation.
pub struct FoldNorms;

impl Pass for FoldNorms {
    fn name(&self) -> &'static str {
        "fold-norms"
    }

    fn requires(&self) -> RangeInclusive<Stage> {
        Stage::Imported..=Stage::Annotated
    }

    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        let foldable = foldable(module)?;
        if foldable.is_empty() {
            return Ok(None);
        }
        let new = rewrite::<IrError>(context, module, |rewriter, op| match op {
            Op::RmsNorm(norm) if foldable.contains(&key(norm.y())) => drop_weight(rewriter, norm),
            Op::GatedRmsNorm(norm) if foldable.contains(&key(norm.y())) => drop_gated_weight(rewriter, norm),
            Op::Linear(linear) => match norm_weight(linear.x(), &foldable) {
                Some(by) => scale(rewriter, linear, by),
                None => Ok(Action::Keep),
            },
            _ => Ok(Action::Keep),
        })?;
        Ok(Some(new))
    }
}

/// The results of norms whose weight every reader can take.
fn foldable(module: &Module<'_>) -> Result<HashSet<usize>, IrError> {
    let uses = Uses::of(module)?;
    let results = ops(module)?.into_iter().filter_map(|op| match op {
        Op::RmsNorm(norm) if norm.weight().is_some() => Some(norm.y()),
        Op::GatedRmsNorm(norm) if norm.weight().is_some() => Some(norm.y()),
        _ => None,
    });
    Ok(results.filter(|y| is_plain_float(*y) && read_by_linears_only(*y, &uses)).map(key).collect())
}

fn is_plain_float(value: Value<'_, '_>) -> bool {
    matches!(type_of(value), NemoType::Act(act) if act.storage == Storage::F32 && act.basis == PLAIN)
}

fn read_by_linears_only<'c>(value: Value<'c, '_>, uses: &Uses<'c, '_>) -> bool {
    uses.readers(value).iter().all(|reader| match Op::of(*reader) {
        Some(Op::Linear(linear)) => linear.residual() != Some(value) && takes_columns(linear),
        Some(Op::SelectOutputs(select)) => read_by_linears_only(select.y(), uses),
        _ => false,
    })
}

/// Whether the columns of the weight are those of the norm's result, not yet rounded.
fn takes_columns(linear: views::Linear<'_, '_>) -> bool {
    matches!(type_of(linear.weight()), NemoType::Weight(weight) if weight.storage.is_float() && weight.basis_in == PLAIN)
}

/// The weight of the foldable norm that `x` comes from.
fn norm_weight<'c: 'm, 'm>(x: Value<'c, 'm>, foldable: &HashSet<usize>) -> Option<Value<'c, 'm>> {
    match defining(x)? {
        Op::RmsNorm(norm) if foldable.contains(&key(x)) => norm.weight(),
        Op::GatedRmsNorm(norm) if foldable.contains(&key(x)) => norm.weight(),
        Op::SelectOutputs(select) => norm_weight(select.x(), foldable),
        _ => None,
    }
}

fn drop_weight<'c>(rewriter: &mut Rewriter<'c, '_>, norm: views::RmsNorm<'c, '_>) -> Result<Action, IrError> {
    let bare = build::RmsNorm { weight: None, ..copy::rms_norm(rewriter, norm) };
    let bare = rewriter.builder().push(bare, norm.0.location())?;
    rewriter.map(norm.y(), bare.y());
    if let (Some(old), Some(new)) = (norm.sum(), bare.sum()) {
        rewriter.map(old, new);
    }
    Ok(Action::Done)
}

fn drop_gated_weight<'c>(
    rewriter: &mut Rewriter<'c, '_>,
    norm: views::GatedRmsNorm<'c, '_>,
) -> Result<Action, IrError> {
    let bare = build::GatedRmsNorm { weight: None, ..copy::gated_rms_norm(rewriter, norm) };
    let bare = rewriter.builder().push(bare, norm.0.location())?;
    rewriter.map(norm.y(), bare.y());
    Ok(Action::Done)
}

fn scale<'c>(
    rewriter: &mut Rewriter<'c, '_>,
    linear: views::Linear<'c, '_>,
    by: Value<'c, '_>,
) -> Result<Action, IrError> {
    let NemoType::Weight(weight) = type_of(linear.weight()) else { unreachable!("bug: a linear's weight is a matrix") };
    let value = NemoType::Weight(Weight { storage: Storage::F32, ..weight });
    let at = linear.0.location();
    let copy = copy::linear(rewriter, linear);
    let scaled = build::ScaleColumns { base: copy.weight, by: rewriter.value(by), inverse: false, value };
    let weight = rewriter.builder().push(scaled, at)?.value();
    let new = rewriter.builder().push(build::Linear { weight, ..copy }, at)?;
    rewriter.map(linear.y(), new.y());
    Ok(Action::Done)
}
