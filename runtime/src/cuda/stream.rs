//! Queues of work on the GPU, and points in them.

use super::driver::failed;
use crate::device::DeviceError;
use cudarc::driver::{result, sys};

/// A queue of work.
pub(super) struct Stream {
    pub(super) handle: sys::CUstream,
}

impl Stream {
    /// Its kernels' blocks go first where others wait for room, too.
    pub(super) fn new() -> Result<Stream, DeviceError> {
        let (_, first) = result::stream::get_priority_range().map_err(failed("cuCtxGetStreamPriorityRange"))?;
        Stream::with_priority(first)
    }

    /// Its kernels' blocks take what the others leave.
    pub(super) fn in_background() -> Result<Stream, DeviceError> {
        let (last, _) = result::stream::get_priority_range().map_err(failed("cuCtxGetStreamPriorityRange"))?;
        Stream::with_priority(last)
    }

    fn with_priority(priority: i32) -> Result<Stream, DeviceError> {
        let kind = result::stream::StreamKind::NonBlocking;
        let handle = result::stream::create_with_priority(kind, priority).map_err(failed("cuStreamCreate"))?;
        Ok(Stream { handle })
    }

    /// What comes on this stream waits for what was recorded on another one.
    pub(super) fn wait(&self, event: &Event) -> Result<(), DeviceError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both live.
        unsafe { result::stream::wait_event(self.handle, event.0, flags) }.map_err(failed("cuStreamWaitEvent"))
    }

    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        // SAFETY: the stream lives.
        unsafe { result::stream::synchronize(self.handle) }.map_err(failed("the kernels"))
    }

    /// Copies to the GPU. The caller keeps `from` unchanged until the stream is synchronized, unless it is pageable
    /// memory, which the driver takes a copy of.
    pub(super) fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceError> {
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: callers pass addresses inside allocations of at least this size.
        unsafe { result::memcpy_htod_async(to, from, self.handle) }.map_err(failed("cuMemcpyHtoDAsync"))
    }

    /// Copies to the host; done when the stream is synchronized.
    pub(super) fn download(&self, to: &mut [u8], from: u64) -> Result<(), DeviceError> {
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: callers pass addresses inside allocations of at least this size and synchronize before reading.
        unsafe { result::memcpy_dtoh_async(to, from, self.handle) }.map_err(failed("cuMemcpyDtoHAsync"))
    }

    pub(super) fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: callers pass addresses inside allocations of at least this size.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.handle) }.map_err(failed("cuMemcpyDtoDAsync"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once.
        let _ = unsafe { result::stream::destroy(self.handle) };
    }
}

/// A point in a stream: for timing, and for another stream to wait for.
pub(super) struct Event(sys::CUevent);

impl Event {
    pub(super) fn new() -> Result<Event, DeviceError> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(failed("cuEventCreate"))?;
        Ok(Event(event))
    }

    pub(super) fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        // SAFETY: both live.
        unsafe { result::event::record(self.0, stream.handle) }.map_err(failed("cuEventRecord"))
    }

    /// Waits until it has happened; at once if it was never recorded.
    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        // SAFETY: it lives.
        unsafe { result::event::synchronize(self.0) }.map_err(failed("cuEventSynchronize"))
    }

    /// Microseconds since `start`; both have happened.
    pub(super) fn elapsed_us(&self, start: &Event) -> Result<f32, DeviceError> {
        // SAFETY: both live and were recorded.
        let elapsed = unsafe { result::event::elapsed(start.0, self.0) }.map_err(failed("cuEventElapsedTime"))?;
        Ok(elapsed * 1000.0)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}
