//! Rewriting a module: a pass walks the old graph in order and appends the new one.
//!
//! Building anew instead of editing in place keeps every borrow simple, makes the order of ops deterministic and leaves
//! the old module whole for pattern matching: a pass looks back along operands with [`crate::module::defining`] on old values and
//! gets their replacements with [`Rewriter::value`].

use crate::error::IrError;
use crate::module;
use crate::ops::{Builder, Op};
use melior::{
    Context,
    ir::{
        BlockLike, Module, Value, ValueLike,
        operation::{OperationBuilder, OperationLike, OperationRef},
    },
};
use std::collections::HashMap;

/// Maps values of the old graph to values of the new one.
pub struct Rewriter<'c, 'n> {
    builder: Builder<'c, 'n>,
    values: HashMap<usize, Value<'c, 'n>>,
}

/// What becomes of an op.
pub enum Action {
    /// Copy it, with its operands replaced.
    Keep,
    /// The callback has mapped its results, or nothing uses them any more.
    Done,
}

impl<'c, 'n> Rewriter<'c, 'n> {
    /// Appends to the graph of `builder`; for passes that walk the old graph in an order of their own.
    pub fn new(builder: Builder<'c, 'n>) -> Self {
        Rewriter { builder, values: HashMap::new() }
    }

    /// The new value that stands for an old one, if there is one yet.
    pub fn find(&self, old: Value<'c, '_>) -> Option<Value<'c, 'n>> {
        self.values.get(&key(old)).copied()
    }

    /// Appends to the new graph.
    pub fn builder(&self) -> Builder<'c, 'n> {
        self.builder
    }

    /// The new value that stands for an old one.
    ///
    /// # Panics
    /// When a pass uses the result of an op it dropped: a bug in that pass.
    pub fn value(&self, old: Value<'c, '_>) -> Value<'c, 'n> {
        *self.values.get(&key(old)).unwrap_or_else(|| panic!("bug: the pass dropped {old}, which is still used"))
    }

    /// Says which new value stands for an old one.
    pub fn map(&mut self, old: Value<'c, '_>, new: Value<'c, 'n>) {
        self.values.insert(key(old), new);
    }

    /// Copies an op with its operands replaced.
    ///
    /// # Errors
    /// When MLIR refuses to build the copy.
    pub fn keep(&mut self, op: OperationRef<'c, '_>) -> Result<(), IrError> {
        let operands: Vec<_> = op.operands().map(|operand| self.value(operand)).collect();
        let results: Vec<_> = op.results().map(|result| result.r#type()).collect();
        let attributes: Vec<_> = op.attributes().collect();
        let name = op.name();
        let name = name.as_string_ref().as_str().unwrap_or_default().to_owned();
        let copy = OperationBuilder::new(&name, op.location())
            .add_operands(&operands)
            .add_attributes(&attributes)
            .add_results(&results)
            .build()
            .map_err(|_| IrError::Build { op: "a copy" })?;
        let copy = self.builder.block().append_operation(copy);
        for (old, new) in op.results().zip(copy.results()) {
            self.values.insert(key(old.into()), new.into());
        }
        Ok(())
    }
}

fn key(value: Value<'_, '_>) -> usize {
    value.to_raw().ptr as usize
}

/// Builds the graph that `rewrite_op` makes of `old`, op by op, and drops what nothing uses.
///
/// # Errors
/// Those of `rewrite_op`, and [`IrError::NoForward`].
pub fn rewrite<'c, E: From<IrError>>(
    context: &'c Context,
    old: &Module<'c>,
    mut rewrite_op: impl FnMut(&mut Rewriter<'c, '_>, Op<'c, '_>) -> Result<Action, E>,
) -> Result<Module<'c>, E> {
    let mut new = module::start(context, &module::logits_type(old)?);
    module::copy_attributes(old, &mut new);
    let old_block = module::forward(old)?;
    let new_block = module::forward(&new)?;
    let mut rewriter = Rewriter::new(Builder::new(context, new_block));
    for index in 0..old_block.argument_count() {
        if let (Ok(from), Ok(to)) = (old_block.argument(index), new_block.argument(index)) {
            rewriter.map(from.into(), to.into());
        }
    }
    for op in module::operations(old_block) {
        let action = match Op::of(op) {
            Some(op) => rewrite_op(&mut rewriter, op)?,
            None => Action::Keep,
        };
        if let Action::Keep = action {
            rewriter.keep(op)?;
        }
    }
    erase_unused(new_block);
    Ok(new)
}

/// Erases ops whose results nothing uses, last to first, so that whole chains go.
fn erase_unused(block: melior::ir::BlockRef<'_, '_>) {
    for op in module::operations(block).into_iter().rev() {
        let pure = op.result_count() > 0;
        let used = op.results().any(|result| {
            // SAFETY: the result belongs to a live operation of this block.
            unsafe { !mlir_sys::mlirOpOperandIsNull(mlir_sys::mlirValueGetFirstUse(result.to_raw())) }
        });
        if pure && !used {
            // SAFETY: nothing uses the operation, and no reference to it outlives this statement.
            unsafe { mlir_sys::mlirOperationDestroy(op.to_raw()) };
        }
    }
}
