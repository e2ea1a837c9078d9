//! Memory of the device: aligned, typed on access.

use crate::device::DeviceError;
use bytemuck::{Pod, Zeroable};

/// Keeps every buffer on a cache line of its own.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes that are viewed as elements of one type or another.
#[derive(Clone, Default)]
pub(super) struct Storage {
    lines: Vec<Line>,
}

impl Storage {
    /// Makes room for `bytes`; new bytes are zero, old ones are kept.
    pub(super) fn grow(&mut self, bytes: usize, what: &str) -> Result<(), DeviceError> {
        let lines = bytes.div_ceil(size_of::<Line>());
        let Some(more) = lines.checked_sub(self.lines.len()) else {
            return Ok(());
        };
        if self.lines.try_reserve_exact(more).is_err() {
            return Err(DeviceError::OutOfMemory { what: what.to_owned(), bytes: bytes as u64 });
        }
        self.lines.resize(lines, Line::zeroed());
        Ok(())
    }

    /// Bytes there is room for.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    /// The first `len` elements.
    pub(super) fn view<T: Pod>(&self, len: usize) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..len]
    }

    /// The first `len` elements.
    pub(super) fn view_mut<T: Pod>(&mut self, len: usize) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..len]
    }

    /// The first `len` elements, after making room for them.
    ///
    /// For scratch, whose size the step limit bounds; running out of memory here aborts like any allocation.
    pub(super) fn scratch<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        if lines > self.lines.len() {
            self.lines.resize(lines, Line::zeroed());
        }
        self.view_mut(len)
    }
}

thread_local! {
    static ROW: std::cell::Cell<Storage> = const { std::cell::Cell::new(Storage { lines: Vec::new() }) };
}

/// Calls `f` with `len` elements of scratch that belong to this thread. Their content is arbitrary.
///
/// May be nested; the inner call then allocates, so kernels avoid that.
pub(super) fn with_scratch<T: Pod, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let mut storage = ROW.take();
    let result = f(storage.scratch(len));
    ROW.set(storage);
    result
}
