//! The buffers of a step.

use super::storage::Storage;
use crate::device::DeviceError;
use crate::plan::{BufferId, DType, Plan, Rows};
use bytemuck::Pod;

#[derive(Clone)]
struct Buffer {
    name: String,
    dtype: DType,
    cols: usize,
    rows: Rows,
    storage: Storage,
}

/// All buffers of a plan, with as many rows as the current step has.
#[derive(Clone)]
pub(super) struct Buffers {
    buffers: Vec<Buffer>,
    token_rows: usize,
    output_rows: usize,
}

impl Buffers {
    pub(super) fn new(plan: &Plan) -> Buffers {
        let buffer = |spec: &crate::plan::Buffer| Buffer {
            name: spec.name.clone(),
            dtype: spec.dtype,
            cols: spec.cols,
            rows: spec.rows,
            storage: Storage::default(),
        };
        Buffers { buffers: plan.buffers.iter().map(buffer).collect(), token_rows: 0, output_rows: 0 }
    }

    /// Makes room for a step.
    pub(super) fn resize(&mut self, token_rows: usize, output_rows: usize) -> Result<(), DeviceError> {
        for buffer in &mut self.buffers {
            let rows = match buffer.rows {
                Rows::Token => token_rows,
                Rows::Output => output_rows,
            };
            let bytes = rows * buffer.cols * buffer.dtype.bytes();
            buffer.storage.grow(bytes, &buffer.name)?;
        }
        (self.token_rows, self.output_rows) = (token_rows, output_rows);
        Ok(())
    }

    /// Memory of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.buffers.iter().map(|buffer| buffer.storage.bytes() as u64).sum()
    }

    pub(super) fn dtype(&self, id: BufferId) -> DType {
        self.buffers[id.0 as usize].dtype
    }

    pub(super) fn cols(&self, id: BufferId) -> usize {
        self.buffers[id.0 as usize].cols
    }

    /// Rows in use.
    pub(super) fn rows(&self, id: BufferId) -> usize {
        match self.buffers[id.0 as usize].rows {
            Rows::Token => self.token_rows,
            Rows::Output => self.output_rows,
        }
    }

    fn len(&self, id: BufferId) -> usize {
        self.rows(id) * self.cols(id)
    }

    /// The rows in use.
    pub(super) fn view<T: Pod>(&self, id: BufferId) -> &[T] {
        self.buffers[id.0 as usize].storage.view(self.len(id))
    }

    pub(super) fn floats(&self, id: BufferId) -> &[f32] {
        self.view(id)
    }

    /// The rows in use, as bytes.
    pub(super) fn raw(&self, id: BufferId) -> &[u8] {
        let bytes = self.len(id) * self.dtype(id).bytes();
        self.buffers[id.0 as usize].storage.view(bytes)
    }

    pub(super) fn raw_mut(&mut self, id: BufferId) -> &mut [u8] {
        let bytes = self.len(id) * self.dtype(id).bytes();
        self.buffers[id.0 as usize].storage.view_mut(bytes)
    }

    /// Calls `f` with the rows of `id` to write and all other buffers to read.
    pub(super) fn write<T: Pod, R>(&mut self, id: BufferId, f: impl FnOnce(&Buffers, &mut [T]) -> R) -> R {
        let len = self.len(id);
        let mut storage = self.take(id);
        let result = f(self, storage.view_mut(len));
        self.put(id, storage);
        result
    }

    /// Takes the memory of a buffer out, so that others can be read while it is written.
    pub(super) fn take(&mut self, id: BufferId) -> Storage {
        std::mem::take(&mut self.buffers[id.0 as usize].storage)
    }

    /// Puts it back.
    pub(super) fn put(&mut self, id: BufferId, storage: Storage) {
        self.buffers[id.0 as usize].storage = storage;
    }
}
