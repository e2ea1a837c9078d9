//! The states of sequences, in GPU memory.
//!
//! A slot is two allocations: windows and scan states of all layers, of fixed size; and keys and values of all layers,
//! which grow by doubling. Kernels reach both through addresses that are uploaded with every step, so growing changes no
//! launch.

use super::driver::{Memory, Stream};
use crate::device::{DeviceError, Limits, SlotId};
use crate::plan::{Plan, StateId, StateKind};

/// Where a state lies in its slot.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Bytes from the start of the fixed states, and its size.
    Fixed { offset: usize, bytes: usize },
    /// Bytes a token of the caches of earlier layers, of its own keys, and of their scales; and as many for its values.
    Cache { offset: usize, data: usize, scales: usize },
}

/// Where the parts of a cache begin, and their size, in bytes a token: keys, their scales, values, their scales.
fn columns(offset: usize, data: usize, scales: usize) -> impl Iterator<Item = (usize, usize)> {
    let values = offset + data + scales;
    let parts = [(offset, data), (offset + data, scales), (values, data), (values + data, scales)];
    parts.into_iter().filter(|(_, bytes)| *bytes > 0)
}

struct Slot {
    fixed: Memory,
    cache: Memory,
    position: usize,
    capacity: usize,
}

pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    places: Vec<Place>,
    fixed_bytes: usize,
    token_bytes: usize,
    context: Option<usize>,
    state_bytes: Option<u64>,
}

/// Caches grow by doubling from this many tokens on.
pub(super) const FIRST_CAPACITY: usize = 1024;
const ALIGN: usize = 256;

impl Slots {
    pub(super) fn new(plan: &Plan, limits: &Limits) -> Slots {
        let (mut fixed_bytes, mut token_bytes) = (0, 0);
        let mut places = Vec::new();
        for state in &plan.states {
            let bytes = state.bytes();
            match state.kind {
                StateKind::Conv | StateKind::Ssm => {
                    places.push(Place::Fixed { offset: fixed_bytes, bytes });
                    fixed_bytes += bytes.next_multiple_of(ALIGN);
                }
                StateKind::Kv => {
                    let data = state.elements() * state.dtype.bytes();
                    places.push(Place::Cache { offset: token_bytes, data, scales: bytes - data });
                    token_bytes += 2 * bytes;
                }
            }
        }
        Slots {
            slots: Vec::new(),
            places,
            fixed_bytes,
            token_bytes,
            context: limits.context,
            state_bytes: limits.state_bytes,
        }
    }

    /// Where the plan's state lies.
    pub(super) fn place(&self, state: StateId) -> Place {
        self.places[state.0 as usize]
    }

    fn slot(&self, id: SlotId) -> Result<&Slot, DeviceError> {
        self.slots.get(id.0 as usize).and_then(Option::as_ref).ok_or(DeviceError::UnknownSlot(id))
    }

    fn slot_mut(&mut self, id: SlotId) -> Result<&mut Slot, DeviceError> {
        self.slots.get_mut(id.0 as usize).and_then(Option::as_mut).ok_or(DeviceError::UnknownSlot(id))
    }

    /// Bytes of all slots.
    pub(super) fn bytes(&self) -> u64 {
        self.slots.iter().flatten().map(|slot| (slot.fixed.bytes() + slot.cache.bytes()) as u64).sum()
    }

    fn check_memory(&self, more: usize) -> Result<(), DeviceError> {
        let needed_bytes = self.bytes() + more as u64;
        match self.state_bytes {
            Some(available_bytes) if needed_bytes > available_bytes => {
                Err(DeviceError::StateMemory { needed_bytes, available_bytes })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn create(&mut self, stream: &Stream) -> Result<SlotId, DeviceError> {
        self.check_memory(self.fixed_bytes)?;
        let slot = Slot {
            fixed: Memory::zeroed(self.fixed_bytes, "the states of a sequence", stream)?,
            cache: Memory::allocate(0, "")?,
            position: 0,
            capacity: 0,
        };
        let free = self.slots.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = Some(slot);
        Ok(SlotId(index as u32))
    }

    pub(super) fn reset(&mut self, id: SlotId, stream: &Stream) -> Result<(), DeviceError> {
        let slot = self.slot_mut(id)?;
        slot.position = 0;
        slot.fixed.clear(stream)
    }

    pub(super) fn copy(&mut self, from: SlotId, to: SlotId, stream: &Stream) -> Result<(), DeviceError> {
        let position = self.slot(from)?.position;
        self.slot(to)?;
        if from == to {
            return Ok(());
        }
        self.reserve([(to, position)].into_iter(), stream, 0)?;
        let (source, target) = (self.slot(from)?, self.slot(to)?);
        stream.copy(target.fixed.address(), source.fixed.address(), self.fixed_bytes)?;
        self.copy_cache(source, target, position, stream)?;
        self.slot_mut(to)?.position = position;
        Ok(())
    }

    /// Keys and values of `tokens` tokens, whose distance depends on the capacity.
    fn copy_cache(&self, source: &Slot, target: &Slot, tokens: usize, stream: &Stream) -> Result<(), DeviceError> {
        self.copy_tokens(
            (source.cache.address(), source.capacity),
            (target.cache.address(), target.capacity),
            tokens,
            stream,
        )
    }

    fn copy_tokens(
        &self,
        from: (u64, usize),
        to: (u64, usize),
        tokens: usize,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        if tokens == 0 {
            return Ok(());
        }
        for place in &self.places {
            let Place::Cache { offset, data, scales } = *place else { continue };
            for (column, bytes) in columns(offset, data, scales) {
                let (source, target) = (from.0 + (column * from.1) as u64, to.0 + (column * to.1) as u64);
                stream.copy(target, source, bytes * tokens)?;
            }
        }
        Ok(())
    }

    pub(super) fn release(&mut self, id: SlotId) -> Result<(), DeviceError> {
        self.slot(id)?;
        self.slots[id.0 as usize] = None;
        Ok(())
    }

    pub(super) fn position(&self, id: SlotId) -> Result<usize, DeviceError> {
        Ok(self.slot(id)?.position)
    }

    pub(super) fn advance(&mut self, id: SlotId, tokens: usize) {
        if let Ok(slot) = self.slot_mut(id) {
            slot.position += tokens;
        }
    }

    /// Addresses of the fixed states and of the cache, and the tokens the cache has room for.
    pub(super) fn addresses(&self, id: SlotId) -> Result<(u64, u64, usize), DeviceError> {
        let slot = self.slot(id)?;
        Ok((slot.fixed.address(), slot.cache.address(), slot.capacity))
    }

    /// Makes room for this many tokens beyond the position of each sequence. With `minimum` 0 the room is exact.
    pub(super) fn reserve(
        &mut self,
        growth: impl Iterator<Item = (SlotId, usize)> + Clone,
        stream: &Stream,
        minimum: usize,
    ) -> Result<(), DeviceError> {
        for (id, tokens) in growth.clone() {
            self.check_context(self.slot(id)?.position + tokens)?;
        }
        for (id, tokens) in growth {
            let slot = self.slot(id)?;
            let needed = slot.position + tokens;
            if self.token_bytes == 0 || needed <= slot.capacity {
                continue;
            }
            let doubled = needed.max(2 * slot.capacity).max(minimum);
            let capacity = doubled.min(self.context.unwrap_or(usize::MAX)).next_multiple_of(64);
            self.grow(id, capacity, stream)?;
        }
        Ok(())
    }

    /// As [`Slots::reserve`], doubling.
    pub(super) fn reserve_step(
        &mut self,
        growth: impl Iterator<Item = (SlotId, usize)> + Clone,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        self.reserve(growth, stream, FIRST_CAPACITY)
    }

    fn check_context(&self, needed: usize) -> Result<(), DeviceError> {
        match self.context {
            Some(available) if needed > available => Err(DeviceError::ContextFull {
                needed,
                available,
                needed_bytes: (self.token_bytes * needed) as u64,
                available_bytes: (self.token_bytes * available) as u64,
            }),
            _ => Ok(()),
        }
    }

    fn grow(&mut self, id: SlotId, capacity: usize, stream: &Stream) -> Result<(), DeviceError> {
        let slot = self.slot(id)?;
        self.check_memory((capacity - slot.capacity) * self.token_bytes)?;
        let cache = Memory::allocate(capacity * self.token_bytes, "keys and values")?;
        let (from, to) = ((slot.cache.address(), slot.capacity), (cache.address(), capacity));
        self.copy_tokens(from, to, slot.position, stream)?;
        // The old cache is freed below: its copy must have happened.
        stream.synchronize()?;
        let slot = self.slot_mut(id)?;
        slot.cache = cache;
        slot.capacity = capacity;
        Ok(())
    }

    /// Address ranges of a state, in the order of its bytes: one, or keys and values of the tokens taken.
    pub(super) fn ranges(&self, id: SlotId, state: StateId) -> Result<Vec<(u64, usize)>, DeviceError> {
        let slot = self.slot(id)?;
        let place = self.places.get(state.0 as usize).copied();
        let place = place.ok_or_else(|| DeviceError::misuse("the plan has no such state"))?;
        Ok(match place {
            Place::Fixed { offset, bytes } => vec![(slot.fixed.address() + offset as u64, bytes)],
            Place::Cache { offset, data, scales } => columns(offset, data, scales)
                .map(|(column, bytes)| (slot.cache.address() + (column * slot.capacity) as u64, bytes * slot.position))
                .collect(),
        })
    }
}
