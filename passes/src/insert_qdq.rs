//! Each linear with a precision quantizes its input and its weight, and dequantizes its sums; `convert` marks where a
//! value goes from one arithmetic to another.
//!
//! ```text
//!                                        %q = quantize(%x)                : i8 "token"
//!                                        %m = quantize_weight(%w)         : i8 "channel", i4 "two_level_128"
//! %y = linear(%x, %w)             =>     %a = linear(%q, %m)              : i32 "token_channel"
//!                                        %y = dequantize(%a)              : f32
//!
//! %y = linear(%x, %w) {w4a8-group} =>    %y = linear(quantize(%x), quantize_weight(%w))   : f32
//! %y = embed(%t, %w)              =>     %y = embed(%t, quantize_weight(%w))
//!
//! %x = add(%r, %o)                =>     %x = convert(add(%r, %o)) {from, to}
//! ```
//!
//! The input is unsigned when it comes straight from relu2. Group scales cannot act in an integer epilogue, so a
//! `w4a8-group` linear gives floats at once. A `convert` stands where the class of a block (the precision of its first
//! linear; of the table, for the embedding) differs from the next block's, and before a linear whose precision differs
//! from that of the first linear with the same input (dt beside a 4-bit z).
//!
//! Does not fire on `float` linears, nor on a module whose stage is already quantized. Legal because it is what
//! the assigned precision means; a `convert` is the identity on values. One quantize a linear: merging equal
//! ones is the business of fuse-conversions.
//!
//! Buys: integer arithmetic, with every conversion visible.

use crate::assign_precision::RECIPE_ATTRIBUTE;
use crate::copy;
use crate::precision::Precision;
use crate::recipe::{Recipe, Roundings};
use crate::uses::key;
use ir::IrError;
use ir::melior::{
    Context,
    ir::{Location, Module, Value, operation::OperationLike},
};
use ir::module::{defining, get_string, ops, type_of};
use ir::ops::{Op, build, views};
use ir::pass::{Pass, PassError, PassFailure};
use ir::rewrite::{Action, Rewriter, rewrite};
use ir::stage::Stage;
use ir::types::{Act, Granularity, NemoType, Storage, Weight};
use ir::weights::Rounding;
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// See the module's documentation.
#[derive(Default)]
pub struct InsertQdq {
    /// Of the weights of linears, where the recipe leaves it open. Tables are rounded to nearest: their rows are not summed.
    pub rounding: Rounding,
}

impl Pass for InsertQdq {
    fn name(&self) -> &'static str {
        "insert-qdq"
    }

    fn requires(&self) -> RangeInclusive<Stage> {
        Stage::Annotated..=Stage::Quantized
    }

    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        if Stage::of(module) == Some(Stage::Quantized) {
            return Ok(None);
        }
        let recipe = recipe(module)?;
        let roundings = recipe.roundings(self.rounding).map_err(|error| {
            refuse(format!("a pattern of the recipe: {error}"), "assign-precision checks patterns; run that again")
        })?;
        let converts = Converts::plan(module)?;
        let mut new = rewrite(context, module, |rewriter, op| {
            let mut insert =
                Insert { rewriter, group_size: recipe.group_size, roundings: &roundings, converts: &converts };
            match op {
                Op::Linear(linear) => insert.linear(linear),
                Op::Embed(embed) => insert.embed(embed),
                Op::Add(add) => insert.border(add),
                _ => Ok(Action::Keep),
            }
        })?;
        Stage::Quantized.set(context, &mut new);
        Ok(Some(new))
    }
}

fn refuse(message: String, help: &str) -> PassError {
    PassError { pass: "insert-qdq", message, help: Some(help.to_owned()) }
}

/// The recipe that the module carries.
fn recipe(module: &Module<'_>) -> Result<Recipe, PassError> {
    let Some(text) = get_string(module, RECIPE_ATTRIBUTE) else { return Ok(Recipe::default()) };
    serde_json::from_str(&text).map_err(|error| {
        refuse(format!("{RECIPE_ATTRIBUTE} is no recipe: {error}"), "assign-precision writes it; run that again")
    })
}

/// What an op was assigned.
fn assigned(name: &str, word: Option<String>) -> Result<Precision, PassError> {
    let Some(word) = word else {
        return Err(refuse(format!("{name} has no precision"), "run assign-precision first"));
    };
    Precision::parse(&word)
        .ok_or_else(|| refuse(format!("{name} has the precision `{word}`"), "expected float, w8a8, w4a8 or w4a8-group"))
}

/// A change of arithmetic.
#[derive(Clone, Copy)]
struct Change {
    from: Precision,
    to: Precision,
}

/// Where values change from one arithmetic to another.
struct Converts {
    /// By the result of the embedding or residual add that ends a block.
    at_border: HashMap<usize, Change>,
    /// By the result of the linear that disagrees with the first reader of its input.
    at_input: HashMap<usize, Change>,
}

impl Converts {
    /// Blocks are stretches of the graph between residual adds, in order.
    fn plan(module: &Module<'_>) -> Result<Self, PassFailure> {
        let mut plan = Converts { at_border: HashMap::new(), at_input: HashMap::new() };
        let mut first_reader: HashMap<usize, Precision> = HashMap::new();
        let mut block: Option<Precision> = None;
        let mut border: Option<(usize, Precision)> = None;
        for op in ops(module)? {
            match op {
                Op::Embed(embed) => {
                    border = Some((key(embed.y()), assigned(&embed.name(), embed.precision())?));
                }
                Op::Linear(linear) => {
                    let to = assigned(&linear.name(), linear.precision())?;
                    block.get_or_insert(to);
                    if let Some((value, from)) = border.take().filter(|(_, from)| *from != to) {
                        plan.at_border.insert(value, Change { from, to });
                    }
                    let from = *first_reader.entry(key(linear.x())).or_insert(to);
                    if from != to {
                        plan.at_input.insert(key(linear.y()), Change { from, to });
                    }
                }
                Op::Add(add) => border = block.take().map(|from| (key(add.y()), from)).or(border),
                _ => {}
            }
        }
        Ok(plan)
    }
}

/// One op's rewrite.
struct Insert<'r, 'c, 'n> {
    rewriter: &'r mut Rewriter<'c, 'n>,
    group_size: usize,
    roundings: &'r Roundings,
    converts: &'r Converts,
}

impl<'c, 'n> Insert<'_, 'c, 'n> {
    fn linear(&mut self, linear: views::Linear<'c, '_>) -> Result<Action, PassFailure> {
        let precision = assigned(&linear.name(), linear.precision())?;
        let at = linear.0.location();
        let mut copy = copy::linear(self.rewriter, linear);
        copy.x = self.convert(copy.x, self.converts.at_input.get(&key(linear.y())), at)?;
        if let Some(format) = precision.weight_format(self.group_size) {
            copy.x = self.quantize(copy.x, comes_from_relu2(linear.x()), at)?;
            copy.weight = self.quantize_weight(copy.weight, format, self.roundings.of(&linear.name()), at)?;
        }
        let y = self.multiply(copy, precision, at)?;
        self.rewriter.map(linear.y(), y);
        Ok(Action::Done)
    }

    /// The linear itself. Sums of a plain integer linear are dequantized apart, for fuse-conversions to fuse.
    fn multiply(
        &self,
        linear: build::Linear<'c, 'n>,
        precision: Precision,
        at: Location<'c>,
    ) -> Result<Value<'c, 'n>, IrError> {
        let is_fused = linear.epilogue.is_some() || linear.residual.is_some();
        let y = linear.y.clone();
        if is_fused || matches!(precision, Precision::Float | Precision::W4a8Group) {
            return Ok(self.rewriter.builder().push(linear, at)?.y());
        }
        let sums = NemoType::Act(act(&y).stored_as(Storage::I32, Granularity::TokenChannel));
        let x = self.rewriter.builder().push(build::Linear { y: sums, ..linear }, at)?.y();
        Ok(self.rewriter.builder().push(build::Dequantize { x, y }, at)?.y())
    }

    fn embed(&mut self, embed: views::Embed<'c, '_>) -> Result<Action, PassFailure> {
        let precision = assigned(&embed.name(), embed.precision())?;
        let at = embed.0.location();
        let mut copy = copy::embed(self.rewriter, embed);
        if let Some(format) = precision.weight_format(self.group_size) {
            let rounding = self.roundings.of(&embed.name()).to_nearest();
            copy.table = self.quantize_weight(copy.table, format, rounding, at)?;
        }
        let y = self.rewriter.builder().push(copy, at)?.y();
        let y = self.convert(y, self.converts.at_border.get(&key(embed.y())), at)?;
        self.rewriter.map(embed.y(), y);
        Ok(Action::Done)
    }

    fn border(&mut self, add: views::Add<'c, '_>) -> Result<Action, PassFailure> {
        let at = add.0.location();
        let (a, b) = (self.rewriter.value(add.a()), self.rewriter.value(add.b()));
        let y = self.rewriter.builder().push(build::Add { a, b, y: type_of(add.y()) }, at)?.y();
        let y = self.convert(y, self.converts.at_border.get(&key(add.y())), at)?;
        self.rewriter.map(add.y(), y);
        Ok(Action::Done)
    }

    fn convert(&self, x: Value<'c, 'n>, change: Option<&Change>, at: Location<'c>) -> Result<Value<'c, 'n>, IrError> {
        let Some(Change { from, to }) = change else { return Ok(x) };
        let convert = build::Convert { x, from: from.to_string(), to: to.to_string(), y: type_of(x) };
        Ok(self.rewriter.builder().push(convert, at)?.y())
    }

    fn quantize(&self, x: Value<'c, 'n>, unsigned: bool, at: Location<'c>) -> Result<Value<'c, 'n>, IrError> {
        let storage = if unsigned { Storage::U8 } else { Storage::I8 };
        let y = NemoType::Act(act(&type_of(x)).stored_as(storage, Granularity::Token));
        Ok(self.rewriter.builder().push(build::Quantize { x, y }, at)?.y())
    }

    fn quantize_weight(
        &self,
        base: Value<'c, 'n>,
        (storage, granularity): (Storage, Granularity),
        rounding: Rounding,
        at: Location<'c>,
    ) -> Result<Value<'c, 'n>, IrError> {
        let NemoType::Weight(weight) = type_of(base) else { unreachable!("bug: the weight of a linear is a matrix") };
        let value = NemoType::Weight(Weight { storage, granularity, ..weight });
        let rounding = rounding.as_str().to_owned();
        Ok(self.rewriter.builder().push(build::QuantizeWeight { base, rounding, value }, at)?.value())
    }
}

fn act(r#type: &NemoType) -> &Act {
    let NemoType::Act(act) = r#type else { unreachable!("bug: a linear maps activations to activations") };
    act
}

/// Whether a value is nowhere negative: squared and not rotated since.
fn comes_from_relu2(x: Value<'_, '_>) -> bool {
    match defining(x) {
        Some(Op::Relu2(_)) => true,
        Some(Op::Linear(linear)) => linear.epilogue().as_deref() == Some("relu2"),
        _ => false,
    }
}
