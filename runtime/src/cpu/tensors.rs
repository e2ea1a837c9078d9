//! Stored tensors as typed slices.

use crate::plan::PlanError;
use crate::tensors::{TensorStore, TensorView};
use bytemuck::Pod;
use std::borrow::Cow;

/// Finds the tensors of a launch.
#[derive(Clone, Copy)]
pub(super) struct Tensors<'a> {
    pub(super) store: &'a dyn TensorStore,
    /// The launch, for messages.
    pub(super) origin: &'a str,
}

impl<'a> Tensors<'a> {
    fn view(&self, name: &str) -> Result<TensorView<'a>, PlanError> {
        self.store
            .tensor(name)
            .ok_or_else(|| PlanError::MissingTensor { at: self.origin.to_owned(), tensor: name.to_owned() })
    }

    /// The elements of a tensor: borrowed where the file has them aligned, copied otherwise.
    pub(super) fn get<T: Pod>(&self, name: &str) -> Result<Cow<'a, [T]>, PlanError> {
        let bytes = self.view(name)?.bytes;
        Ok(match bytemuck::try_cast_slice(bytes) {
            Ok(elements) => Cow::Borrowed(elements),
            Err(_) => Cow::Owned(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()),
        })
    }

    /// A tensor that may be absent from the kernel's arguments.
    pub(super) fn get_optional<T: Pod>(&self, name: Option<&String>) -> Result<Option<Cow<'a, [T]>>, PlanError> {
        name.map(|name| self.get(name)).transpose()
    }
}
