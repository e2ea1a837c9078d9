//! Which values share a buffer.

use super::draft::{Argument, Draft, Shape, VirtualBuffer, VirtualId};
use std::collections::HashMap;

/// Real buffers, and which of them each virtual buffer lives in.
pub struct Memory {
    /// The buffers of a step.
    pub buffers: Vec<VirtualBuffer>,
    /// Index into `buffers` of each virtual buffer that a launch uses.
    pub assigned: HashMap<VirtualId, usize>,
}

/// Gives every virtual buffer memory from its first to its last use. A launch never writes memory that it reads, so
/// memory is free again only after the launch that uses it last.
pub fn assign(drafts: &[Draft<'_, '_>], virtuals: &[VirtualBuffer], logits: VirtualId) -> Memory {
    let mut last_use: HashMap<VirtualId, usize> = HashMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        last_use.extend(used(draft).map(|id| (id, index)));
    }
    last_use.insert(logits, drafts.len());
    let mut memory = Memory { buffers: Vec::new(), assigned: HashMap::new() };
    let mut free: HashMap<Shape, Vec<usize>> = HashMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        for id in used(draft) {
            if memory.assigned.contains_key(&id) {
                continue;
            }
            let buffer = &virtuals[id.0];
            let reused = free.get_mut(&buffer.shape).and_then(Vec::pop);
            let real = reused.unwrap_or_else(|| {
                memory.buffers.push(buffer.clone());
                memory.buffers.len() - 1
            });
            memory.assigned.insert(id, real);
        }
        let mut dying: Vec<_> = used(draft).filter(|id| last_use[id] == index).collect();
        dying.sort_unstable();
        dying.dedup();
        for id in dying {
            free.entry(virtuals[id.0].shape).or_default().push(memory.assigned[&id]);
        }
    }
    memory
}

fn used(draft: &Draft<'_, '_>) -> impl Iterator<Item = VirtualId> {
    draft.arguments.iter().filter_map(|(_, argument)| match argument {
        Argument::Buffer(id) => Some(*id),
        Argument::Value(_) => None,
    })
}
