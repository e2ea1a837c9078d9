//! A device for tests: the CPU, but what launches write is a few roundings off, as if it added in another order.

use super::moved::written;
use crate::cpu;
use crate::device::{Device, DeviceError, LaunchByLaunch, Limits, Logits, SequenceChunk, SlotId};
use crate::plan::{BufferId, DType, Kernel, Plan, StateId};
use std::borrow::Cow;

/// What is wrong with it.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    /// In this launch,
    pub(super) launch: usize,
    /// floats that it writes are multiplied by this,
    pub(super) scale: f32,
    /// but only in whole steps.
    pub(super) whole_steps_only: bool,
}

/// How it differs from the CPU.
#[derive(Clone, Copy)]
pub(super) struct Differs {
    /// Floats are off by up to this part of themselves.
    pub(super) relative: f32,
    /// 8-bit values of kernels that add are one off with this probability.
    pub(super) chance: f64,
    pub(super) seed: u32,
    pub(super) fault: Option<Fault>,
}

impl Differs {
    /// As measured on a GPU.
    pub(super) fn rounding(seed: u32) -> Differs {
        Differs { relative: 1e-7, chance: 5e-5, seed, fault: None }
    }
}

/// What it writes is a function of what the CPU would, so that launches one by one are equal to whole steps.
pub(super) struct Twin<'a> {
    pub(super) inner: cpu::Device<'a>,
    pub(super) differs: Differs,
}

fn scatter(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

impl Twin<'_> {
    fn run(&mut self, index: usize, whole_step: bool) -> Result<(), DeviceError> {
        self.inner.run_launch(index)?;
        let kernel = self.inner.plan().launches[index].kernel.clone();
        let fault = self.differs.fault.filter(|fault| fault.launch == index && (whole_step || !fault.whole_steps_only));
        let relative = if matches!(kernel, Kernel::SelectOutputs { .. }) { 0.0 } else { self.differs.relative };
        let chance = if matches!(kernel, Kernel::Map { .. }) { 0.0 } else { self.differs.chance };
        let key = scatter(self.differs.seed ^ scatter(index as u32));
        for id in written(&kernel) {
            match self.inner.plan().buffer(id).dtype {
                DType::F32 => {
                    let mut floats = self.inner.read_floats(id)?.into_owned();
                    for value in &mut floats {
                        let part = scatter(key ^ value.to_bits()) as i32 as f32 / 2f32.powi(31);
                        *value = *value * fault.map_or(1.0, |fault| fault.scale) + *value * relative * part;
                    }
                    self.inner.write_buffer(id, bytemuck::cast_slice(&floats))?;
                }
                DType::I8 => {
                    let mut bytes = self.inner.read_buffer(id)?.into_owned();
                    step_some(&mut bytes, chance, key);
                    self.inner.write_buffer(id, &bytes)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn step_some(bytes: &mut [u8], chance: f64, key: u32) {
    let mut hash = key;
    for byte in bytes {
        hash = scatter(hash ^ u32::from(*byte));
        if f64::from(hash) < chance * 2f64.powi(32) {
            let step = if hash & 1 == 0 { 1 } else { -1 };
            *byte = ((*byte as i8).saturating_add(step)).max(-127) as u8;
        }
    }
}

impl Device for Twin<'_> {
    fn plan(&self) -> &Plan {
        self.inner.plan()
    }

    fn description(&self) -> String {
        "a twin of the CPU".to_owned()
    }

    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    fn create_slot(&mut self) -> Result<SlotId, DeviceError> {
        self.inner.create_slot()
    }

    fn reset_slot(&mut self, slot: SlotId) -> Result<(), DeviceError> {
        self.inner.reset_slot(slot)
    }

    fn copy_slot(&mut self, from: SlotId, to: SlotId) -> Result<(), DeviceError> {
        self.inner.copy_slot(from, to)
    }

    fn release_slot(&mut self, slot: SlotId) -> Result<(), DeviceError> {
        self.inner.release_slot(slot)
    }

    fn position(&self, slot: SlotId) -> Result<usize, DeviceError> {
        self.inner.position(slot)
    }

    fn step(&mut self, batch: &[SequenceChunk<'_>]) -> Result<Logits<'_>, DeviceError> {
        self.inner.begin(batch)?;
        for index in 0..self.inner.plan().launches.len() {
            self.run(index, true)?;
        }
        self.inner.finish()
    }
}

impl LaunchByLaunch for Twin<'_> {
    fn begin(&mut self, batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError> {
        self.inner.begin(batch)
    }

    fn run_launch(&mut self, index: usize) -> Result<(), DeviceError> {
        self.run(index, false)
    }

    fn finish(&mut self) -> Result<Logits<'_>, DeviceError> {
        self.inner.finish()
    }

    fn read_buffer(&self, id: BufferId) -> Result<Cow<'_, [u8]>, DeviceError> {
        self.inner.read_buffer(id)
    }

    fn write_buffer(&mut self, id: BufferId, bytes: &[u8]) -> Result<(), DeviceError> {
        self.inner.write_buffer(id, bytes)
    }

    fn read_state(&self, slot: SlotId, id: StateId) -> Result<Cow<'_, [u8]>, DeviceError> {
        self.inner.read_state(slot, id)
    }

    fn write_state(&mut self, slot: SlotId, id: StateId, bytes: &[u8]) -> Result<(), DeviceError> {
        self.inner.write_state(slot, id, bytes)
    }
}
