//! Models made of random numbers: plans and tensors in memory, to test and to measure devices without a checkpoint.

mod builder;
mod store;

pub use store::MemoryStore;

use crate::plan::{DType, Plan, WeightFormat};

/// Sizes of a synthetic model, named as in a checkpoint's configuration.
#[derive(Clone, Debug)]
pub struct Shape {
    /// One letter a layer: `M`, `-` or `*`.
    pub layer_pattern: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Mamba heads.
    pub mamba_heads: usize,
    /// Channels of a Mamba head.
    pub mamba_head_dim: usize,
    /// Groups that share B and C.
    pub groups: usize,
    /// Width of the scan state.
    pub state_size: usize,
    /// Taps of the convolution.
    pub conv_kernel: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Width of an attention head.
    pub head_dim: usize,
}

/// How a synthetic model is quantized and laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Format of all linears and of the embedding; activations are 8-bit unless it is a float format.
    pub format: WeightFormat,
    /// Formats of the first, second and third matrix of a linear that has several, in place of `format`.
    pub segments: Option<[WeightFormat; 3]>,
    /// Conv, scan and gated norm as one launch.
    pub fused_mixer: bool,
    /// Raw integer sums and a separate launch that dequantizes them, for the formats that have them.
    pub separate_dequantize: bool,
    /// Rotate the inputs of out_proj and down_proj in blocks of this size.
    pub hadamard_block: Option<usize>,
    /// Type of the key-value cache.
    pub kv_dtype: DType,
    /// Type of the scan state.
    pub ssm_dtype: DType,
}

impl Layout {
    /// The plainest layout of a format.
    pub fn of(format: WeightFormat) -> Layout {
        Layout {
            format,
            segments: None,
            fused_mixer: false,
            separate_dequantize: false,
            hadamard_block: None,
            kv_dtype: DType::F32,
            ssm_dtype: DType::F32,
        }
    }
}

impl Shape {
    /// A few thousand parameters, with every kind of layer and sizes that are not round.
    pub fn tiny() -> Shape {
        Shape {
            layer_pattern: "M-*M-".to_owned(),
            hidden_size: 48,
            vocab_size: 101,
            mamba_heads: 4,
            mamba_head_dim: 16,
            groups: 2,
            state_size: 24,
            conv_kernel: 4,
            intermediate_size: 80,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
        }
    }

    /// 44 million parameters: large enough to measure, small enough to build in a moment.
    pub fn mini() -> Shape {
        Shape {
            layer_pattern: "M-M-M*-M-M-M*-M-".to_owned(),
            hidden_size: 512,
            vocab_size: 8192,
            mamba_heads: 16,
            mamba_head_dim: 64,
            groups: 4,
            state_size: 128,
            conv_kernel: 4,
            intermediate_size: 2688,
            heads: 4,
            kv_heads: 1,
            head_dim: 128,
        }
    }

    /// Columns of the convolution.
    pub fn conv_channels(&self) -> usize {
        self.inner() + 2 * self.groups * self.state_size
    }

    /// Columns of the scan.
    pub fn inner(&self) -> usize {
        self.mamba_heads * self.mamba_head_dim
    }
}

/// A plan and its tensors. The same seed gives the same numbers; the same shape and seed give every format roundings of
/// the same weights.
pub fn model(shape: &Shape, layout: &Layout, seed: u64) -> (Plan, MemoryStore) {
    builder::build(shape, layout, seed)
}
