//! The ops of the dialect. [`TABLE`] declares each once; its IRDL definition, typed view ([`views`]), builder
//! ([`build`]) and documentation are derived from that row.

mod declare;
pub mod kinds;
mod table;

pub use table::{Op, TABLE, build, views};

use crate::error::IrError;
use crate::types::NemoType;
use kinds::{Arity, ArityWord, AttributeWord, TypeClass};
use melior::{
    Context,
    ir::{
        Attribute, BlockLike, BlockRef, Identifier, Location, Value,
        attribute::DenseI32ArrayAttribute,
        operation::{OperationBuilder, OperationLike, OperationRef},
    },
};

/// An operand or a result in the op table.
#[derive(Clone, Copy, Debug)]
pub struct ValueSpec {
    /// Its name.
    pub name: &'static str,
    /// How many values it stands for.
    pub arity: Arity,
    /// What types it takes.
    pub class: TypeClass,
}

/// An attribute in the op table.
#[derive(Clone, Copy, Debug)]
pub struct AttributeSpec {
    /// Its name.
    pub name: &'static str,
    /// Whether an op without it is illegal.
    pub required: bool,
    /// Its kind, for people.
    pub kind: &'static str,
    /// Whether an attribute is of its kind.
    pub accepts: fn(Attribute<'_>) -> bool,
}

/// A row of the op table.
#[derive(Clone, Copy, Debug)]
pub struct OpSpec {
    /// The mnemonic, without `nemo.`.
    pub mnemonic: &'static str,
    /// The full name.
    pub name: &'static str,
    /// What it computes.
    pub doc: &'static [&'static str],
    /// Operands, in order.
    pub operands: &'static [ValueSpec],
    /// Attributes.
    pub attributes: &'static [AttributeSpec],
    /// Results, in order.
    pub results: &'static [ValueSpec],
}

impl OpSpec {
    /// The row of an op by its full name.
    pub fn find(name: &str) -> Option<&'static OpSpec> {
        TABLE.iter().find(|spec| spec.name == name)
    }
}

/// The attribute in which MLIR keeps how many values each operand stands for.
pub(crate) const OPERAND_SEGMENTS: &str = "operandSegmentSizes";
/// The same for results.
pub(crate) const RESULT_SEGMENTS: &str = "resultSegmentSizes";

/// How many values a `many` operand or result takes at most. IRDL binds all values of one variadic constraint to the type
/// of the first, so `many` is that many optional values, each with a constraint of its own.
pub const MANY: usize = 24;

impl ValueSpec {
    /// How many IRDL values it is made of.
    pub(crate) fn slots(&self) -> usize {
        if self.arity == Arity::Many { MANY } else { 1 }
    }
}

/// Whether MLIR cannot tell which value belongs to which spec from their number alone.
pub(crate) fn needs_segments(specs: &[ValueSpec]) -> bool {
    specs.iter().filter(|spec| spec.arity != Arity::One).map(ValueSpec::slots).sum::<usize>() > 1
}

/// Where the values of spec `index` stand in a flat list of `total` values.
pub(crate) fn segment(
    op: &OperationRef<'_, '_>,
    specs: &[ValueSpec],
    index: usize,
    total: usize,
    attribute: &str,
) -> Option<std::ops::Range<usize>> {
    let sizes: Vec<usize> = if needs_segments(specs) {
        let sizes = DenseI32ArrayAttribute::try_from(op.attribute(attribute).ok()?).ok()?;
        let mut slots = (0..sizes.len()).map(|i| usize::try_from(sizes.element(i).ok()?).ok());
        specs.iter().map(|spec| slots.by_ref().take(spec.slots()).sum()).collect::<Option<_>>()?
    } else {
        let variable = total.checked_sub(specs.iter().filter(|spec| spec.arity == Arity::One).count())?;
        specs.iter().map(|spec| if spec.arity == Arity::One { 1 } else { variable }).collect()
    };
    let start: usize = sizes[..index].iter().sum();
    let end = start + sizes[index];
    (end <= total).then_some(start..end)
}

/// The values of a named operand of a well-formed op.
fn operand<'c, 'a, A: ArityWord>(op: &OperationRef<'c, 'a>, spec: &OpSpec, name: &str) -> kinds::Values<'c, 'a, A> {
    let index = spec.operands.iter().position(|operand| operand.name == name).expect("the table names its operands");
    segment(op, spec.operands, index, op.operand_count(), OPERAND_SEGMENTS)
        .and_then(|range| range.map(|i| op.operand(i).ok()).collect::<Option<Vec<_>>>())
        .and_then(A::collect)
        .unwrap_or_else(|| panic!("bug: {} was used before it was verified: operand {name}", spec.name))
}

/// The values of a named result of a well-formed op.
fn result<'c, 'a, A: ArityWord>(op: &OperationRef<'c, 'a>, spec: &OpSpec, name: &str) -> kinds::Values<'c, 'a, A> {
    let index = spec.results.iter().position(|result| result.name == name).expect("the table names its results");
    segment(op, spec.results, index, op.result_count(), RESULT_SEGMENTS)
        .and_then(|range| range.map(|i| OperationRef::result(*op, i).ok().map(Value::from)).collect::<Option<Vec<_>>>())
        .and_then(A::collect)
        .unwrap_or_else(|| panic!("bug: {} was used before it was verified: result {name}", spec.name))
}

/// The value of a named attribute, `None` when it is absent.
fn attribute<K: AttributeWord>(op: &OperationRef<'_, '_>, name: &str) -> Option<K::Value> {
    op.attribute(name).ok().and_then(K::from_mlir)
}

/// Appends ops to a block.
#[derive(Clone, Copy)]
pub struct Builder<'c, 'b> {
    context: &'c Context,
    block: BlockRef<'c, 'b>,
}

/// The parts of an op, as its builder lists them.
pub struct Parts<'c, 'b> {
    spec: &'static OpSpec,
    operands: Vec<Vec<Value<'c, 'b>>>,
    attributes: Vec<(&'static str, Attribute<'c>)>,
    results: Vec<Vec<NemoType>>,
}

/// An op that can be appended to a block; implemented by the structs of [`build`].
pub trait Build<'c, 'b> {
    /// The typed view of the finished op.
    type View;
    /// Its parts.
    fn parts(self, context: &'c Context) -> Parts<'c, 'b>;
    /// Wraps the finished op.
    fn view(op: OperationRef<'c, 'b>) -> Self::View;
}

impl Op<'_, '_> {
    /// Whether it makes a weight, once, before any step runs.
    pub fn prepares_weight(&self) -> bool {
        matches!(
            self,
            Op::Weight(_)
                | Op::SliceRows(_)
                | Op::ScaleColumns(_)
                | Op::ScaleRows(_)
                | Op::ColumnAbsmax(_)
                | Op::SmoothFactors(_)
                | Op::RotateWeight(_)
                | Op::QuantizeWeight(_)
        )
    }
}

impl<'c, 'b> Builder<'c, 'b> {
    /// Appends to the end of `block`.
    pub fn new(context: &'c Context, block: BlockRef<'c, 'b>) -> Self {
        Self { context, block }
    }

    /// The context ops are made in.
    pub fn context(&self) -> &'c Context {
        self.context
    }

    /// The block that ops are appended to.
    pub fn block(&self) -> BlockRef<'c, 'b> {
        self.block
    }

    /// A location that names a tensor or layer.
    pub fn location(&self, name: &str) -> Location<'c> {
        Location::name(self.context, name, Location::unknown(self.context))
    }

    /// Appends an op.
    ///
    /// # Errors
    /// When MLIR refuses to make the op.
    pub fn push<B: Build<'c, 'b>>(&self, op: B, location: Location<'c>) -> Result<B::View, IrError> {
        let parts = op.parts(self.context);
        let operands: Vec<_> = parts.operands.iter().flatten().copied().collect();
        let results: Vec<_> = parts.results.iter().flatten().map(|t| t.to_mlir(self.context)).collect();
        let mut attributes: Vec<_> =
            parts.attributes.iter().map(|(name, value)| (Identifier::new(self.context, name), *value)).collect();
        if needs_segments(parts.spec.operands) {
            attributes.push(self.segments(OPERAND_SEGMENTS, parts.spec.operands, &parts.operands));
        }
        if needs_segments(parts.spec.results) {
            attributes.push(self.segments(RESULT_SEGMENTS, parts.spec.results, &parts.results));
        }
        let operation = OperationBuilder::new(parts.spec.name, location)
            .add_operands(&operands)
            .add_attributes(&attributes)
            .add_results(&results)
            .build()
            .map_err(|_| IrError::Build { op: parts.spec.name })?;
        Ok(B::view(self.block.append_operation(operation)))
    }

    fn segments<T>(&self, name: &str, specs: &[ValueSpec], values: &[Vec<T>]) -> (Identifier<'c>, Attribute<'c>) {
        let mut sizes: Vec<i32> = Vec::new();
        for (spec, group) in specs.iter().zip(values) {
            match spec.arity {
                Arity::Many => sizes.extend((0..MANY).map(|slot| i32::from(slot < group.len()))),
                _ => sizes.push(group.len() as i32),
            }
        }
        (Identifier::new(self.context, name), DenseI32ArrayAttribute::new(self.context, &sizes).into())
    }
}
