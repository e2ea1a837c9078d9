//! THE op table. A new op needs a sentence on why no composition of existing ops does.

use super::declare::ops;
use super::kinds;

ops! {
    /// A tensor of the checkpoint, by name. Nothing is read until code generation evaluates the expression it is part of.
    weight Weight {
        operands {}
        attributes { tensor: one string }
        results { value: one Any }
    }
    /// Rows `start..start + count` of a weight: one projection of a fused tensor.
    slice_rows SliceRows {
        operands { base: one Weight }
        attributes { start: one int, count: one int }
        results { value: one Weight }
    }
    /// Column j of a weight (or element j of a vector) times `by[j]`, or divided by it.
    scale_columns ScaleColumns {
        operands { base: one Any, by: one Vector }
        attributes { inverse: one boolean }
        results { value: one Any }
    }
    /// Row i of a weight times `by[i]`, or divided by it.
    scale_rows ScaleRows {
        operands { base: one Weight, by: one Vector }
        attributes { inverse: one boolean }
        results { value: one Weight }
    }
    /// The largest absolute value in each column of a weight or, where that is larger, in `other`. No other op depends on
    /// how large a weight's values are.
    column_absmax ColumnAbsmax {
        operands { base: one Weight, other: opt Vector }
        attributes {}
        results { value: one Vector }
    }
    /// How far each channel of an activation is scaled down, and the column of the weights that read it up, so that both
    /// lose equally to rounding: `absmax^alpha / columns^(1 - alpha)`, over the geometric mean, to the `power`. Channels
    /// where either is 0 keep 1. Runs of `share` blocks of `block` channels have equal factors (the query heads that read
    /// one value head); a result shorter by `share` has each block once. No other op computes powers and means.
    smooth_factors SmoothFactors {
        operands { absmax: one Vector, columns: one Vector }
        attributes { alpha: one float, power: one float, share: one int, block: one int }
        results { value: one Vector }
    }
    /// A weight whose input (`side = "in"`) arrives in, or whose output (`side = "out"`) leaves in, a rotated basis:
    /// blocks of `size` columns (rows) times the orthogonal matrix, or its transpose.
    rotate_weight RotateWeight {
        operands { base: one Weight }
        attributes { side: one string, basis: one string, kind: one string, size: one int, seed: one int, transpose: one boolean }
        results { value: one Weight }
    }
    /// A weight rounded to the storage and granularity of the result type. `rounding` is `rtn`, `rtn-absmax` or `gptq`.
    quantize_weight QuantizeWeight {
        operands { base: one Weight }
        attributes { rounding: one string }
        results { value: one Weight }
    }

    /// The current contents of a state at the start of the step.
    read_state ReadState {
        operands {}
        attributes { name: one string }
        results { value: one State }
    }
    /// The contents of a state after the step.
    update_state UpdateState {
        operands { value: one State }
        attributes { name: one string }
        results {}
    }

    /// Rows of the embedding table, one per token. `precision` is what assign-precision decided.
    embed Embed {
        operands { tokens: one Tokens, table: one Weight }
        attributes { name: one string, precision: opt string }
        results { y: one Act }
    }
    /// Keeps the rows whose logits were asked for.
    select_outputs SelectOutputs {
        operands { x: one Act }
        attributes {}
        results { y: one Act }
    }
    /// `x W^T`. Quantized operands give i32 accumulators, or f32 when dequantization is fused (the result type says).
    /// `epilogue` is `relu2`; with `residual` the result is added to it. `precision` is what assign-precision decided.
    linear Linear {
        operands { x: one Act, weight: one Weight, residual: opt Act }
        attributes { name: one string, precision: opt string, epilogue: opt string }
        results { y: one Act }
    }
    /// Elementwise sum: the residual add.
    add Add {
        operands { a: one Act, b: one Act }
        attributes {}
        results { y: one Act }
    }
    /// `max(x, 0)^2`.
    relu2 Relu2 {
        operands { x: one Act }
        attributes {}
        results { y: one Act }
    }
    /// `x / sqrt(mean(x^2) + eps) * weight`. With `delta` the norm is of `sum = x + delta`, also a result: one pass over
    /// the residual stream instead of two, which no composition of ops can express. A result in a rotated basis or
    /// in 8 bits is rotated online by blocks of `hadamard_block` and quantized in the same launch.
    rms_norm RmsNorm {
        operands { x: one Act, delta: opt Act, weight: opt Vector }
        attributes { eps: one float, hadamard_block: opt int }
        results { y: one Act, sum: opt Act }
    }
    /// `x * silu(z)`, RMS-normalized in groups of `group_size` columns, times `weight`. Result as of `rms_norm`.
    gated_rms_norm GatedRmsNorm {
        operands { x: one Act, z: one Act, weight: opt Vector }
        attributes { eps: one float, group_size: one int, hadamard_block: opt int }
        results { y: one Act }
    }
    /// Causal depthwise convolution over time, then SiLU. `name` is the layer's mixer.
    conv1d Conv1d {
        operands { x: one Act, weight: one Weight, bias: opt Vector, state: one State }
        attributes { name: one string }
        results { y: one Act, new_state: one State }
    }
    /// The Mamba-2 recurrence over `xbc = [x | B | C]`. An infinite `dt_max` is absent. `name` is the layer's mixer.
    ssm_scan SsmScan {
        operands { xbc: one Act, dt: one Act, a_log: one Vector, d: one Vector, dt_bias: one Vector, state: one State }
        attributes {
            name: one string, heads: one int, head_dim: one int, groups: one int, state_size: one int,
            dt_min: one float, dt_max: opt float,
        }
        results { y: one Act, new_state: one State }
    }
    /// Conv1d, ssm_scan and gated_rms_norm in one launch: their intermediates never leave the chip, which separate ops
    /// cannot express. Result as of `rms_norm`.
    mixer Mixer {
        operands {
            z: one Act, xbc: one Act, dt: one Act, conv_weight: one Weight, conv_bias: opt Vector,
            a_log: one Vector, d: one Vector, dt_bias: one Vector, norm_weight: opt Vector,
            conv_state: one State, ssm_state: one State,
        }
        attributes {
            name: one string, heads: one int, head_dim: one int, groups: one int, state_size: one int,
            dt_min: one float, dt_max: opt float, eps: one float, group_size: one int, hadamard_block: opt int,
        }
        results { y: one Act, new_conv_state: one State, new_ssm_state: one State }
    }
    /// Appends k and v to the cache, then grouped-query causal attention without position embedding.
    /// Result as of `rms_norm`.
    attention Attention {
        operands { q: one Act, k: one Act, v: one Act, state: one State }
        attributes {
            name: one string, heads: one int, kv_heads: one int, head_dim: one int, scale: one float,
            hadamard_block: opt int,
        }
        results { y: one Act, new_state: one State }
    }

    /// Blocks of `size` columns times the orthogonal matrix named by `basis`, or its transpose (back to the plain basis).
    rotate Rotate {
        operands { x: one Act }
        attributes { basis: one string, kind: one string, size: one int, seed: one int, transpose: one boolean }
        results { y: one Act }
    }
    /// f32 to 8 bits with a scale per token; unsigned when the result type says `ui8`.
    quantize Quantize {
        operands { x: one Act }
        attributes {}
        results { y: one Act }
    }
    /// Accumulators, or 8-bit values, to f32.
    dequantize Dequantize {
        operands { x: one Act }
        attributes {}
        results { y: one Act }
    }
    /// Between the activation formats of two arithmetics, `from` and `to` (for example `w4a8` and `w8a8`), where a value
    /// leaves a block of the one and enters a block of the other. Not a quantize of a dequantize: it says that both
    /// sides hold the same value, which lets fuse-conversions remove it.
    convert Convert {
        operands { x: one Act }
        attributes { from: one string, to: one string }
        results { y: one Act }
    }
    /// What one launch does with its input other than norm, mixer, attention and linear: relu2, online rotation,
    /// quantization, in this order, each if asked for; separate ops would each read and write the activation.
    map Map {
        operands { x: one Act }
        attributes { relu2: one boolean, hadamard_block: opt int }
        results { y: one Act }
    }

    /// Memory of one step.
    allocate Allocate {
        operands {}
        attributes { name: one string }
        results { value: one Buffer }
    }
    /// One kernel launch of a planned module. `roles` names each operand; the other attributes are the kernel's
    /// arguments, in JSON. Not a composition of ops: it is what every op becomes.
    launch Launch {
        operands { arguments: many Any }
        attributes {
            kernel: one string, roles: one strings, parameters: one string,
            fixed_bytes: one int, row_bytes: one int, sequence_bytes: one int, row_ops: one int,
        }
        results {}
    }
}
