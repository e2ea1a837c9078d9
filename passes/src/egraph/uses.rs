//! Who reads a value.

use super::terms::state_name;
use crate::uses::key;
use ir::IrError;
use ir::melior::ir::{Module, Value, operation::OperationLike};
use ir::module;
use ir::ops::Op;
use std::collections::{HashMap, HashSet};

/// The readers of every value of a graph, by position in it.
pub struct Uses {
    readers: HashMap<usize, Vec<usize>>,
    /// States by the new state that updates them.
    updated: HashMap<usize, Vec<String>>,
}

impl Uses {
    /// The uses of a module's graph.
    pub fn of(module: &Module<'_>) -> Result<Self, IrError> {
        let mut uses = Uses { readers: HashMap::new(), updated: HashMap::new() };
        for (position, operation) in module::operations(module::forward(module)?).into_iter().enumerate() {
            for operand in operation.operands() {
                uses.readers.entry(key(operand)).or_default().push(position);
            }
            if let Some(Op::UpdateState(update)) = Op::of(operation) {
                uses.updated.entry(key(update.value())).or_default().push(update.name());
            }
        }
        Ok(uses)
    }

    fn readers(&self, value: Value<'_, '_>) -> &[usize] {
        self.readers.get(&key(value)).map_or(&[], Vec::as_slice)
    }

    /// Whether something outside reads a value.
    pub fn leaves_region(&self, value: Value<'_, '_>, members: &HashSet<usize>) -> bool {
        self.readers(value).iter().any(|reader| !members.contains(reader))
    }

    /// Whether something outside reads a value after `position`.
    pub fn read_after(&self, value: Value<'_, '_>, position: usize, members: &HashSet<usize>) -> bool {
        self.readers(value).iter().any(|reader| *reader > position && !members.contains(reader))
    }

    /// Whether nothing reads a value.
    pub fn is_unused(&self, value: Value<'_, '_>) -> bool {
        self.readers(value).is_empty()
    }

    /// Whether a new state does nothing but replace the state it was made from.
    pub fn updates(&self, state: Value<'_, '_>, new_state: Value<'_, '_>) -> bool {
        let updated = self.updated.get(&key(new_state)).map_or(&[][..], Vec::as_slice);
        self.readers(new_state).len() == 1 && matches!(updated, [name] if Some(name) == state_name(state).as_ref())
    }
}
