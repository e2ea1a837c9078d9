//! Cutting a graph into regions that rewriting cannot reach across, each of which gets an e-graph of its own.
//!
//! A pass says which pairs of producer and consumer a rule could rewrite together; ops that are connected by such pairs
//! are a region. A region is about one layer's border or core, whatever the size of the model.

use crate::uses::key;
use ir::IrError;
use ir::melior::ir::{Module, operation::OperationLike};
use ir::module::{self, defining};
use ir::ops::Op;
use std::collections::{BTreeMap, HashMap};

/// Ops that are rewritten together, in program order.
pub struct Region<'c, 'm> {
    /// The ops.
    pub ops: Vec<Op<'c, 'm>>,
    /// Their positions in the graph.
    pub positions: Vec<usize>,
}

/// Identifies an op by its first result.
pub fn op_key(op: &Op<'_, '_>) -> Option<usize> {
    op.operation().results().next().map(|result| key(result.into()))
}

/// Regions of two ops or more, and of one if `alone` says that it can be rewritten by itself.
pub fn regions<'c, 'm>(
    module: &'m Module<'c>,
    joined: impl Fn(&Op<'c, 'm>, &Op<'c, 'm>) -> bool,
    alone: impl Fn(&Op<'c, 'm>) -> bool,
) -> Result<Vec<Region<'c, 'm>>, IrError> {
    let ops = module::ops(module)?;
    let positions: HashMap<usize, usize> =
        ops.iter().enumerate().filter_map(|(index, op)| Some((op_key(op)?, index))).collect();
    let mut parents: Vec<usize> = (0..ops.len()).collect();
    for (index, consumer) in ops.iter().enumerate() {
        for operand in consumer.operation().operands() {
            let Some(producer) = defining(operand) else { continue };
            let Some(position) = op_key(&producer).and_then(|key| positions.get(&key)) else { continue };
            if joined(&producer, consumer) {
                let (a, b) = (root(&mut parents, *position), root(&mut parents, index));
                parents[a.max(b)] = a.min(b);
            }
        }
    }
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..ops.len() {
        members.entry(root(&mut parents, index)).or_default().push(index);
    }
    let rewritable = members.into_values().filter(|indices| indices.len() > 1 || alone(&ops[indices[0]]));
    Ok(rewritable
        .map(|indices| Region { ops: indices.iter().map(|index| ops[*index]).collect(), positions: indices })
        .collect())
}

fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}
