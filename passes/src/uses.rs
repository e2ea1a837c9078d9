//! Who reads a value.

use ir::IrError;
use ir::melior::ir::{
    Module, Value, ValueLike,
    operation::{OperationLike, OperationRef},
};
use ir::module::{forward, operations};
use std::collections::HashMap;

/// The readers of every value of a graph, in order.
pub(crate) struct Uses<'c, 'm>(HashMap<usize, Vec<OperationRef<'c, 'm>>>);

impl<'c, 'm> Uses<'c, 'm> {
    /// Collects them. The return of the function is a reader too.
    pub(crate) fn of(module: &'m Module<'c>) -> Result<Self, IrError> {
        let mut uses: HashMap<usize, Vec<OperationRef<'c, 'm>>> = HashMap::new();
        for op in operations(forward(module)?) {
            for operand in op.operands() {
                uses.entry(key(operand)).or_default().push(op);
            }
        }
        Ok(Uses(uses))
    }

    /// The ops that read `value`, once for each operand that does.
    pub(crate) fn readers(&self, value: Value<'c, '_>) -> &[OperationRef<'c, 'm>] {
        self.0.get(&key(value)).map_or(&[], Vec::as_slice)
    }
}

/// Identifies a value of one module.
pub(crate) fn key(value: Value<'_, '_>) -> usize {
    value.to_raw().ptr as usize
}
