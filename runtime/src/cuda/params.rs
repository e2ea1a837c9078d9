//! The arguments of the CUDA kernels, declared once.
//!
//! Each struct and constant below becomes a Rust item and a line of [`header`], which the kernels include. Layouts
//! agree because both sides use the C layout; the header asserts the sizes.

use bytemuck::{Pod, Zeroable};

/// An address in device memory; 0 is no tensor.
pub type Address = u64;

macro_rules! device_structs {
    ($( $(#[$doc:meta])* struct $name:ident { $( $(#[$field_doc:meta])* $field:ident : $ty:ty = $c:literal, )* } )*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
            pub struct $name { $( $(#[$field_doc])* pub $field: $ty, )* }
        )*

        fn struct_declarations() -> String {
            let mut text = String::new();
            $(
                text.push_str(concat!("struct ", stringify!($name), " {\n", $( "  ", $c, ";\n", )* "};\n"));
                text.push_str(&format!(
                    "static_assert(sizeof({0}) == {1}, \"{0} differs from the host's\");\n",
                    stringify!($name), size_of::<$name>(),
                ));
            )*
            text
        }
    };
}

macro_rules! device_constants {
    ($( $(#[$doc:meta])* $name:ident = $value:expr; )*) => {
        $( $(#[$doc])* pub const $name: u32 = $value; )*

        fn constant_declarations() -> String {
            let mut text = String::new();
            $( text.push_str(&format!("constexpr unsigned int {} = {};\n", stringify!($name), $name)); )*
            text
        }
    };
}

/// The text of `params.cuh`.
pub fn header() -> String {
    format!("#pragma once\n{}{}", constant_declarations(), struct_declarations())
}

device_constants! {
    /// `DType::F32`.
    DTYPE_F32 = 0;
    /// `DType::F16`.
    DTYPE_F16 = 1;
    /// `DType::Bf16`.
    DTYPE_BF16 = 2;
    /// `DType::I8`, with scales.
    DTYPE_I8 = 3;

    /// f32 weights.
    FORMAT_F32 = 0;
    /// f16 weights.
    FORMAT_F16 = 1;
    /// bf16 weights.
    FORMAT_BF16 = 2;
    /// `WeightFormat::W8`.
    FORMAT_W8 = 3;
    /// `WeightFormat::W4TwoLevel`.
    FORMAT_W4_TWO_LEVEL = 4;
    /// `WeightFormat::W4Group`.
    FORMAT_W4_GROUP = 5;

    /// f32 result.
    EMIT_FLOAT = 0;
    /// Signed 8-bit result.
    EMIT_I8 = 1;
    /// Unsigned 8-bit result.
    EMIT_U8 = 2;

    /// `Epilogue::Store`.
    EPILOGUE_STORE = 0;
    /// `Epilogue::Relu2`.
    EPILOGUE_RELU2 = 1;
    /// `Epilogue::Accumulate`.
    EPILOGUE_ACCUMULATE = 2;
    /// `Epilogue::Accumulator`.
    EPILOGUE_ACCUMULATOR = 3;

    /// Segments one launch of a linear takes.
    MAX_SEGMENTS = 4;
    /// Weight rows of a tile of the skinny linear.
    SKINNY_TILE_ROWS = 8;
    /// Warps of a block of the skinny linear.
    SKINNY_WARPS = 8;
    /// Stages of the ring of the linear by two warpgroups in turn.
    PINGPONG_STAGES = 6;
    /// Its blocks a cluster.
    PINGPONG_CLUSTER = 2;
    /// Pieces of weights in flight a lane.
    SKINNY_STAGES = 16;
    /// Warps of a block of the streaming linear that multiply; one more requests.
    STREAM_WARPS = 8;
    /// Stages of its ring.
    STREAM_STAGES = 5;
    /// Tiles whose scales are in its shared memory.
    STREAM_SCALE_STAGES = 8;
    /// Bytes of each of the rows of a stage.
    STREAM_ROW_BYTES = 2048;
    /// Rows of the streaming linear of many rows.
    MANY_TOKENS = 32;
    /// Stages of its ring.
    MANY_STAGES = 3;
    /// Weight rows of a tile of it.
    MANY_TILE_ROWS = 32;
    /// Bytes of each of the rows of a stage.
    MANY_ROW_BYTES = 512;
    /// Warps of a block of the linear with resident activations that multiply.
    RESIDENT_WARPS = 8;
    /// Weight rows of a tile of it.
    RESIDENT_TILE_ROWS = 16;
    /// Most rows of x it takes.
    RESIDENT_TOKENS = 16;
    /// Most stages of its ring.
    RESIDENT_MAX_STAGES = 12;
    /// Groups a weight row may have.
    STREAM_MAX_GROUPS = 176;
    /// Blocks of a cluster that make a gated row in front of a linear.
    GATED_CLUSTER = 4;
    /// Pieces of 256 columns of it that a warp keeps in registers.
    GATED_TURNS = 2;
    /// Shared memory of a block for it, besides the row.
    GATED_SHARED_BYTES = 144;
    /// Columns of a norm in front of a linear.
    NORM_MAX_COLUMNS = 5120;
    /// Pieces of 128 columns of a row that a block normalizes.
    NORM_MAX_PIECES = 512;
    /// Blocks of 256 columns that a warp of a rotating map keeps in registers.
    MAP_ROTATED_TURNS = 6;
    /// Groups of a gated norm.
    GATED_MAX_GROUPS = 256;
    /// Time steps a block of the convolution computes.
    CONV_CHUNK = 32;
    /// Longest convolution.
    CONV_MAX_TAPS = 8;
    /// Warps of a block of the scan.
    SCAN_WARPS = 4;
    /// Rows of a piece of a state of the scan of many sequences.
    SCAN_MANY_ROWS = 32;
    /// Pieces in its ring.
    SCAN_MANY_STAGES = 6;
    /// Warps of a block of the long scan.
    LONG_SCAN_WARPS = 8;
    /// Tokens a stage of the long scan holds.
    SCAN_STAGE_TOKENS = 16;
    /// Parts of the context that attention may be split into.
    ATTENTION_MAX_PARTS = 64;
    /// Warps of a block of the attention of one token a sequence.
    ATTENTION_DECODE_WARPS = 4;
    /// Stages of the ring of each of them.
    ATTENTION_DECODE_STAGES = 3;
    /// The same where a block takes a whole context.
    ATTENTION_WHOLE_STAGES = 2;
}

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

    /// `plan::Segment`.
    struct LinearSegment {
        /// Rows as stored.
        weight: Address = "const void *weight",
        /// Row scales, or 0.
        scale: Address = "const float *scale",
        /// Group scales, or 0.
        group_scale: Address = "const void *group_scale",
        /// Result.
        out: Address = "void *out",
        /// Rows of the weight.
        out_features: u32 = "unsigned int out_features",
        /// Bytes of a row.
        row_bytes: u32 = "unsigned int row_bytes",
        /// `FORMAT_*`.
        format: u32 = "unsigned int format",
        /// Groups of a row.
        groups: u32 = "unsigned int groups",
        /// Columns of a group.
        group_size: u32 = "unsigned int group_size",
        /// `EPILOGUE_*`.
        epilogue: u32 = "unsigned int epilogue",
        /// Number of tiles of the segments before.
        first_tile: u32 = "unsigned int first_tile",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }

    /// `Kernel::Linear`.
    struct LinearParams {
        /// Activations, 8-bit or f32.
        x: Address = "const void *x",
        /// Scale of every row, or 0.
        x_scale: Address = "const float *x_scale",
        /// Tiles drawn by the blocks of the streaming linear; 0 between launches.
        draws: Address = "unsigned int *draws",
        /// Columns of x.
        k: u32 = "unsigned int k",
        /// Columns of 8-bit x in memory.
        k_padded: u32 = "unsigned int k_padded",
        /// Rows of x.
        rows: u32 = "unsigned int rows",
        /// 1 for u8 activations.
        x_unsigned: u32 = "unsigned int x_unsigned",
        /// Segments in use.
        segment_count: u32 = "unsigned int segment_count",
        /// Tiles of all segments.
        tiles: u32 = "unsigned int tiles",
        /// Shared memory for the group scales of a tile of the streaming linear.
        scale_bytes: u32 = "unsigned int scale_bytes",
        /// Unused.
        padding: u32 = "unsigned int padding",
        /// The weights.
        segments: [LinearSegment; 4] = "LinearSegment segments[4]",
    }

    /// How the copy engine finds tiles of a matrix.
    struct TensorMap {
        /// As the driver encoded it.
        opaque: [u64; 16] = "alignas(64) unsigned long long opaque[16]",
    }

    /// `Kernel::Linear` by warpgroup instructions: all segments W8.
    struct WarpgroupParams {
        /// Tiles of x.
        x: TensorMap = "TensorMap x",
        /// Tiles of the weights.
        weights: [TensorMap; 4] = "TensorMap weights[4]",
        /// The linear; its tiles are those of the kernel.
        linear: LinearParams = "LinearParams linear",
        /// Unused.
        padding: [u32; 2] = "unsigned int padding[2]",
    }

    /// `Kernel::Linear` with resident activations: all segments W8 or W4 two-level.
    struct ResidentParams {
        /// Boxes of x.
        x: TensorMap = "TensorMap x",
        /// Boxes of the weights.
        weights: [TensorMap; 4] = "TensorMap weights[4]",
        /// The linear; tiles are of `RESIDENT_TILE_ROWS`.
        linear: LinearParams = "LinearParams linear",
        /// Boxes of x.
        x_boxes: u32 = "unsigned int x_boxes",
        /// Stages of the ring.
        stages: u32 = "unsigned int stages",
        /// Room for the group scales of a tile.
        scale_bytes: u32 = "unsigned int scale_bytes",
        /// Unused.
        padding: [u32; 15] = "unsigned int padding[15]",
    }

    /// W4 two-level weights to W8.
    struct ExpandParams {
        /// Rows as stored.
        weight: Address = "const void *weight",
        /// Group scales.
        group_scale: Address = "const void *group_scale",
        /// Rows of W8.
        out: Address = "void *out",
        /// Rows.
        rows: u32 = "unsigned int rows",
        /// Bytes of a stored row.
        row_bytes: u32 = "unsigned int row_bytes",
        /// Groups of a row.
        groups: u32 = "unsigned int groups",
        /// Columns of a group.
        group_size: u32 = "unsigned int group_size",
    }

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
        /// Unused.
        padding: u32 = "unsigned int padding",
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
