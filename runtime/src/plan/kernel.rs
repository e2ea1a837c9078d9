//! What each kernel computes. The CPU reference and the CUDA kernel of a variant both implement its doc comment.
//!
//! Notation: `t` a row, `T` the number of rows of the step, `[T, n]` a row-major matrix. All float arithmetic is f32.
//! Integer arithmetic is exact, so both devices agree on it to the bit.

use super::{BufferId, DType, StateId};
use serde::{Deserialize, Serialize};

/// Elements along K are padded with zeros to a multiple of this in stored 4- and 8-bit weights, so that every row
/// starts aligned and a 16-byte load never straddles two rows.
pub const K_ALIGN: usize = 32;

/// One kernel and its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the formula at each variant defines its fields")]
pub enum Kernel {
    /// `out[t] = table[token[t]]`, dequantized to f32.
    Embed { table: Embedding, out: BufferId },

    /// `out[t] = x[t]` for the rows whose logits were asked for; `x` has token rows, `out` output rows.
    SelectOutputs { x: BufferId, out: BufferId },

    /// `out = a + b`. `out` may be `a`.
    Add { a: BufferId, b: BufferId, out: BufferId },

    /// RMSNorm (Zhang and Sennrich 2019): `y = x / sqrt(mean(x^2) + eps) * weight`, then [`Emit`].
    ///
    /// With `delta`: `x += delta` first, and the sum is written back to `x` (residual add fused into the norm).
    RmsNorm { x: BufferId, delta: Option<BufferId>, weight: Option<String>, eps: f32, emit: Emit },

    /// `y = relu(x)^2` if `relu2`, else `y = x`; then [`Emit`]. Stand-alone activation, rotation and quantization.
    Map { x: BufferId, relu2: bool, emit: Emit },

    /// One input, one or more weights: `out_s = epilogue_s(x @ weight_s^T)`. Segments share one launch because they
    /// share the input (z, xBC and dt of in_proj; q, k and v).
    Linear { x: Activation, in_features: usize, segments: Vec<Segment> },

    /// `out[t, n] = acc[t, n] as f32 * (x_scale[t] * weight_scale[n])`, then relu2 if asked. `acc` is i32.
    Dequantize { acc: BufferId, x_scale: BufferId, weight_scale: String, relu2: bool, out: BufferId },

    /// Causal depthwise convolution over time, then SiLU:
    /// `out[t, c] = silu(bias[c] + sum_j weight[c, j] * x[t - (k-1) + j, c])`; inputs before the step come from `state`.
    Conv1d { x: BufferId, weights: ConvWeights, state: StateId, out: BufferId },

    /// The Mamba-2 recurrence (Dao and Gu 2024), see [`SsmShape`]. `xbc` is the output of [`Kernel::Conv1d`]. The state is f32
    /// from the first token of the step to the last, and then kept as [`super::StateKind`] says.
    SsmScan { xbc: BufferId, dt: BufferId, weights: SsmWeights, shape: SsmShape, state: StateId, out: BufferId },

    /// `y = x * silu(z)`, RMS-normalized in groups of `group_size` columns, times `weight`; then [`Emit`].
    GatedRmsNorm { x: BufferId, z: BufferId, weight: Option<String>, group_size: usize, eps: f32, emit: Emit },

    /// [`Kernel::Conv1d`], [`Kernel::SsmScan`] and [`Kernel::GatedRmsNorm`] in one launch.
    Mixer {
        /// f32 `[T, heads * head_dim]`, the gate.
        z: BufferId,
        /// f32 `[T, conv channels]`, before the convolution.
        xbc: BufferId,
        /// f32 `[T, heads]`.
        dt: BufferId,
        conv: ConvWeights,
        ssm: SsmWeights,
        shape: SsmShape,
        conv_state: StateId,
        ssm_state: StateId,
        norm_weight: Option<String>,
        group_size: usize,
        eps: f32,
        emit: Emit,
    },

    /// Appends this step's k and v to the cache, rounded as [`super::StateKind`] says, then grouped-query causal attention
    /// without position embedding over what the cache holds:
    /// `y[t, h] = softmax(q[t, h] . K[0..=pos(t), h / (heads/kv_heads)] * scale) @ V`; then [`Emit`].
    Attention {
        q: BufferId,
        k: BufferId,
        v: BufferId,
        state: StateId,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        scale: f32,
        emit: Emit,
    },
}

/// How a float result `y` leaves a kernel: an optional online rotation, then the format the consumer wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Emit {
    /// Multiply each consecutive block of this many columns (a power of two that divides the width) by the
    /// Sylvester-Hadamard matrix over `sqrt(block)`.
    pub hadamard_block: Option<usize>,
    /// Where the result goes, and in which format.
    pub to: Activation,
}

/// An activation in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum Activation {
    /// f32 `[T, n]`.
    Float {
        /// The values.
        data: BufferId,
    },
    /// 8-bit `[T, n padded to a multiple of K_ALIGN with zeros]` and one f32 scale a row:
    /// - i8 buffer: `scale = absmax / 127`, `q = round_half_even(y * (127 / absmax))` clamped to ±127;
    /// - u8 buffer (y >= 0): `scale = max / 255`, `q = round_half_even(y * (255 / max))` clamped to 0..=255.
    ///
    /// A row of zeros has scale 0 and q 0. `127 / absmax` is computed once a row in f32, then multiplied.
    Quantized {
        /// i8 or u8.
        data: BufferId,
        /// f32 `[T, 1]`.
        scale: BufferId,
    },
}

/// One weight of a [`Kernel::Linear`].
///
/// Stored tensors are `{weight}.weight` (+ `{weight}.scale`, `{weight}.group_scale` as the format says).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Base name of the stored tensors, for example `layers.0.mixer.in_proj.z`.
    pub weight: String,
    /// How it is stored.
    pub format: WeightFormat,
    /// Rows of the weight.
    pub out_features: usize,
    /// What happens to the sum.
    pub epilogue: Epilogue,
    /// f32 `[T, out_features]`; i32 for [`Epilogue::Accumulator`].
    pub out: BufferId,
}

/// How a weight `[n, k]` is stored. `kp` is k rounded up to [`K_ALIGN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WeightFormat {
    /// `.weight` `[n, k]` as in the checkpoint; x is f32.
    Float {
        /// f32, f16 or bf16.
        dtype: DType,
    },
    /// `.weight` i8 `[n, kp]`, `.scale` f32 `[n]`. `y = acc as f32 * (x_scale * scale[n])`.
    W8,
    /// `.weight` u8 `[n, kp / 2]`: in each chunk of 32 along k, byte j holds k = j in its low and k = 16 + j in its
    /// high nibble, stored as q + 8 with q in -7..=7. `.group_scale` u8 `[n, ceil(k / group_size)]` holds s in 1..=17,
    /// `.scale` f32 `[n]`. `acc = sum q * s * x` exactly in i32, `y = acc as f32 * (x_scale * scale[n])`.
    W4TwoLevel {
        /// Elements along k that share an integer scale; a multiple of 32.
        group_size: usize,
    },
    /// Nibbles as [`WeightFormat::W4TwoLevel`]; `.group_scale` f16 `[n, ceil(k / group_size)]`.
    /// `y = (sum over groups, first to last, of acc_g as f32 * group_scale[n, g]) * x_scale`.
    W4Group {
        /// Elements along k that share a scale; a multiple of 32.
        group_size: usize,
    },
}

/// What happens to a dot product before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Epilogue {
    /// Store y.
    Store,
    /// Store `relu(y)^2`.
    Relu2,
    /// `out += y`: the residual add.
    Accumulate,
    /// Store the raw i32 sum (W8 and W4TwoLevel only); a [`Kernel::Dequantize`] follows.
    Accumulator,
}

/// A token embedding table `[vocab_size, hidden_size]`; rows are stored like the rows of a linear weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// Base name of the stored tensors.
    pub weight: String,
    /// How they are stored. `y = q * s * scale[row]` for the two-level format, and so on.
    pub format: WeightFormat,
    /// Rows.
    pub vocab_size: usize,
    /// Columns.
    pub hidden_size: usize,
}

/// Tensors of a causal convolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvWeights {
    /// f32 `[channels, kernel]`.
    pub weight: String,
    /// f32 `[channels]`.
    pub bias: Option<String>,
    /// Number of channels.
    pub channels: usize,
    /// Taps.
    pub kernel: usize,
}

/// Tensors of a selective scan, f32 `[heads]` each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SsmWeights {
    /// `A = -exp(A_log)`.
    pub a_log: String,
    /// The skip weight.
    pub d: String,
    /// Added to dt before softplus.
    pub dt_bias: String,
}

/// Sizes of a selective scan.
///
/// A row of `xbc` is `[x: heads * head_dim | B: groups * state_size | C: groups * state_size]`; head h uses group
/// `h / (heads / groups)`. Per token, head h and p < head_dim:
///
/// ```text
/// dt      = clamp(softplus(dt_raw[h] + dt_bias[h]), dt_min, dt_max)
/// S[p, n] = S[p, n] * exp(dt * A[h]) + dt * x[h, p] * B[n]
/// y[h, p] = sum_n S[p, n] * C[n] + D[h] * x[h, p]
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SsmShape {
    /// Mamba heads.
    pub heads: usize,
    /// Channels a head.
    pub head_dim: usize,
    /// Groups that share B and C.
    pub groups: usize,
    /// Width of the state.
    pub state_size: usize,
    /// Lower clamp of dt.
    pub dt_min: f32,
    /// Upper clamp of dt; `None` is infinity (JSON has none).
    pub dt_max: Option<f32>,
}
