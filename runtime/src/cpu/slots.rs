//! The states of sequences.

use super::kv_cache::KvCache;
use super::scan_state::ScanState;
use crate::device::{DeviceError, Limits, SlotId};
use crate::plan::{Plan, StateId, StateKind};
use rayon::prelude::*;

/// One state of one sequence.
#[derive(Clone)]
pub(super) enum State {
    /// Convolution window or scan state.
    Fixed(Vec<f32>),
    /// Scan state in fewer bits.
    Scan(ScanState),
    /// Keys and values.
    Kv(KvCache),
}

#[derive(Clone)]
struct Slot {
    states: Vec<State>,
    position: usize,
    /// Tokens the caches have room for.
    capacity: usize,
}

/// All sequences of a device.
#[derive(Clone)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    fresh: Slot,
    fixed_bytes: u64,
    token_bytes: u64,
    context: Option<usize>,
    state_bytes: Option<u64>,
}

/// Caches grow by doubling from this many tokens on.
const FIRST_CAPACITY: usize = 64;

impl Slots {
    pub(super) fn new(plan: &Plan, limits: &Limits) -> Slots {
        let mut fixed_bytes = 0;
        let mut token_bytes = 0;
        let states = plan.states.iter().enumerate().map(|(id, state)| match state.kind {
            StateKind::Conv | StateKind::Ssm => {
                fixed_bytes += state.bytes() as u64;
                let floats = || State::Fixed(vec![0.0; state.elements()]);
                ScanState::new(state, id as u32).map_or_else(floats, State::Scan)
            }
            StateKind::Kv => {
                token_bytes += 2 * state.bytes() as u64;
                State::Kv(KvCache::new(state))
            }
        });
        let fresh = Slot { states: states.collect(), position: 0, capacity: 0 };
        Slots {
            slots: Vec::new(),
            fresh,
            fixed_bytes,
            token_bytes,
            context: limits.context,
            state_bytes: limits.state_bytes,
        }
    }

    fn slot(&self, id: SlotId) -> Result<&Slot, DeviceError> {
        let slot = self.slots.get(id.0 as usize).and_then(Option::as_ref);
        slot.ok_or(DeviceError::UnknownSlot(id))
    }

    fn slot_mut(&mut self, id: SlotId) -> Result<&mut Slot, DeviceError> {
        let slot = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut);
        slot.ok_or(DeviceError::UnknownSlot(id))
    }

    fn slot_bytes(&self, capacity: usize) -> u64 {
        self.fixed_bytes + self.token_bytes * capacity as u64
    }

    /// Bytes of all slots.
    pub(super) fn bytes(&self) -> u64 {
        let capacities = self.slots.iter().flatten().map(|slot| slot.capacity);
        capacities.map(|capacity| self.slot_bytes(capacity)).sum()
    }

    fn check_memory(&self, needed_bytes: u64) -> Result<(), DeviceError> {
        match self.state_bytes {
            Some(available_bytes) if needed_bytes > available_bytes => {
                Err(DeviceError::StateMemory { needed_bytes, available_bytes })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn create(&mut self) -> Result<SlotId, DeviceError> {
        self.check_memory(self.bytes() + self.fixed_bytes)?;
        let free = self.slots.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let states = self.fresh.states.par_iter().cloned().collect();
        self.slots[index] = Some(Slot { states, ..self.fresh });
        Ok(SlotId(index as u32))
    }

    pub(super) fn reset(&mut self, id: SlotId) -> Result<(), DeviceError> {
        let slot = self.slot_mut(id)?;
        slot.position = 0;
        for state in &mut slot.states {
            match state {
                State::Fixed(values) => values.fill(0.0),
                State::Scan(state) => state.clear(),
                State::Kv(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn copy(&mut self, from: SlotId, to: SlotId) -> Result<(), DeviceError> {
        let (source, target) = (self.slot(from)?, self.slot(to)?);
        let grown = source.position.max(target.capacity);
        let others = self.bytes() - self.slot_bytes(target.capacity);
        self.check_memory(others + self.slot_bytes(grown))?;
        self.grow(to, grown)?;
        if from == to {
            return Ok(());
        }
        let Some(mut target) = self.slots[to.0 as usize].take() else {
            return Err(DeviceError::UnknownSlot(to));
        };
        let source = self.slot(from)?;
        let states = source.states.par_iter().zip(&mut target.states);
        states.for_each(|(source_state, state)| match (source_state, state) {
            (State::Fixed(source), State::Fixed(target)) => target.copy_from_slice(source),
            (State::Scan(source), State::Scan(target)) => target.clone_from(source),
            (State::Kv(source_cache), State::Kv(target)) => target.copy_tokens(source_cache, source.position),
            _ => {}
        });
        target.position = source.position;
        self.slots[to.0 as usize] = Some(target);
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
        if let Some(slot) = self.slots[id.0 as usize].as_mut() {
            slot.position += tokens;
        }
    }

    pub(super) fn state(&self, id: SlotId, state: StateId) -> Result<&State, DeviceError> {
        let state = self.slot(id)?.states.get(state.0 as usize);
        state.ok_or_else(|| DeviceError::misuse("the plan has no such state"))
    }

    pub(super) fn state_mut(&mut self, id: SlotId, state: StateId) -> Result<&mut State, DeviceError> {
        let state = self.slot_mut(id)?.states.get_mut(state.0 as usize);
        state.ok_or_else(|| DeviceError::misuse("the plan has no such state"))
    }

    /// The state of a sequence in the batch.
    ///
    /// # Panics
    /// On ids that the batch or the plan's validation would have refused.
    pub(super) fn known_mut(&mut self, id: SlotId, state: StateId) -> &mut State {
        self.state_mut(id, state).unwrap_or_else(|_| unreachable!("the batch and the plan were checked"))
    }

    /// The convolution window of a sequence in the batch.
    ///
    /// # Panics
    /// On ids that the batch or the plan's validation would have refused.
    pub(super) fn fixed_mut(&mut self, id: SlotId, state: StateId) -> &mut [f32] {
        match self.state_mut(id, state) {
            Ok(State::Fixed(values)) => values,
            _ => unreachable!("a validated plan keeps its state kinds apart"),
        }
    }

    /// The keys and values of a sequence in the batch.
    ///
    /// # Panics
    /// On ids that the batch or the plan's validation would have refused.
    pub(super) fn kv_mut(&mut self, id: SlotId, state: StateId) -> &mut KvCache {
        match self.state_mut(id, state) {
            Ok(State::Kv(cache)) => cache,
            _ => unreachable!("a validated plan keeps its state kinds apart"),
        }
    }

    /// Makes room for all chunks of a batch, or for none.
    pub(super) fn reserve(&mut self, batch: impl Iterator<Item = (SlotId, usize)> + Clone) -> Result<(), DeviceError> {
        let (mut exact, mut doubled) = (self.bytes(), self.bytes());
        for (id, tokens) in batch.clone() {
            let slot = self.slot(id)?;
            let needed = slot.position + tokens;
            self.check_context(needed)?;
            let held = self.slot_bytes(slot.capacity);
            exact += self.slot_bytes(needed.max(slot.capacity)) - held;
            doubled += self.slot_bytes(self.next_capacity(slot, needed)) - held;
        }
        self.check_memory(exact)?;
        let double = self.check_memory(doubled).is_ok();
        for (id, tokens) in batch {
            let slot = self.slot(id)?;
            let needed = slot.position + tokens;
            let capacity = if double { self.next_capacity(slot, needed) } else { needed.max(slot.capacity) };
            self.grow(id, capacity)?;
        }
        Ok(())
    }

    fn next_capacity(&self, slot: &Slot, needed: usize) -> usize {
        if self.token_bytes == 0 || needed <= slot.capacity {
            return slot.capacity;
        }
        let doubled = needed.max(2 * slot.capacity).max(FIRST_CAPACITY);
        doubled.min(self.context.unwrap_or(usize::MAX))
    }

    fn check_context(&self, needed: usize) -> Result<(), DeviceError> {
        match self.context {
            Some(available) if needed > available => Err(DeviceError::ContextFull {
                needed,
                available,
                needed_bytes: self.token_bytes * needed as u64,
                available_bytes: self.token_bytes * available as u64,
            }),
            _ => Ok(()),
        }
    }

    fn grow(&mut self, id: SlotId, capacity: usize) -> Result<(), DeviceError> {
        let slot = self.slot_mut(id)?;
        if capacity <= slot.capacity {
            return Ok(());
        }
        for state in &mut slot.states {
            if let State::Kv(cache) = state {
                cache.grow(capacity)?;
            }
        }
        slot.capacity = capacity;
        Ok(())
    }
}
