//! The stored tensors, in GPU memory: one allocation, filled through page-locked memory.

use super::driver::{Memory, Stream};
use super::upload::upload;
use crate::device::DeviceError;
use crate::plan::{Kernel, Launch, Plan, PlanError, WeightFormat};
use crate::tensors::TensorStore;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

const ALIGN: usize = 256;

pub(super) struct Tensors {
    addresses: HashMap<String, u64>,
    memory: Memory,
    /// How long the upload took.
    pub(super) upload_time: Duration,
}

impl Tensors {
    /// Uploads every tensor that the plan names.
    pub(super) fn upload(plan: &Plan, store: &dyn TensorStore) -> Result<Tensors, DeviceError> {
        Tensors::place(&plan.launches, store, upload)
    }

    /// Uploads every tensor of one launch, most of which come from memory that is not page-locked.
    pub(super) fn of_launch(launch: &Launch, store: &dyn TensorStore, stream: &Stream) -> Result<Tensors, DeviceError> {
        Tensors::place(std::slice::from_ref(launch), store, |views, base| {
            views.iter().try_for_each(|(offset, bytes)| stream.upload(base + *offset as u64, bytes))?;
            stream.synchronize()
        })
    }

    fn place(
        launches: &[Launch],
        store: &dyn TensorStore,
        upload: impl FnOnce(&[(usize, &[u8])], u64) -> Result<(), DeviceError>,
    ) -> Result<Tensors, DeviceError> {
        let mut views = Vec::new();
        let mut offsets = HashMap::new();
        let mut total = 0;
        for (origin, name) in names(launches) {
            if offsets.contains_key(&name) {
                continue;
            }
            let missing = || PlanError::MissingTensor { at: origin.to_owned(), tensor: name.clone() };
            let view = store.tensor(&name).ok_or_else(missing)?;
            offsets.insert(name, total);
            views.push((total, view.bytes));
            total += view.bytes.len().next_multiple_of(ALIGN);
        }
        let memory = Memory::allocate(total, "the weights")?;
        let started = Instant::now();
        upload(&views, memory.address())?;
        let upload_time = started.elapsed();
        let addresses = offsets.into_iter().map(|(name, offset)| (name, memory.address() + offset as u64)).collect();
        Ok(Tensors { addresses, memory, upload_time })
    }

    /// The address of a tensor that the plan names.
    pub(super) fn get(&self, name: &str) -> u64 {
        self.addresses[name]
    }

    /// 0 for none.
    pub(super) fn get_optional(&self, name: Option<&String>) -> u64 {
        name.map_or(0, |name| self.get(name))
    }

    pub(super) fn address(&self) -> u64 {
        self.memory.address()
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory.bytes()
    }
}

/// Bytes of every tensor that the plan names, as they will lie on the GPU.
pub(super) fn stored_bytes(plan: &Plan, store: &dyn TensorStore) -> u64 {
    let names: BTreeSet<String> = names(&plan.launches).into_iter().map(|(_, name)| name).collect();
    let views = names.iter().filter_map(|name| store.tensor(name));
    views.map(|view| view.bytes.len().next_multiple_of(ALIGN) as u64).sum()
}

/// Every tensor of the launches with the launch that needs it.
fn names(launches: &[Launch]) -> Vec<(&str, String)> {
    let mut all = Vec::new();
    for launch in launches {
        let mut add = |name: &str| all.push((launch.origin.as_str(), name.to_owned()));
        match &launch.kernel {
            Kernel::Embed { table, .. } => stored(&table.weight, table.format).iter().for_each(|name| add(name)),
            Kernel::Linear { segments, .. } => {
                segments.iter().flat_map(|s| stored(&s.weight, s.format)).for_each(|name| add(&name));
            }
            Kernel::RmsNorm { weight, .. } | Kernel::GatedRmsNorm { weight, .. } => {
                weight.iter().for_each(|name| add(name));
            }
            Kernel::Dequantize { weight_scale, .. } => add(weight_scale),
            Kernel::Conv1d { weights, .. } => {
                add(&weights.weight);
                weights.bias.iter().for_each(|name| add(name));
            }
            Kernel::SsmScan { weights, .. } => {
                [&weights.a_log, &weights.d, &weights.dt_bias].into_iter().for_each(|name| add(name));
            }
            Kernel::Mixer { conv, ssm, norm_weight, .. } => {
                let of_ssm = [&ssm.a_log, &ssm.d, &ssm.dt_bias];
                let optional = conv.bias.iter().chain(norm_weight);
                [&conv.weight].into_iter().chain(of_ssm).chain(optional).for_each(|name| add(name));
            }
            Kernel::SelectOutputs { .. } | Kernel::Add { .. } | Kernel::Map { .. } | Kernel::Attention { .. } => {}
        }
    }
    all
}

/// Names of the tensors of one weight.
fn stored(weight: &str, format: WeightFormat) -> Vec<String> {
    let parts: &[&str] = match format {
        WeightFormat::Float { .. } => &["weight"],
        WeightFormat::W8 => &["weight", "scale"],
        WeightFormat::W4TwoLevel { .. } => &["weight", "group_scale", "scale"],
        WeightFormat::W4Group { .. } => &["weight", "group_scale"],
    };
    parts.iter().map(|part| format!("{weight}.{part}")).collect()
}
