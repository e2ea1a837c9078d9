//! The parts of the CUDA driver API that the device uses, with owners that free what they hold.

pub(super) use super::stream::{Event, Stream};
use crate::device::DeviceError;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};

/// What a call that cannot be recovered from becomes.
pub(super) fn failed(what: &str) -> impl Fn(DriverError) -> DeviceError + '_ {
    move |error| DeviceError::Backend {
        device: "the GPU".to_owned(),
        message: format!("{what}: {}", describe(error)),
        help: "if it persists, run on the CPU (`--device cpu`) and report it".to_owned(),
    }
}

pub(super) fn describe(error: DriverError) -> String {
    let text = |found: Result<&std::ffi::CStr, DriverError>| {
        found.map_or_else(|_| "unknown error".to_owned(), |text| text.to_string_lossy().into_owned())
    };
    format!("{} ({})", text(error.error_string()), text(error.error_name()))
}

/// A GPU and its primary context.
pub(super) struct Gpu {
    handle: sys::CUdevice,
    context: sys::CUcontext,
    pub(super) name: String,
    /// Compute capability.
    pub(super) capability: (u32, u32),
    pub(super) sm_count: u32,
    /// Shared memory a block may ask for.
    pub(super) smem_per_block: u32,
    pub(super) smem_per_sm: u32,
}

/// How many GPUs the driver sees, at least one; or why there is none.
pub fn find_gpus() -> Result<usize, String> {
    // SAFETY: only looks for the driver by its usual names.
    if !unsafe { sys::is_culib_present() } {
        return Err("no CUDA driver is installed (libcuda.so was not found)".to_owned());
    }
    result::init().map_err(describe)?;
    match result::device::get_count().map_err(describe)? {
        count @ 1.. => Ok(count as usize),
        _ => Err("the CUDA driver sees no GPU".to_owned()),
    }
}

/// What the list of a module's kernels needs.
const OLDEST_DRIVER: i32 = 12_040;

fn check_driver(version: i32) -> Result<(), DeviceError> {
    if version >= OLDEST_DRIVER {
        return Ok(());
    }
    let text = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
    Err(DeviceError::Backend {
        device: "CUDA".to_owned(),
        message: format!("the NVIDIA driver supports CUDA {}, {} is needed", text(version), text(OLDEST_DRIVER)),
        help: "update the driver to 550 or later, or run on the CPU (`--device cpu`)".to_owned(),
    })
}

fn driver_version() -> Result<i32, DeviceError> {
    let mut version = 0;
    // SAFETY: `version` may be written.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    Ok(version)
}

impl Gpu {
    /// Opens GPU number `ordinal` and makes it current for this thread.
    pub(super) fn open(ordinal: u32) -> Result<Gpu, DeviceError> {
        let count = find_gpus().map_err(|reason| no_gpu(&reason))?;
        check_driver(driver_version()?)?;
        if ordinal as usize >= count {
            return Err(no_gpu(&format!("GPU {ordinal} was asked for, {count} found")));
        }
        let handle = result::device::get(ordinal as i32).map_err(failed("cuDeviceGet"))?;
        // SAFETY: the handle is of a device that exists; the context is released on drop.
        let context = unsafe { result::primary_ctx::retain(handle) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let attribute = |which| {
            // SAFETY: the handle is valid.
            let value = unsafe { result::device::get_attribute(handle, which) };
            value.map(|value| value as u32).map_err(failed("cuDeviceGetAttribute"))
        };
        use sys::CUdevice_attribute::*;
        let gpu = Gpu {
            handle,
            context,
            name: result::device::get_name(handle).map_err(failed("cuDeviceGetName"))?,
            capability: (
                attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            sm_count: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            smem_per_block: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            smem_per_sm: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        };
        gpu.make_current()?;
        Ok(gpu)
    }

    /// Contexts are per thread: called at each entry from outside.
    pub(super) fn make_current(&self) -> Result<(), DeviceError> {
        // SAFETY: the context lives as long as self.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("cuCtxSetCurrent"))
    }

    /// Free and total bytes.
    pub(super) fn memory(&self) -> Result<(u64, u64), DeviceError> {
        let (free, total) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`; every owner of memory in it is dropped before (see the field order of Device).
        let _ = unsafe { result::primary_ctx::release(self.handle) };
    }
}

fn no_gpu(reason: &str) -> DeviceError {
    DeviceError::Backend {
        device: "CUDA".to_owned(),
        message: reason.to_owned(),
        help: "run on the CPU (`--device cpu`), or check `nvidia-smi`".to_owned(),
    }
}

/// Memory on the GPU.
pub(super) struct Memory {
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Memory {
    pub(super) fn allocate(bytes: usize, what: &str) -> Result<Memory, DeviceError> {
        if bytes == 0 {
            return Ok(Memory { address: 0, bytes });
        }
        // SAFETY: freed on drop.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => Ok(Memory { address, bytes }),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = result::mem_get_info().map_or(0, |(free, _)| free);
                let what = format!("{what} on the GPU ({free} bytes are free there)");
                Err(DeviceError::OutOfMemory { what, bytes: bytes as u64 })
            }
            Err(error) => Err(failed("cuMemAlloc")(error)),
        }
    }

    pub(super) fn zeroed(bytes: usize, what: &str, stream: &Stream) -> Result<Memory, DeviceError> {
        let memory = Memory::allocate(bytes, what)?;
        memory.clear(stream)?;
        Ok(memory)
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&self, stream: &Stream) -> Result<(), DeviceError> {
        self.clear_first(self.bytes, stream)
    }

    /// Zeros in the first bytes.
    pub(super) fn clear_first(&self, bytes: usize, stream: &Stream) -> Result<(), DeviceError> {
        assert!(bytes <= self.bytes, "bug: {bytes} bytes of {} were to be cleared", self.bytes);
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range is ours.
        unsafe { result::memset_d8_async(self.address, 0, bytes, stream.handle) }.map_err(failed("cuMemsetD8Async"))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.address != 0 {
            // SAFETY: allocated by us, freed once; the driver waits for kernels that use it.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// Page-locked memory of the host, which copies need to be asynchronous.
pub(super) struct Pinned {
    pointer: *mut u8,
    bytes: usize,
}

impl Pinned {
    pub(super) fn allocate(bytes: usize) -> Result<Pinned, DeviceError> {
        let bytes = bytes.max(1);
        // SAFETY: freed on drop.
        let pointer = unsafe { result::malloc_host(bytes, 0) }.map_err(failed("cuMemHostAlloc"))?.cast::<u8>();
        // SAFETY: the allocation has this size; zeros make reading it as a slice sound.
        unsafe { pointer.write_bytes(0, bytes) };
        Ok(Pinned { pointer, bytes })
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: initialized in `allocate`, and ours.
        unsafe { std::slice::from_raw_parts(self.pointer, self.bytes) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: initialized in `allocate`, and ours alone while borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by us, freed once.
        let _ = unsafe { result::free_host(self.pointer.cast::<c_void>()) };
    }
}

/// A captured sequence of launches.
pub(super) struct Graph {
    /// Null until it is instantiated.
    exec: sys::CUgraphExec,
    graph: sys::CUgraph,
}

impl Graph {
    /// Records what `enqueue` puts on the stream.
    pub(super) fn capture(
        stream: &Stream,
        enqueue: impl FnOnce() -> Result<(), DeviceError>,
    ) -> Result<Graph, DeviceError> {
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives, and capture ends below on every path.
        unsafe { result::stream::begin_capture(stream.handle, mode) }.map_err(failed("cuStreamBeginCapture"))?;
        let enqueued = enqueue();
        // SAFETY: capture was begun above.
        let captured = unsafe { result::stream::end_capture(stream.handle) }.map_err(failed("cuStreamEndCapture"));
        // Owned before anything else can fail: both are destroyed with it.
        let captured = captured.map(|graph| Graph { exec: null_mut(), graph });
        enqueued?;
        let mut captured = captured?;
        // SAFETY: the graph is valid; `exec` may be written.
        let made = unsafe { sys::cuGraphInstantiateWithFlags(&mut captured.exec, captured.graph, 0) };
        made.result().map_err(failed("cuGraphInstantiate"))?;
        Ok(captured)
    }

    pub(super) fn launch(&self, stream: &Stream) -> Result<(), DeviceError> {
        // SAFETY: both live.
        unsafe { result::graph::launch(self.exec, stream.handle) }.map_err(failed("cuGraphLaunch"))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by us, destroyed once; a null graph was never made.
        unsafe {
            if !self.exec.is_null() {
                let _ = result::graph::exec_destroy(self.exec);
            }
            if !self.graph.is_null() {
                let _ = result::graph::destroy(self.graph);
            }
        }
    }
}

/// A loaded cubin or PTX.
pub(super) struct Module(sys::CUmodule);

impl Module {
    pub(super) fn load(image: &[u8]) -> Result<Module, DriverError> {
        // PTX is a C string.
        let mut terminated = image.to_vec();
        terminated.push(0);
        // SAFETY: the image is a whole cubin or NUL-terminated PTX, and copied by the driver.
        unsafe { result::module::load_data(terminated.as_ptr().cast()) }.map(Module)
    }

    /// Its kernels, by symbol.
    pub(super) fn functions(&self) -> Result<Vec<(String, sys::CUfunction)>, DeviceError> {
        let mut count = 0;
        // SAFETY: the module lives, `count` may be written.
        unsafe { sys::cuModuleGetFunctionCount(&mut count, self.0) }
            .result()
            .map_err(failed("cuModuleGetFunctionCount"))?;
        let mut functions = vec![null_mut(); count as usize];
        // SAFETY: the module lives, `functions` has room for this many.
        unsafe { sys::cuModuleEnumerateFunctions(functions.as_mut_ptr(), count, self.0) }
            .result()
            .map_err(failed("cuModuleEnumerateFunctions"))?;
        functions.into_iter().map(|function| Ok((symbol_of(function)?, function))).collect()
    }
}

fn symbol_of(function: sys::CUfunction) -> Result<String, DeviceError> {
    let mut name = null();
    // SAFETY: the function is of a module that lives, `name` may be written.
    unsafe { sys::cuFuncGetName(&mut name, function) }.result().map_err(failed("cuFuncGetName"))?;
    // SAFETY: the driver made it a C string, which lives as long as the module.
    Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded by us, unloaded once.
        let _ = unsafe { result::module::unload(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::check_driver;

    #[test]
    fn an_old_driver_is_refused_by_its_version() {
        assert!(check_driver(12_040).is_ok() && check_driver(13_010).is_ok());
        let error = check_driver(11_080).unwrap_err().to_string();
        assert!(error.contains("supports CUDA 11.8, 12.4 is needed") && error.contains("help: update"), "{error}");
    }
}
