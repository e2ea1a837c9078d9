//! The arguments of kernels that make rows: embedding, norms, activations.

use super::Address;

device_structs! {
    /// `plan::Emit`.
    struct Emit {
        /// Result.
        out: Address = "void *out",
        /// Scale of every row.
        out_scale: Address = "float *out_scale",
        /// Columns.
        n: u32 = "unsigned int n",
        /// Columns of an 8-bit result in memory.
        n_padded: u32 = "unsigned int n_padded",
        /// 0 for no rotation.
        hadamard_block: u32 = "unsigned int hadamard_block",
        /// `EMIT_*`.
        format: u32 = "unsigned int format",
    }

    /// The sequences of a step.
    struct Batch {
        /// Address of the windows and scan states of every sequence.
        seq_base: Address = "const unsigned long long *seq_base",
        /// Address of the keys and values of every sequence.
        seq_cache: Address = "const unsigned long long *seq_cache",
        /// Tokens they have room for.
        seq_capacity: Address = "const unsigned int *seq_capacity",
        /// First row of every sequence, and the number of rows.
        seq_start: Address = "const unsigned int *seq_start",
        /// Tokens every sequence took before.
        seq_pos: Address = "const unsigned int *seq_pos",
        /// Sequence of every row.
        row_seq: Address = "const unsigned int *row_seq",
    }

    /// `Kernel::Embed`.
    struct EmbedParams {
        /// Token ids.
        tokens: Address = "const unsigned int *tokens",
        /// Table rows.
        table: Address = "const void *table",
        /// Row scales.
        scale: Address = "const float *scale",
        /// Group scales.
        group_scale: Address = "const void *group_scale",
        /// f32 rows.
        out: Address = "float *out",
        /// Columns.
        n: u32 = "unsigned int n",
        /// Bytes of a table row.
        row_bytes: u32 = "unsigned int row_bytes",
        /// `FORMAT_*`.
        format: u32 = "unsigned int format",
        /// Groups of a row.
        groups: u32 = "unsigned int groups",
        /// Columns of a group.
        group_size: u32 = "unsigned int group_size",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }

    /// `Kernel::SelectOutputs`.
    struct SelectParams {
        /// Token rows.
        x: Address = "const float *x",
        /// Output rows.
        out: Address = "float *out",
        /// Token row of every output row.
        out_rows: Address = "const unsigned int *out_rows",
        /// Columns.
        n: u32 = "unsigned int n",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }

    /// `Kernel::Add`.
    struct AddParams {
        /// Left.
        a: Address = "const float *a",
        /// Right.
        b: Address = "const float *b",
        /// Sum.
        out: Address = "float *out",
        /// Elements.
        count: u32 = "unsigned int count",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }

    /// Rows of logits, and the key of the likeliest token of each.
    struct ArgmaxParams {
        /// Logits.
        logits: Address = "const float *logits",
        /// One a row; 0 before.
        keys: Address = "unsigned long long *keys",
        /// Logits of a row.
        n: u32 = "unsigned int n",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }

    /// `Kernel::RmsNorm`.
    struct RmsNormParams {
        /// Input, and sum with `delta`.
        x: Address = "float *x",
        /// Added first, or 0.
        delta: Address = "const float *delta",
        /// Norm weight, or 0.
        weight: Address = "const float *weight",
        /// Result.
        emit: Emit = "Emit emit",
        /// Added to the mean square.
        eps: f32 = "float eps",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }

    /// `Kernel::Map`.
    struct MapParams {
        /// Input.
        x: Address = "const float *x",
        /// Result.
        emit: Emit = "Emit emit",
        /// 1 for relu squared.
        relu2: u32 = "unsigned int relu2",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }

    /// `Kernel::GatedRmsNorm`.
    struct GatedNormParams {
        /// Input.
        x: Address = "const float *x",
        /// Gate.
        z: Address = "const float *z",
        /// Norm weight, or 0.
        weight: Address = "const float *weight",
        /// Result.
        emit: Emit = "Emit emit",
        /// Columns normalized together.
        group_size: u32 = "unsigned int group_size",
        /// Added to the mean square.
        eps: f32 = "float eps",
    }

    /// `Kernel::Dequantize`.
    struct DequantizeParams {
        /// Raw sums.
        acc: Address = "const int *acc",
        /// Scale of every row.
        x_scale: Address = "const float *x_scale",
        /// Scale of every column.
        weight_scale: Address = "const float *weight_scale",
        /// Result.
        out: Address = "float *out",
        /// Elements.
        count: u32 = "unsigned int count",
        /// Columns.
        n: u32 = "unsigned int n",
        /// 1 for relu squared.
        relu2: u32 = "unsigned int relu2",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }
}
