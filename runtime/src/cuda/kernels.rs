//! The compiled kernels, loaded for the GPU at hand, and how they are launched.

use super::driver::{Gpu, Module, Stream, describe, failed};
use super::entry::{self, Entry};
use crate::device::DeviceError;
use bytemuck::Pod;
use cudarc::driver::sys;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::mem::zeroed;

/// Finds compiled kernels by target, for example `sm_90a` or `compute_80`.
pub trait KernelImages {
    /// Cubins, or PTX for `compute_80`; together they hold every kernel. None where there are none for this target.
    fn images(&self, target: &str) -> Vec<&[u8]>;
}

/// Whether what has this name holds kernels for the target: `sm_90a.embed` those of one template, `sm_90a` all of them.
pub fn holds_kernels_for(name: &str, target: &str) -> bool {
    name.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The PTX that any later GPU can run.
const FALLBACK: &str = "compute_80";

/// The cubin that runs on a GPU of this compute capability.
fn target_of(capability: (u32, u32)) -> Option<&'static str> {
    match capability {
        (8, 9) => Some("sm_89"),
        (8, _) => Some("sm_80"),
        (9, 0) => Some("sm_90a"),
        (10, 0) => Some("sm_100a"),
        (12, _) => Some("sm_120"),
        _ => None,
    }
}

/// What to compile for a GPU of this compute capability.
pub(super) fn target_for(capability: (u32, u32)) -> &'static str {
    target_of(capability).unwrap_or(FALLBACK)
}

/// Grid and shared memory of a launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) blocks: (u32, u32, u32),
    pub(super) smem_bytes: u32,
    /// Neighbouring blocks that share memory; divides x.
    pub(super) cluster: u32,
}

impl Grid {
    pub(super) fn new(x: usize, y: usize, z: usize) -> Grid {
        Grid { blocks: (x as u32, y as u32, z as u32), smem_bytes: 0, cluster: 1 }
    }

    pub(super) fn smem(self, bytes: usize) -> Grid {
        Grid { smem_bytes: bytes as u32, ..self }
    }

    pub(super) fn clusters(self, cluster: usize) -> Grid {
        Grid { cluster: cluster as u32, ..self }
    }
}

pub(super) struct Kernels {
    functions: HashMap<&'static str, sys::CUfunction>,
    used: RefCell<BTreeSet<&'static str>>,
    _modules: Vec<Module>,
    /// What was loaded.
    pub(super) target: &'static str,
    /// Why nothing better was, for people.
    passed_over: Vec<String>,
    /// Dependent launch, bulk copies and clusters: Hopper and later.
    pub(super) hopper: bool,
    /// Warpgroup instructions: Hopper alone.
    pub(super) warpgroups: bool,
}

impl Kernels {
    pub(super) fn load(gpu: &Gpu, images: &dyn KernelImages) -> Result<Kernels, DeviceError> {
        let Loaded { modules, target, passed_over } = load_modules(gpu, images)?;
        let mut found = HashMap::new();
        for module in &modules {
            found.extend(module.functions()?);
        }
        let mut functions = HashMap::new();
        for entry in entry::ALL {
            let symbol = entry.symbol();
            let function = *found.get(&symbol).ok_or_else(|| DeviceError::Backend {
                device: "CUDA".to_owned(),
                message: format!("the compiled kernels lack {symbol}"),
                help: "the artifact was written by another version of nemoc; compile the model again".to_owned(),
            })?;
            functions.insert(entry.name, function);
            allow_shared_memory(gpu, function)?;
            if entry.all_shared {
                prefer_shared_memory(function)?;
            }
        }
        let used = RefCell::default();
        let (hopper, warpgroups) = (gpu.capability.0 >= 9 && target != FALLBACK, target == "sm_90a");
        Ok(Kernels { functions, used, _modules: modules, target, passed_over, hopper, warpgroups })
    }

    /// What was loaded, and why nothing better.
    pub(super) fn description(&self) -> String {
        match &self.passed_over[..] {
            _ if self.target != FALLBACK => format!("kernels for {}", self.target),
            [] => format!("kernels of {FALLBACK} PTX, compiled by the driver"),
            reasons => format!("kernels of {FALLBACK} PTX, compiled by the driver ({})", reasons.join("; ")),
        }
    }

    /// What was launched so far.
    pub(super) fn used(&self) -> Vec<&'static str> {
        self.used.borrow().iter().copied().collect()
    }

    /// How many clusters of such a launch the GPU holds at once.
    pub(super) fn resident_clusters(&self, entry: Entry, grid: Grid) -> Result<usize, DeviceError> {
        let mut attributes = [cluster(grid.cluster)];
        let config = launch_config(entry, grid, std::ptr::null_mut(), &mut attributes);
        let mut count = 0;
        // SAFETY: the function is of a loaded module, `count` may be written, and the configuration is read during the call.
        let found = unsafe { sys::cuOccupancyMaxActiveClusters(&mut count, self.functions[entry.name], &config) };
        found.result().map_err(failed("cuOccupancyMaxActiveClusters"))?;
        Ok(count as usize)
    }

    /// Puts a kernel on the stream. `params` is the one argument of its entry point.
    pub(super) fn launch<P: Pod>(
        &self,
        stream: &Stream,
        entry: Entry,
        grid: Grid,
        params: &P,
    ) -> Result<(), DeviceError> {
        let (x, y, z) = grid.blocks;
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        self.used.borrow_mut().insert(entry.name);
        let mut attributes = [dependent_launch(), cluster(grid.cluster)];
        let count = if !self.hopper { 0 } else { 1 + usize::from(grid.cluster > 1) };
        let config = launch_config(entry, grid, stream.handle, &mut attributes[..count]);
        let mut arguments = [std::ptr::from_ref(params).cast_mut().cast()];
        // SAFETY: the function takes one struct of this type (the entry table and the header come from the same
        // declarations), which the driver copies during the call.
        let launched = unsafe {
            sys::cuLaunchKernelEx(&config, self.functions[entry.name], arguments.as_mut_ptr(), std::ptr::null_mut())
        };
        launched.result().map_err(failed(entry.name))
    }
}

fn launch_config(
    entry: Entry,
    grid: Grid,
    stream: sys::CUstream,
    attributes: &mut [sys::CUlaunchAttribute],
) -> sys::CUlaunchConfig {
    sys::CUlaunchConfig {
        gridDimX: grid.blocks.0,
        gridDimY: grid.blocks.1,
        gridDimZ: grid.blocks.2,
        blockDimX: entry.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: grid.smem_bytes,
        hStream: stream,
        attrs: attributes.as_mut_ptr(),
        numAttrs: attributes.len() as u32,
    }
}

/// May start before the kernel ahead of it has finished, and waits for it itself.
fn dependent_launch() -> sys::CUlaunchAttribute {
    // SAFETY: the attribute is plain data, for which zeros are valid.
    let mut attribute: sys::CUlaunchAttribute = unsafe { zeroed() };
    attribute.id = sys::CUlaunchAttributeID_enum::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.programmaticStreamSerializationAllowed = 1;
    attribute
}

fn cluster(blocks: u32) -> sys::CUlaunchAttribute {
    // SAFETY: the attribute is plain data, for which zeros are valid.
    let mut attribute: sys::CUlaunchAttribute = unsafe { zeroed() };
    attribute.id = sys::CUlaunchAttributeID_enum::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: blocks, y: 1, z: 1 };
    attribute
}

/// Modules, and what was tried before them.
#[derive(Debug, PartialEq, Eq)]
struct Loaded<M> {
    modules: Vec<M>,
    target: &'static str,
    passed_over: Vec<String>,
}

fn load_modules(gpu: &Gpu, images: &dyn KernelImages) -> Result<Loaded<Module>, DeviceError> {
    load_best(gpu.capability, images, |image| Module::load(image).map_err(describe)).map_err(|reasons| {
        let (major, minor) = gpu.capability;
        DeviceError::Backend {
            device: "CUDA".to_owned(),
            message: format!("no kernels for {} (sm_{major}{minor}): {}", gpu.name, reasons.join("; ")),
            help: "compile the model with kernels for this GPU (`--kernels all`), or update the NVIDIA driver"
                .to_owned(),
        }
    })
}

/// The cubins for this GPU, else the PTX that its driver compiles; or why neither.
fn load_best<M>(
    capability: (u32, u32),
    images: &dyn KernelImages,
    load: impl Fn(&[u8]) -> Result<M, String>,
) -> Result<Loaded<M>, Vec<String>> {
    let mut passed_over = Vec::new();
    for target in target_of(capability).into_iter().chain([FALLBACK]) {
        let modules = match &images.images(target)[..] {
            [] => Err("not in the artifact".to_owned()),
            found => found.iter().map(|image| load(image)).collect(),
        };
        match modules {
            Ok(modules) => return Ok(Loaded { modules, target, passed_over }),
            Err(reason) => passed_over.push(format!("{target}: {reason}")),
        }
    }
    Err(passed_over)
}

fn allow_shared_memory(gpu: &Gpu, function: sys::CUfunction) -> Result<(), DeviceError> {
    use sys::CUfunction_attribute_enum::{
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
    };
    let mut fixed = 0;
    // SAFETY: the function is of a loaded module, `fixed` may be written.
    let got = unsafe { sys::cuFuncGetAttribute(&mut fixed, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function) };
    got.result().map_err(failed("cuFuncGetAttribute"))?;
    let most = gpu.smem_per_block as i32 - fixed;
    // SAFETY: the function is of a loaded module.
    let set = unsafe { sys::cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most) };
    set.result().map_err(failed("cuFuncSetAttribute"))
}

/// As [`Entry::all_shared`] says.
fn prefer_shared_memory(function: sys::CUfunction) -> Result<(), DeviceError> {
    let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
    // SAFETY: the function is of a loaded module.
    let set = unsafe { sys::cuFuncSetAttribute(function, attribute, 100) };
    set.result().map_err(failed("cuFuncSetAttribute"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ampere_and_later_gpu_finds_a_cubin_of_its_family_or_none() {
        assert_eq!(target_of((8, 6)), Some("sm_80"));
        assert_eq!(target_of((8, 9)), Some("sm_89"));
        assert_eq!(target_of((9, 0)), Some("sm_90a"));
        assert_eq!(target_of((12, 1)), Some("sm_120"));
        assert_eq!(target_of((13, 0)), None);
    }

    struct Images(&'static [&'static str]);

    impl KernelImages for Images {
        fn images(&self, target: &str) -> Vec<&[u8]> {
            let held = self.0.iter().filter(|name| holds_kernels_for(name, target));
            held.map(|name| name.as_bytes()).collect()
        }
    }

    fn load(
        capability: (u32, u32),
        images: &'static [&'static str],
        refused: &str,
    ) -> Result<Loaded<String>, Vec<String>> {
        let load = |image: &[u8]| match std::str::from_utf8(image).unwrap() {
            image if image == refused => Err("too new".to_owned()),
            image => Ok(image.to_owned()),
        };
        load_best(capability, &Images(images), load)
    }

    #[test]
    fn takes_the_cubin_of_the_gpu() {
        let loaded = load((9, 0), &["sm_80", "sm_90a", "compute_80"], "").unwrap();
        assert_eq!((loaded.target, loaded.passed_over.len()), ("sm_90a", 0));
    }

    #[test]
    fn loads_every_image_of_the_target_or_none() {
        let all: &[&str] = &["sm_90.embed", "sm_90a.embed", "sm_90a.rows", "compute_80"];
        assert_eq!(load((9, 0), all, "").unwrap().modules, ["sm_90a.embed", "sm_90a.rows"]);
        let loaded = load((9, 0), all, "sm_90a.rows").unwrap();
        assert_eq!(
            (&loaded.modules[..], loaded.passed_over),
            (&["compute_80".to_owned()][..], vec!["sm_90a: too new".to_owned()])
        );
    }

    #[test]
    fn falls_to_ptx_and_says_why() {
        let old_driver = load((9, 0), &["sm_90a", "compute_80"], "sm_90a").unwrap();
        assert_eq!((old_driver.target, &old_driver.passed_over[..]), (FALLBACK, &["sm_90a: too new".to_owned()][..]));
        let absent = load((9, 0), &["sm_80", "compute_80"], "").unwrap();
        assert_eq!(absent.passed_over, ["sm_90a: not in the artifact"]);
        let newer_gpu = load((13, 0), &["sm_90a", "compute_80"], "").unwrap();
        assert_eq!((newer_gpu.target, newer_gpu.passed_over.len()), (FALLBACK, 0));
    }

    #[test]
    fn says_why_neither_cubin_nor_ptx_will_do() {
        let reasons = load((8, 9), &["sm_80", "compute_80"], "compute_80").unwrap_err();
        assert_eq!(reasons, ["sm_89: not in the artifact", "compute_80: too new"]);
    }
}
