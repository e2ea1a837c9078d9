//! Where kernels find their tensors.

use crate::plan::DType;

/// A stored tensor: little-endian, row-major.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: &'a [usize],
    /// `shape.product() * dtype.bytes()` bytes.
    pub bytes: &'a [u8],
}

/// A set of named tensors; the artifact is one, tests make others in memory.
pub trait TensorStore: Sync {
    /// The tensor of this name.
    fn tensor(&self, name: &str) -> Option<TensorView<'_>>;
}
