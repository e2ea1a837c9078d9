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
//! be lost to that reader. Nor when the recipe says `fold_norms = false`. Nor where smooth has scaled the norm's weight,
//! which folding would undo. Nor, when nothing is to be rotated, if every reader stays float by the recipe: a bf16 weight
//! is stored as it is, the scaled one would take f32. Legal because `(x * w) M^T = x (M * w)^T`: column j of `M` meets
//! element j of the norm's result. The scaled weight is f32, so nothing is rounded before quantization.
//!
//! Buys: a norm without weight commutes with orthogonal matrices, which insert-rotations needs, and one read less a norm.

use crate::assign_precision::{decide, names};
use crate::copy;
use crate::precision::Precision;
use crate::recipe::Recipe;
use crate::smooth::{is_plain_float, is_smoothed_vector};
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
pub struct FoldNorms {
    /// What linears will be assigned; without a recipe every norm that can be folded is.
    pub recipe: Option<Recipe>,
}

impl Pass for FoldNorms {
    fn name(&self) -> &'static str {
        "fold-norms"
    }

    fn requires(&self) -> RangeInclusive<Stage> {
        Stage::Imported..=Stage::Annotated
    }

    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        if self.recipe.as_ref().is_some_and(|recipe| !recipe.fold_norms) {
            return Ok(None);
        }
        let foldable = foldable(module, &self.kept(module)?)?;
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

impl FoldNorms {
    /// The linears whose weights are better left as in the checkpoint.
    fn kept(&self, module: &Module<'_>) -> Result<HashSet<String>, PassFailure> {
        match &self.recipe {
            Some(recipe) if recipe.rotation.is_none() => {
                let decided = decide(recipe, &names(module)?)?;
                Ok(decided.into_iter().filter(|(_, p)| *p == Precision::Float).map(|(name, _)| name).collect())
            }
            _ => Ok(HashSet::new()),
        }
    }
}

/// The results of norms whose weight every reader can take, and one should.
fn foldable(module: &Module<'_>, kept: &HashSet<String>) -> Result<HashSet<usize>, IrError> {
    let uses = Uses::of(module)?;
    let results = ops(module)?.into_iter().filter_map(|op| match op {
        Op::RmsNorm(norm) if norm.weight().is_some_and(is_foldable_vector) => Some(norm.y()),
        Op::GatedRmsNorm(norm) if norm.weight().is_some_and(is_foldable_vector) => Some(norm.y()),
        _ => None,
    });
    let is_foldable = |y: &Value<'_, '_>| {
        let mut readers = Vec::new();
        is_plain_float(*y)
            && read_by_linears_only(*y, &uses, &mut readers)
            && readers.iter().any(|name| !kept.contains(name))
    };
    Ok(results.filter(is_foldable).map(key).collect())
}

fn is_foldable_vector(weight: Value<'_, '_>) -> bool {
    !is_smoothed_vector(weight)
}

/// Whether linears that can take the weight are all that reads a value; collects their names.
fn read_by_linears_only<'c>(value: Value<'c, '_>, uses: &Uses<'c, '_>, readers: &mut Vec<String>) -> bool {
    uses.readers(value).iter().all(|reader| match Op::of(*reader) {
        Some(Op::Linear(linear)) => {
            readers.push(linear.name());
            linear.residual() != Some(value) && takes_columns(linear)
        }
        Some(Op::SelectOutputs(select)) => read_by_linears_only(select.y(), uses, readers),
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
