use super::batch::StepShape;
use super::driver::{Gpu, Stream};
use super::enqueue::Queue;
use super::entry::Entry;
use super::kernels::Grid;
use super::kernels::{KernelImages, Kernels, target_for};
use crate::device::DeviceError;

/// A GPU with kernels on it, for work that is no device of one plan: calibration runs launches of several.
///
/// Fields are dropped in order: everything that lives in the context before the context.
pub struct Machine {
    pub(super) kernels: Kernels,
    pub(super) stream: Stream,
    pub(super) gpu: Gpu,
}

/// The target that kernels are to be compiled for to run on this GPU.
pub fn kernel_target(ordinal: u32) -> Result<&'static str, DeviceError> {
    Ok(target_for(Gpu::open(ordinal)?.capability))
}

impl Machine {
    /// Opens GPU number `ordinal`, as the driver counts.
    pub fn open(ordinal: u32, images: &dyn KernelImages) -> Result<Machine, DeviceError> {
        let gpu = Gpu::open(ordinal)?;
        Ok(Machine { kernels: Kernels::load(&gpu, images)?, stream: Stream::new()?, gpu })
    }

    /// For people: the GPU and the kernels that run.
    pub fn description(&self) -> String {
        let (major, minor) = self.gpu.capability;
        format!("{} (sm_{major}{minor}), {}", self.gpu.name, self.kernels.description())
    }

    pub(super) fn queue(&self, shape: StepShape) -> Queue<'_> {
        Queue { gpu: &self.gpu, kernels: &self.kernels, stream: &self.stream, beside: None, shape }
    }

    pub(super) fn launch<P: bytemuck::Pod>(&self, entry: Entry, grid: Grid, params: &P) -> Result<(), DeviceError> {
        self.kernels.launch(&self.stream, entry, grid, params)
    }

    /// Copies to the host, and waits for everything before.
    pub(super) fn download<T: bytemuck::Pod>(&self, from: u64, count: usize) -> Result<Vec<T>, DeviceError> {
        let mut out = vec![T::zeroed(); count];
        self.stream.download(bytemuck::cast_slice_mut(&mut out), from)?;
        self.stream.synchronize()?;
        Ok(out)
    }
}
