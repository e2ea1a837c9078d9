//! The range of an activation moves into the weight that reads it, by exact folds.
//!
//! ```text
//! %s = smooth_factors(absmax of the input of %w, column_absmax(%w))        %t: the same to the power 1/2
//!
//! down_proj  %y = linear(relu2(linear(%x, %u)), %w)    =>  linear(relu2(linear(%x, scale_rows(%u, %t) {inverse})),
//!                                                                 scale_columns(%w, %s))
//! o_proj     linear(attention(.., linear(%x, %v)), %w) =>  linear(attention(.., linear(%x, scale_rows(%v, %s) {inverse})),
//!                                                                 scale_columns(%w, %s))
//! out_proj   linear(gated_rms_norm(.., %g), %w)        =>  linear(gated_rms_norm(.., scale_columns(%g, %s) {inverse}),
//!                                                                 scale_columns(%w, %s))
//! norms      the same for rms_norm and all linears that read it
//! ```
//!
//! Query heads that read one value head share its factors. The factors are symbolic: code generation computes them from
//! the statistics of calibration and the checkpoint.
//!
//! How much moves, `alpha`, is an attribute of the factors, and is the recipe's: one for all, or by name. A search for it
//! needs tensors' values, so it happens before the passes and its result is a recipe; unsearched it is refused.
//!
//! Does not fire on linears that the recipe does not name, that stay float (unless it says `enabled = true`) or that
//! are smoothed already, nor where anything else reads what would be scaled. Refuses to smooth norms of a residual
//! stream that is rotated: the weight of such a norm cannot stay. Legal because `relu2(a / sqrt(s)) = relu2(a) / s` for
//! s > 0, attention is linear in v, and a norm's weight multiplies its result.
//!
//! Buys: channels that a few large values would cost all others their bits get a range like the others (SmoothQuant).

use crate::assign_precision::{decide, names};
use crate::copy;
use crate::precision::Precision;
use crate::recipe::{Alpha, Recipe};
use crate::uses::{Uses, key};
use ir::IrError;
use ir::melior::{
    Context,
    ir::{Location, Module, Value, operation::OperationLike},
};
use ir::module::{defining, ops, type_of};
use ir::ops::{Op, build, views};
use ir::pass::{Pass, PassError, PassFailure};
use ir::rewrite::{Action, Rewriter, rewrite};
use ir::stage::Stage;
use ir::statistics::{Statistics, absmax_tensor};
use ir::types::{NemoType, PLAIN, Storage, Vector, Weight};
use ir::weights::WeightExpr;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

const NAME: &str = "smooth";

/// See the module's documentation.
pub struct Smooth {
    /// Which linears, how much, and what they will be assigned.
    pub recipe: Recipe,
    /// What the factors will be computed from; without, nothing is checked before code generation.
    pub statistics: Option<Arc<Statistics>>,
}

impl Pass for Smooth {
    fn name(&self) -> &'static str {
        NAME
    }

    fn requires(&self) -> RangeInclusive<Stage> {
        Stage::Imported..=Stage::Annotated
    }

    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        let mut plan = Plan::default();
        let uses = Uses::of(module)?;
        let wanted = self.wanted(module)?;
        let is_wanted = |linear: views::Linear<'_, '_>| wanted.iter().any(|name| *name == linear.name());
        for op in ops(module)? {
            if let Some(found) = find(op, &uses, &is_wanted) {
                self.check(&found)?;
                plan.add(Fold { alpha: self.alpha(&found)?, ..found });
            }
        }
        if plan.folds.is_empty() {
            return Ok(None);
        }
        Ok(Some(rewrite::<IrError>(context, module, |rewriter, op| plan.rewrite(rewriter, op))?))
    }
}

impl Smooth {
    /// The linears whose input is to be smoothed.
    fn wanted(&self, module: &Module<'_>) -> Result<Vec<String>, PassFailure> {
        let smooth = &self.recipe.smooth;
        let regex = smooth.regex().map_err(|error| refuse(error.to_string(), None))?;
        let names = names(module)?;
        if let Some(unknown) = smooth.alphas.keys().find(|name| !names.contains(name)) {
            let help = names.last().map(|last| format!("names are whole, like {last}"));
            let message = format!("alphas of [smooth] name `{unknown}`, which is no linear of this model");
            return Err(refuse(message, help.as_deref()).into());
        }
        let decided = decide(&self.recipe, &names)?;
        let stays_float = |name: &String| smooth.enabled.is_none() && decided.get(name) == Some(&Precision::Float);
        Ok(names.into_iter().filter(|name| regex.is_match(name) && !stays_float(name)).collect())
    }

    /// How much of the range of a fold's activation moves.
    fn alpha(&self, fold: &Fold<'_, '_>) -> Result<f64, PassFailure> {
        let smooth = &self.recipe.smooth;
        let named = fold.readers.iter().find_map(|reader| smooth.alphas.get(&reader.name()).copied());
        match (named, smooth.alpha) {
            (Some(share), _) | (None, Alpha::Share(share)) => Ok(share),
            (None, Alpha::Search) => {
                let help = "nemoc compile searches when it calibrates; without weights give alpha a number from 0 to 1";
                let message = format!("alpha of the input of {} is still to be searched for", fold.readers[0].name());
                Err(refuse(message, Some(help)).into())
            }
        }
    }

    /// What would fail later, in terms of the model.
    fn check(&self, fold: &Fold<'_, '_>) -> Result<(), PassFailure> {
        let rotation = &self.recipe.rotation;
        if matches!(fold.source, Source::Norm(_)) && rotation.residual && !rotation.is_none() {
            let help = "set residual = false in [rotation], or let [smooth] match name down_proj and o_proj only";
            let message =
                format!("the norm before {} cannot be smoothed in a rotated residual stream", fold.readers[0].name());
            return Err(refuse(message, Some(help)).into());
        }
        if let Some(statistics) = &self.statistics {
            let measured = statistics.input(&fold.tensor, columns(fold.readers[0]));
            measured.map_err(|error| refuse(error.to_string(), Some(error.help())))?;
        }
        Ok(())
    }
}

fn refuse(message: String, help: Option<&str>) -> PassError {
    PassError { pass: NAME, message, help: help.map(str::to_owned) }
}

/// What scales an activation down.
#[derive(Clone, Copy)]
enum Source<'c, 'm> {
    /// The rows of the linear before relu2.
    Up(views::Linear<'c, 'm>),
    /// The rows of the linear that makes values, of an attention.
    Values(views::Linear<'c, 'm>, views::Attention<'c, 'm>),
    /// The weight of a norm.
    Norm(views::RmsNorm<'c, 'm>),
    /// The weight of a mixer's norm.
    GatedNorm(views::GatedRmsNorm<'c, 'm>),
}

/// An activation that can be smoothed.
struct Fold<'c, 'm> {
    source: Source<'c, 'm>,
    /// All that reads it.
    readers: Vec<views::Linear<'c, 'm>>,
    /// The tensor under which the first reader's input was measured.
    tensor: String,
    /// How much of its range moves.
    alpha: f64,
}

/// The fold whose activation an op makes, its alpha still open.
fn find<'c, 'm>(
    op: Op<'c, 'm>,
    uses: &Uses<'c, 'm>,
    is_wanted: &dyn Fn(views::Linear<'_, '_>) -> bool,
) -> Option<Fold<'c, 'm>> {
    let (y, source) = match op {
        Op::Relu2(relu2) => (relu2.y(), Source::Up(only_linear(relu2.x(), uses)?)),
        Op::Attention(attention) => (attention.y(), Source::Values(only_linear(attention.v(), uses)?, attention)),
        Op::RmsNorm(norm) => {
            norm.weight()?;
            (norm.y(), Source::Norm(norm))
        }
        Op::GatedRmsNorm(norm) => {
            norm.weight()?;
            (norm.y(), Source::GatedNorm(norm))
        }
        _ => return None,
    };
    let mut readers = Vec::new();
    let fits = is_plain_float(y) && collect(y, uses, &mut readers) && readers.iter().all(|reader| is_wanted(*reader));
    let tensor = WeightExpr::of(readers.first()?.weight())?.tensor_name().to_owned();
    fits.then_some(Fold { source, readers, tensor, alpha: 0.0 })
}

/// The linear that makes a value which nothing else than one op reads, if its rows can be scaled.
fn only_linear<'c: 'm, 'm>(value: Value<'c, 'm>, uses: &Uses<'c, 'm>) -> Option<views::Linear<'c, 'm>> {
    let Op::Linear(linear) = defining(value)? else { return None };
    let is_bare = linear.residual().is_none() && linear.epilogue().is_none();
    (is_bare && uses.readers(value).len() == 1 && is_plain_weight(linear)).then_some(linear)
}

/// Whether linears that are not smoothed yet are all that reads a value; collects them.
fn collect<'c, 'm>(value: Value<'c, '_>, uses: &Uses<'c, 'm>, readers: &mut Vec<views::Linear<'c, 'm>>) -> bool {
    uses.readers(value).iter().all(|reader| match Op::of(*reader) {
        Some(Op::Linear(linear)) => {
            readers.push(linear);
            linear.residual() != Some(value) && is_plain_weight(linear) && !is_smoothed(linear.weight())
        }
        Some(Op::SelectOutputs(select)) => collect(select.y(), uses, readers),
        _ => false,
    })
}

/// Whether a value is not rotated and not quantized.
pub(crate) fn is_plain_float(value: Value<'_, '_>) -> bool {
    matches!(type_of(value), NemoType::Act(act) if act.storage == Storage::F32 && act.basis == PLAIN)
}

fn is_plain_weight(linear: views::Linear<'_, '_>) -> bool {
    let is_plain = |weight: &Weight| weight.storage.is_float() && weight.basis_in == PLAIN && weight.basis_out == PLAIN;
    matches!(type_of(linear.weight()), NemoType::Weight(weight) if is_plain(&weight))
}

/// Whether the columns of a weight are scaled by factors of this kind already.
fn is_smoothed(weight: Value<'_, '_>) -> bool {
    match defining(weight) {
        Some(Op::ScaleColumns(scale)) => is_factors(scale.by()) || is_smoothed(scale.base()),
        Some(Op::ScaleRows(scale)) => is_smoothed(scale.base()),
        Some(Op::SliceRows(slice)) => is_smoothed(slice.base()),
        _ => false,
    }
}

/// Whether a vector was scaled by smoothing: such a norm weight is not to be folded, which would undo it.
pub(crate) fn is_smoothed_vector(vector: Value<'_, '_>) -> bool {
    matches!(defining(vector), Some(Op::ScaleColumns(scale)) if is_factors(scale.by()))
}

fn is_factors(vector: Value<'_, '_>) -> bool {
    matches!(defining(vector), Some(Op::SmoothFactors(_)))
}

fn columns(linear: views::Linear<'_, '_>) -> usize {
    match type_of(linear.weight()) {
        NemoType::Weight(weight) => weight.cols,
        other => unreachable!("bug: a linear's weight is {other}"),
    }
}

/// Everything to do.
#[derive(Default)]
struct Plan<'c, 'm> {
    folds: Vec<Fold<'c, 'm>>,
    /// The folds that an op is the source of, by its result.
    sources: HashMap<usize, usize>,
    /// The folds that a linear reads, by its result.
    readers: HashMap<usize, usize>,
}

impl<'c: 'm, 'm> Plan<'c, 'm> {
    fn add(&mut self, fold: Fold<'c, 'm>) {
        let index = self.folds.len();
        let source = match fold.source {
            Source::Up(linear) | Source::Values(linear, _) => linear.y(),
            Source::Norm(norm) => norm.y(),
            Source::GatedNorm(norm) => norm.y(),
        };
        self.sources.insert(key(source), index);
        self.readers.extend(fold.readers.iter().map(|reader| (key(reader.y()), index)));
        self.folds.push(fold);
    }

    fn source(&self, value: Value<'c, '_>) -> Option<&Fold<'c, 'm>> {
        self.sources.get(&key(value)).map(|index| &self.folds[*index])
    }

    fn reader(&self, value: Value<'c, '_>) -> Option<&Fold<'c, 'm>> {
        self.readers.get(&key(value)).map(|index| &self.folds[*index])
    }

    fn rewrite(&self, rewriter: &mut Rewriter<'c, '_>, op: Op<'c, '_>) -> Result<Action, IrError> {
        let at = op.operation().location();
        let mut smoothing = Smoothing { rewriter, at };
        match op {
            Op::Linear(linear) => smoothing.linear(linear, self.reader(linear.y()), self.source(linear.y())),
            Op::RmsNorm(norm) => match self.source(norm.y()) {
                Some(fold) => smoothing.norm(norm, fold),
                None => Ok(Action::Keep),
            },
            Op::GatedRmsNorm(norm) => match self.source(norm.y()) {
                Some(fold) => smoothing.gated_norm(norm, fold),
                None => Ok(Action::Keep),
            },
            // A weight that factors needed before its turn.
            _ if is_copied(smoothing.rewriter, op) => Ok(Action::Done),
            _ => Ok(Action::Keep),
        }
    }
}

fn is_copied(rewriter: &Rewriter<'_, '_>, op: Op<'_, '_>) -> bool {
    op.operation().results().next().is_some_and(|result| rewriter.find(result.into()).is_some())
}

/// The rewrite of one op.
struct Smoothing<'r, 'c, 'n> {
    rewriter: &'r mut Rewriter<'c, 'n>,
    at: Location<'c>,
}

impl<'c: 'n, 'n> Smoothing<'_, 'c, 'n> {
    fn linear(
        &mut self,
        linear: views::Linear<'c, '_>,
        read: Option<&Fold<'c, '_>>,
        made: Option<&Fold<'c, '_>>,
    ) -> Result<Action, IrError> {
        if read.is_none() && made.is_none() {
            return Ok(Action::Keep);
        }
        let copy = copy::linear(self.rewriter, linear);
        let NemoType::Weight(r#type) = type_of(copy.weight) else { unreachable!("bug: a linear's weight is a matrix") };
        let value = || NemoType::Weight(Weight { storage: Storage::F32, ..r#type.clone() });
        let mut weight = copy.weight;
        if let Some(fold) = made {
            let power = if matches!(fold.source, Source::Up(_)) { 0.5 } else { 1.0 };
            let by = self.factors(fold, power, true)?;
            let scale = build::ScaleRows { base: weight, by, inverse: true, value: value() };
            weight = self.rewriter.builder().push(scale, self.at)?.value();
        }
        if let Some(fold) = read {
            let by = self.factors(fold, 1.0, false)?;
            let scale = build::ScaleColumns { base: weight, by, inverse: false, value: value() };
            weight = self.rewriter.builder().push(scale, self.at)?.value();
        }
        let new = self.rewriter.builder().push(build::Linear { weight, ..copy }, self.at)?;
        self.rewriter.map(linear.y(), new.y());
        Ok(Action::Done)
    }

    fn norm(&mut self, norm: views::RmsNorm<'c, '_>, fold: &Fold<'c, '_>) -> Result<Action, IrError> {
        let copy = copy::rms_norm(self.rewriter, norm);
        let weight = self.vector(copy.weight, fold)?;
        let new = self.rewriter.builder().push(build::RmsNorm { weight, ..copy }, self.at)?;
        self.rewriter.map(norm.y(), new.y());
        if let (Some(old), Some(sum)) = (norm.sum(), new.sum()) {
            self.rewriter.map(old, sum);
        }
        Ok(Action::Done)
    }

    fn gated_norm(&mut self, norm: views::GatedRmsNorm<'c, '_>, fold: &Fold<'c, '_>) -> Result<Action, IrError> {
        let copy = copy::gated_rms_norm(self.rewriter, norm);
        let weight = self.vector(copy.weight, fold)?;
        let new = self.rewriter.builder().push(build::GatedRmsNorm { weight, ..copy }, self.at)?;
        self.rewriter.map(norm.y(), new.y());
        Ok(Action::Done)
    }

    /// The weight of a norm, smaller by the factors of the fold.
    fn vector(&mut self, weight: Option<Value<'c, 'n>>, fold: &Fold<'c, '_>) -> Result<Option<Value<'c, 'n>>, IrError> {
        let Some(base) = weight else { return Ok(None) };
        let by = self.factors(fold, 1.0, false)?;
        let scale = build::ScaleColumns { base, by, inverse: true, value: type_of(by) };
        Ok(Some(self.rewriter.builder().push(scale, self.at)?.value()))
    }

    /// The factors of a fold: for each column of its readers or, `once`, for each row of its source.
    fn factors(&mut self, fold: &Fold<'c, '_>, power: f64, once: bool) -> Result<Value<'c, 'n>, IrError> {
        let columns = columns(fold.readers[0]);
        let (share, block) = match fold.source {
            Source::Values(_, attention) => (attention.heads() / attention.kv_heads(), attention.head_dim()),
            _ => (1, 1),
        };
        let vector = |len| NemoType::Vector(Vector { len, storage: Storage::F32 });
        let absmax = build::Weight { tensor: absmax_tensor(&fold.tensor), value: vector(columns) };
        let absmax = self.rewriter.builder().push(absmax, self.at)?.value();
        let mut other = None;
        for reader in &fold.readers {
            let base = self.weight(reader.weight())?;
            let maxima = build::ColumnAbsmax { base, other, value: vector(columns) };
            other = Some(self.rewriter.builder().push(maxima, self.at)?.value());
        }
        let maxima = other.unwrap_or_else(|| panic!("bug: nothing reads what is smoothed"));
        let value = vector(if once { columns / share as usize } else { columns });
        let alpha = fold.alpha;
        let factors = build::SmoothFactors { absmax, columns: maxima, alpha, power, share, block, value };
        Ok(self.rewriter.builder().push(factors, self.at)?.value())
    }

    /// The copy of an old weight, made before its turn if need be.
    fn weight(&mut self, old: Value<'c, '_>) -> Result<Value<'c, 'n>, IrError> {
        if let Some(new) = self.rewriter.find(old) {
            return Ok(new);
        }
        let op = defining(old).unwrap_or_else(|| panic!("bug: no op makes the weight {old}")).operation();
        for operand in op.operands() {
            self.weight(operand)?;
        }
        self.rewriter.keep(op)?;
        Ok(self.rewriter.value(old))
    }
}
