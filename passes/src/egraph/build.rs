//! From terms back to ops.
//!
//! Nothing is copied in advance: each op that stays asks for its operands, and a value of a rewritten region is built
//! from its term when something asks for it first.

use super::language::Nemo;
use super::leaves::TermType;
use super::region::op_key;
use super::terms::Terms;
use crate::uses::key;
use egg::{Id, RecExpr};
use ir::IrError;
use ir::melior::{
    Context,
    ir::{BlockLike, Module, Value, operation::OperationLike},
};
use ir::module::{self, defining, finish, forward};
use ir::ops::{Builder, Op};
use ir::rewrite::Rewriter;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// What a region becomes.
#[derive(Debug)]
pub struct Choice {
    /// The terms, children first.
    pub expr: RecExpr<Nemo>,
    /// The type of each.
    pub types: Vec<TermType>,
    /// The term of each output of the region, in order.
    pub outputs: Vec<Id>,
    /// The term that was read from the graph and is equal to each, if there is one.
    pub origins: Vec<Option<Id>>,
}

/// A region that is rewritten.
pub struct Change<'c, 'm> {
    /// What it was.
    pub terms: Terms<'c, 'm>,
    /// What it becomes.
    pub choice: Rc<Choice>,
}

/// Builds the graph in which each of `changes` replaces its region; `replaced` holds the keys of the regions' ops.
pub fn rebuild<'c, 'm>(
    context: &'c Context,
    old: &'m Module<'c>,
    changes: &[Change<'c, 'm>],
    replaced: &HashSet<usize>,
) -> Result<Module<'c>, IrError> {
    let mut new = module::start(context, &module::logits_type(old)?);
    module::copy_attributes(old, &mut new);
    let (from, to) = (forward(old)?, forward(&new)?);
    let builder = Builder::new(context, to);
    let mut rewriter = Rewriter::new(builder);
    for index in 0..from.argument_count() {
        if let (Ok(old), Ok(new)) = (from.argument(index), to.argument(index)) {
            rewriter.map(old.into(), new.into());
        }
    }
    let mut outputs = HashMap::new();
    for (index, change) in changes.iter().enumerate() {
        for ((value, _), place) in change.terms.outputs.iter().zip(&change.choice.outputs) {
            outputs.insert(key(*value), (index, *place));
        }
    }
    let mut graph = Rebuild { rewriter, changes, outputs, built: vec![HashMap::new(); changes.len()] };
    let is_replaced = |op: &Op<'c, 'm>| op_key(op).is_some_and(|key| replaced.contains(&key));
    for operation in module::operations(from) {
        match Op::of(operation) {
            Some(op) if is_replaced(&op) => graph.outputs_of(op)?,
            // Whoever builds the new op of a state updates the state.
            Some(Op::UpdateState(update)) if defining(update.value()).is_some_and(|op| is_replaced(&op)) => {}
            Some(op) => graph.keep(op)?,
            None => {
                let logits = operation.operand(0).map_err(|_| IrError::NoForward)?;
                finish(&builder, graph.value(logits)?);
            }
        }
    }
    drop(graph);
    Ok(new)
}

/// The new graph while it grows.
pub struct Rebuild<'a, 'c, 'm, 'n> {
    pub(super) rewriter: Rewriter<'c, 'n>,
    pub(super) changes: &'a [Change<'c, 'm>],
    /// Terms of the old values that changed regions provide.
    outputs: HashMap<usize, (usize, Id)>,
    /// Values of the terms of each change.
    pub(super) built: Vec<HashMap<Id, Value<'c, 'n>>>,
}

impl<'c: 'n, 'm, 'n> Rebuild<'_, 'c, 'm, 'n> {
    /// The new value that stands for an old one, built if need be.
    pub(super) fn value(&mut self, old: Value<'c, 'm>) -> Result<Value<'c, 'n>, IrError> {
        if let Some(new) = self.rewriter.find(old) {
            return Ok(new);
        }
        if let Some((change, place)) = self.outputs.get(&key(old)).copied() {
            let new = self.term(change, place)?;
            self.rewriter.map(old, new);
            return Ok(new);
        }
        let op = defining(old).unwrap_or_else(|| panic!("bug: {old} was rewritten away but is still used"));
        self.keep(op)?;
        Ok(self.rewriter.value(old))
    }

    fn keep(&mut self, op: Op<'c, 'm>) -> Result<(), IrError> {
        let operation = op.operation();
        let done = operation.results().next().is_some_and(|first| self.rewriter.find(first.into()).is_some());
        if done {
            return Ok(());
        }
        for operand in operation.operands() {
            self.value(operand)?;
        }
        self.rewriter.keep(operation)
    }

    /// Builds what a replaced op gives to the rest of the graph, at its place in the order.
    fn outputs_of(&mut self, op: Op<'c, 'm>) -> Result<(), IrError> {
        for result in op.operation().results() {
            if self.outputs.contains_key(&key(result.into())) {
                self.value(result.into())?;
            }
        }
        Ok(())
    }
}
