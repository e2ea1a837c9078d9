//! The arguments of kernels along a sequence, and of linears with what comes before them.

use super::{Address, Batch, Emit, GatedNormParams, LinearParams, RmsNormParams};

device_structs! {
    /// `Kernel::Conv1d`.
    struct Conv1dParams {
        /// Input rows.
        x: Address = "const float *x",
        /// Taps of every channel.
        weight: Address = "const float *weight",
        /// Bias of every channel, or 0.
        bias: Address = "const float *bias",
        /// Result rows.
        out: Address = "float *out",
        /// The sequences.
        batch: Batch = "Batch batch",
        /// Bytes from a sequence's base to its window.
        state_offset: u64 = "unsigned long long state_offset",
        /// Channels.
        channels: u32 = "unsigned int channels",
        /// Taps.
        taps: u32 = "unsigned int taps",
    }

    /// `Kernel::SsmScan`.
    struct SsmScanParams {
        /// Convolved x, B and C.
        xbc: Address = "const float *xbc",
        /// Raw dt.
        dt: Address = "const float *dt",
        /// log of -A.
        a_log: Address = "const float *a_log",
        /// Skip weight.
        d: Address = "const float *d",
        /// Added to dt.
        dt_bias: Address = "const float *dt_bias",
        /// Result rows.
        out: Address = "float *out",
        /// What the first kernel of a scan in chunks leaves to the second.
        prepared: Address = "unsigned char *prepared",
        /// The sequences.
        batch: Batch = "Batch batch",
        /// Bytes from a sequence's base to its state.
        state_offset: u64 = "unsigned long long state_offset",
        /// Heads.
        heads: u32 = "unsigned int heads",
        /// Channels a head.
        head_dim: u32 = "unsigned int head_dim",
        /// Groups that share B and C.
        groups: u32 = "unsigned int groups",
        /// Width of the state.
        state_size: u32 = "unsigned int state_size",
        /// Lower clamp of dt.
        dt_min: f32 = "float dt_min",
        /// Upper clamp of dt.
        dt_max: f32 = "float dt_max",
        /// `DTYPE_*` that the state is kept in.
        state_dtype: u32 = "unsigned int state_dtype",
        /// Id of the state in the plan: random bits depend on it.
        state_seed: u32 = "unsigned int state_seed",
        /// Sequences of the step.
        sequences: u32 = "unsigned int sequences",
        /// Tokens of the step.
        rows: u32 = "unsigned int rows",
    }

    /// `Kernel::RmsNorm` and the `Kernel::Linear` that takes its result.
    struct NormLinearParams {
        /// The norm.
        norm: RmsNormParams = "RmsNormParams norm",
        /// The linear.
        linear: LinearParams = "LinearParams linear",
    }

    /// The convolution and the scan of `Kernel::Mixer`, one token a sequence.
    struct ScanStepParams {
        /// The convolution.
        conv: Conv1dParams = "Conv1dParams conv",
        /// The scan.
        scan: SsmScanParams = "SsmScanParams scan",
    }

    /// The gated norm of `Kernel::Mixer`, one token a sequence, and the new windows of its convolution.
    struct GatedStepParams {
        /// The norm.
        norm: GatedNormParams = "GatedNormParams norm",
        /// The convolution.
        conv: Conv1dParams = "Conv1dParams conv",
    }

    /// The end of `Kernel::Mixer` and the `Kernel::Linear` that takes its result.
    struct GatedLinearParams {
        /// Norm and windows.
        gated: GatedStepParams = "GatedStepParams gated",
        /// The linear.
        linear: LinearParams = "LinearParams linear",
    }

    /// `Kernel::Attention`.
    struct AttentionParams {
        /// Queries.
        q: Address = "const float *q",
        /// Keys of this step.
        k: Address = "const float *k",
        /// Values of this step.
        v: Address = "const float *v",
        /// Weighted values, `[rows, heads, parts, head_dim]`.
        part_acc: Address = "float *part_acc",
        /// Highest score, `[rows, heads, parts]`.
        part_top: Address = "float *part_top",
        /// Sum of weights, `[rows, heads, parts]`.
        part_sum: Address = "float *part_sum",
        /// The sequences.
        batch: Batch = "Batch batch",
        /// Result.
        emit: Emit = "Emit emit",
        /// Bytes of one token in the caches of the layers before.
        cache_offset: u64 = "unsigned long long cache_offset",
        /// Query heads.
        heads: u32 = "unsigned int heads",
        /// Key and value heads.
        kv_heads: u32 = "unsigned int kv_heads",
        /// Columns a head.
        head_dim: u32 = "unsigned int head_dim",
        /// Parts of the context.
        parts: u32 = "unsigned int parts",
        /// 1 where every sequence has one row, which appends itself.
        append: u32 = "unsigned int append",
        /// Factor of the scores.
        scale: f32 = "float scale",
    }
}
