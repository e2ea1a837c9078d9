//! The entry points of the compiled kernels: what the launcher and the kernel table of the compiler agree on.

mod sizes;

pub use sizes::*;

use super::params::{
    ATTENTION_DECODE_WARPS, GATED_ROWS_GROUPS, GATED_ROWS_WARPS, LONG_SCAN_WARPS, MAP_PART_WARPS, MAP_ROW_WARPS,
    MAP_SHORT_WARPS, NORM_PART_WARPS, NORM_ROW_WARPS, PAIR_BOXES, PAIR_MAX_ROW_GROUPS, SCAN_CHUNK_WARPS,
    SCAN_MANY_WARPS, SCAN_MANY_WARPS_16, SCAN_WARPS, SKINNY_WARPS, STREAM_WARPS,
};

/// A `__global__` function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, for people and tables.
    pub name: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Blocks that must fit one SM by registers.
    pub blocks_per_sm: u32,
    /// Whether it runs with all of an SM's memory that can be shared, as its neighbors in a decode step do: a kernel that
    /// wants another part of it waits until the SM is empty. Kernels that have many loads in flight in the L1 cache lose
    /// bandwidth by it.
    pub all_shared: bool,
}

impl Entry {
    /// Its symbol in the compiled module.
    pub fn symbol(&self) -> String {
        format!("nemo_{}", self.name)
    }
}

macro_rules! all_shared {
    () => {
        false
    };
    (all_shared) => {
        true
    };
}

macro_rules! entries {
    ($( $(#[$doc:meta])* $id:ident = $name:literal, $threads:expr, $blocks:expr $(, $all_shared:ident)?; )*) => {
        $( $(#[$doc])* pub const $id: Entry = Entry {
            name: $name,
            threads: $threads,
            blocks_per_sm: $blocks,
            all_shared: all_shared!($($all_shared)?),
        }; )*

        /// Every entry point.
        pub const ALL: &[Entry] = &[$($id),*];
    };
}

const SKINNY_THREADS: u32 = SKINNY_WARPS * 32;
const STREAM_THREADS: u32 = (STREAM_WARPS + 1) * 32;
const MANY_THREADS: u32 = (STREAM_WARPS + 2) * 32;
const PAIR_THREADS: u32 = (PAIR_BOXES * PAIR_MAX_ROW_GROUPS + 1 + PAIR_MAX_ROW_GROUPS) * 32;
const SCAN_THREADS: u32 = SCAN_WARPS * 32;
const LONG_SCAN_THREADS: u32 = LONG_SCAN_WARPS * 32;
const SCAN_CHUNK_THREADS: u32 = SCAN_CHUNK_WARPS * 32;
const DECODE_THREADS: u32 = ATTENTION_DECODE_WARPS * 32;

entries! {
    /// Token embedding.
    EMBED = "embed", 256, 1, all_shared;
    /// Rows whose logits were asked for.
    SELECT_OUTPUTS = "select_outputs", 256, 1, all_shared;
    /// Elementwise sum.
    ADD = "add", 256, 1;
    /// Reads memory, to measure bandwidth; `count` is in KiB.
    READ_MEMORY = "read_memory", 512, 2;
    /// Multiplies registers, to measure the INT8 peak; `count` is in rounds of eight instructions a warp.
    INT8_PEAK = "int8_peak", 256, 2;
    /// The likeliest token of each row of logits.
    ARGMAX = "argmax", 1024, 1;
    /// RMSNorm and emit.
    RMS_NORM = "rms_norm", 512, 2, all_shared;
    /// RMSNorm and quantization of a part of a row in registers.
    RMS_NORM_PART = "rms_norm_part", NORM_PART_WARPS * 32, 8, all_shared;
    /// RMSNorm and quantization of many rows in registers.
    RMS_NORM_ROWS = "rms_norm_rows", NORM_ROW_WARPS * 32, 8;
    /// The same of longer rows.
    RMS_NORM_ROWS_WIDE = "rms_norm_rows_wide", 2 * NORM_ROW_WARPS * 32, 4;
    /// Activation and emit.
    MAP = "map", 512, 1, all_shared;
    /// Activation, rotation in blocks of 256 columns, and quantization.
    MAP_ROTATED = "map_rotated", MAP_ROW_WARPS * 32, 2, all_shared;
    /// Activation and quantization of a row in registers.
    MAP_PLAIN = "map_plain", MAP_ROW_WARPS * 32, 2, all_shared;
    /// As `MAP_ROTATED`, of a part of a row.
    MAP_PART_ROTATED = "map_part_rotated", MAP_PART_WARPS * 32, 5, all_shared;
    /// As `MAP_PLAIN`, of a part of a row.
    MAP_PART_PLAIN = "map_part_plain", MAP_PART_WARPS * 32, 5, all_shared;
    /// As `MAP_ROTATED`, of many short rows.
    MAP_SHORT_ROTATED = "map_short_rotated", MAP_SHORT_WARPS * 32, 8;
    /// As `MAP_PLAIN`, of many short rows.
    MAP_SHORT_PLAIN = "map_short_plain", MAP_SHORT_WARPS * 32, 8;
    /// Gated group RMSNorm and emit.
    GATED_RMS_NORM = "gated_rms_norm", 512, 1, all_shared;
    /// Gated RMSNorm of groups of 1024 columns and emit, many rows.
    GATED_RMS_NORM_1024 = "gated_rms_norm_1024", GATED_ROWS_GROUPS * 32, 2, all_shared;
    /// Gated group RMSNorm and emit of a few rows behind the scan of many sequences.
    GATED_NORM_ROWS = "gated_norm_rows", GATED_ROWS_WARPS * 32, 1, all_shared;
    /// Gated group RMSNorm and emit, then the new windows of the convolution.
    GATED_RMS_NORM_STEP = "gated_rms_norm_step", 512, 1, all_shared;
    /// Raw sums to floats.
    DEQUANTIZE = "dequantize", 256, 1;
    /// Causal convolution.
    CONV1D = "conv1d", 128, 1;
    /// The same of one token a sequence, four channels a thread.
    CONV1D_STEP = "conv1d_step", 128, 1, all_shared;

    /// Scan with states up to 32 wide, few tokens.
    SCAN_32 = "ssm_scan_32", SCAN_THREADS, 1;
    /// Scan with states up to 64 wide, few tokens.
    SCAN_64 = "ssm_scan_64", SCAN_THREADS, 1;
    /// Scan with states up to 128 wide, few tokens.
    SCAN_128 = "ssm_scan_128", SCAN_THREADS, 1;
    /// Scan with states up to 256 wide, few tokens.
    SCAN_256 = "ssm_scan_256", SCAN_THREADS, 1;
    /// Convolution and scan of one token a sequence, states up to 32 wide.
    SCAN_STEP_32 = "ssm_scan_step_32", SCAN_THREADS, 1, all_shared;
    /// States up to 64 wide.
    SCAN_STEP_64 = "ssm_scan_step_64", SCAN_THREADS, 1, all_shared;
    /// States up to 128 wide.
    SCAN_STEP_128 = "ssm_scan_step_128", SCAN_THREADS, 1, all_shared;
    /// States up to 256 wide.
    SCAN_STEP_256 = "ssm_scan_step_256", SCAN_THREADS, 1, all_shared;
    /// Scan of one token of each of many sequences, states up to 128 wide.
    SCAN_MANY_128 = "ssm_scan_many_128", SCAN_MANY_WARPS * 32 + 32, 2, all_shared;
    /// The same of an f16 state.
    SCAN_MANY_128_F16 = "ssm_scan_many_128_f16", SCAN_MANY_WARPS_16 * 32 + 32, 2, all_shared;
    /// The same of a bf16 state.
    SCAN_MANY_128_BF16 = "ssm_scan_many_128_bf16", SCAN_MANY_WARPS_16 * 32 + 32, 2, all_shared;
    /// Scan with states up to 64 wide, tokens staged in shared memory.
    SCAN_LONG_64 = "ssm_scan_long_64", LONG_SCAN_THREADS, 1;
    /// Scan with states up to 128 wide, tokens staged in shared memory.
    SCAN_LONG_128 = "ssm_scan_long_128", LONG_SCAN_THREADS, 1;
    /// Scan with states up to 256 wide, tokens staged in shared memory.
    SCAN_LONG_256 = "ssm_scan_long_256", LONG_SCAN_THREADS, 1;

    // The same of a state that is kept in fewer than 32 bits.
    /// A narrow state, up to 32 wide.
    SCAN_32_NARROW = "ssm_scan_32_narrow", SCAN_THREADS, 1;
    /// A narrow state, up to 64 wide.
    SCAN_64_NARROW = "ssm_scan_64_narrow", SCAN_THREADS, 1;
    /// A narrow state, up to 128 wide.
    SCAN_128_NARROW = "ssm_scan_128_narrow", SCAN_THREADS, 1;
    /// A narrow state, up to 256 wide.
    SCAN_256_NARROW = "ssm_scan_256_narrow", SCAN_THREADS, 1;
    /// A narrow state, up to 32 wide.
    SCAN_STEP_32_NARROW = "ssm_scan_step_32_narrow", SCAN_THREADS, 1, all_shared;
    /// A narrow state, up to 64 wide.
    SCAN_STEP_64_NARROW = "ssm_scan_step_64_narrow", SCAN_THREADS, 1, all_shared;
    /// A narrow state, up to 128 wide.
    SCAN_STEP_128_NARROW = "ssm_scan_step_128_narrow", SCAN_THREADS, 1, all_shared;
    /// A narrow state, up to 256 wide.
    SCAN_STEP_256_NARROW = "ssm_scan_step_256_narrow", SCAN_THREADS, 1, all_shared;
    /// A narrow state, up to 64 wide.
    SCAN_LONG_64_NARROW = "ssm_scan_long_64_narrow", LONG_SCAN_THREADS, 1;
    /// A narrow state, up to 128 wide.
    SCAN_LONG_128_NARROW = "ssm_scan_long_128_narrow", LONG_SCAN_THREADS, 1;
    /// A narrow state, up to 256 wide.
    SCAN_LONG_256_NARROW = "ssm_scan_long_256_narrow", LONG_SCAN_THREADS, 1;

    // Scans in chunks, for states up to 128 wide.
    /// What heads share of chunks of 64 tokens.
    SCAN_PREPARE_64 = "ssm_scan_prepare_64", SCAN_CHUNK_THREADS, 1;
    /// Of chunks of 32 tokens.
    SCAN_PREPARE_32 = "ssm_scan_prepare_32", SCAN_CHUNK_THREADS, 1;
    /// Chunks of 64 tokens.
    SCAN_CHUNKED_64 = "ssm_scan_chunked_64", SCAN_CHUNK_THREADS, 1;
    /// Chunks of 32 tokens, in the shared memory of every GPU.
    SCAN_CHUNKED_32 = "ssm_scan_chunked_32", SCAN_CHUNK_THREADS, 1;
    /// Chunks of 32 tokens, a narrow state.
    SCAN_CHUNKED_32_NARROW = "ssm_scan_chunked_32_narrow", SCAN_CHUNK_THREADS, 1;

    /// Keys and values of several rows a sequence into an f32 cache.
    ATTENTION_APPEND_F32 = "attention_append_f32", 256, 1;
    /// The same, f16.
    ATTENTION_APPEND_F16 = "attention_append_f16", 256, 1;
    /// The same, bf16.
    ATTENTION_APPEND_BF16 = "attention_append_bf16", 256, 1;
    /// The same, i8.
    ATTENTION_APPEND_I8 = "attention_append_i8", 256, 1;
    /// Attention over a part of an f32 cache, one query head at a time.
    ATTENTION_F32_1 = "attention_f32_1", 128, 1;
    /// Four query heads at a time.
    ATTENTION_F32_4 = "attention_f32_4", 128, 1;
    /// The same of an f16 cache, one head.
    ATTENTION_F16_1 = "attention_f16_1", 128, 1;
    /// Four heads.
    ATTENTION_F16_4 = "attention_f16_4", 128, 1;
    /// The same of a bf16 cache, one head.
    ATTENTION_BF16_1 = "attention_bf16_1", 128, 1;
    /// Four heads.
    ATTENTION_BF16_4 = "attention_bf16_4", 128, 1;
    /// The same of an i8 cache, one head.
    ATTENTION_I8_1 = "attention_i8_1", 128, 1;
    /// Four heads.
    ATTENTION_I8_4 = "attention_i8_4", 128, 1;
    /// Attention of many tokens on tensor cores, an f16 cache, head_dim up to 64.
    ATTENTION_TILES_F16_64 = "attention_tiles_f16_64", 128, 2;
    /// head_dim up to 128.
    ATTENTION_TILES_F16_128 = "attention_tiles_f16_128", 128, 2;
    /// A bf16 cache, head_dim up to 64.
    ATTENTION_TILES_BF16_64 = "attention_tiles_bf16_64", 128, 2;
    /// head_dim up to 128.
    ATTENTION_TILES_BF16_128 = "attention_tiles_bf16_128", 128, 2;
    /// An i8 cache, head_dim up to 64.
    ATTENTION_TILES_I8_64 = "attention_tiles_i8_64", 128, 2;
    /// head_dim up to 128.
    ATTENTION_TILES_I8_128 = "attention_tiles_i8_128", 128, 2;
    /// The same by warpgroup instructions, an f16 cache, head_dim of 64.
    ATTENTION_WARPGROUP_F16_64 = "attention_warpgroup_f16_64", 384, 1;
    /// head_dim of 128.
    ATTENTION_WARPGROUP_F16_128 = "attention_warpgroup_f16_128", 384, 1;
    /// A bf16 cache, head_dim of 64.
    ATTENTION_WARPGROUP_BF16_64 = "attention_warpgroup_bf16_64", 384, 1;
    /// head_dim of 128.
    ATTENTION_WARPGROUP_BF16_128 = "attention_warpgroup_bf16_128", 384, 1;
    /// One token a sequence over a part of an f16 cache on tensor cores, head_dim of 64.
    ATTENTION_DECODE_F16_64 = "attention_decode_f16_64", DECODE_THREADS, 2, all_shared;
    /// head_dim of 128.
    ATTENTION_DECODE_F16_128 = "attention_decode_f16_128", DECODE_THREADS, 2, all_shared;
    /// A bf16 cache, head_dim of 64.
    ATTENTION_DECODE_BF16_64 = "attention_decode_bf16_64", DECODE_THREADS, 2, all_shared;
    /// head_dim of 128.
    ATTENTION_DECODE_BF16_128 = "attention_decode_bf16_128", DECODE_THREADS, 2, all_shared;
    /// The whole of a short context, combined and emitted.
    ATTENTION_WHOLE_F16_64 = "attention_whole_f16_64", DECODE_THREADS, 2, all_shared;
    /// head_dim of 128.
    ATTENTION_WHOLE_F16_128 = "attention_whole_f16_128", DECODE_THREADS, 2, all_shared;
    /// A bf16 cache, head_dim of 64.
    ATTENTION_WHOLE_BF16_64 = "attention_whole_bf16_64", DECODE_THREADS, 2, all_shared;
    /// head_dim of 128.
    ATTENTION_WHOLE_BF16_128 = "attention_whole_bf16_128", DECODE_THREADS, 2, all_shared;
    /// Parts of the context to one vector a row, and emit.
    ATTENTION_COMBINE = "attention_combine", 512, 1, all_shared;

    /// Quantized linear of up to 8 rows, signed activations.
    SKINNY_8_I8 = "linear_skinny_8_i8", SKINNY_THREADS, 2;
    /// Unsigned activations.
    SKINNY_8_U8 = "linear_skinny_8_u8", SKINNY_THREADS, 2;
    /// Up to 16 rows.
    SKINNY_16_I8 = "linear_skinny_16_i8", SKINNY_THREADS, 2;
    /// Up to 16 rows, unsigned activations.
    SKINNY_16_U8 = "linear_skinny_16_u8", SKINNY_THREADS, 2;
    /// Up to 32 rows.
    SKINNY_32_I8 = "linear_skinny_32_i8", SKINNY_THREADS, 2;
    /// Up to 32 rows, unsigned activations.
    SKINNY_32_U8 = "linear_skinny_32_u8", SKINNY_THREADS, 2;
    /// Up to 64 rows.
    SKINNY_64_I8 = "linear_skinny_64_i8", SKINNY_THREADS, 2;
    /// Up to 64 rows, unsigned activations.
    SKINNY_64_U8 = "linear_skinny_64_u8", SKINNY_THREADS, 2;

    /// One row, with bulk copies and dot products.
    DOT_1_I8 = "linear_stream_dot_1_i8", STREAM_THREADS, 2, all_shared;
    /// Unsigned activations.
    DOT_1_U8 = "linear_stream_dot_1_u8", STREAM_THREADS, 2, all_shared;
    /// One row that is normalized first.
    DOT_NORM_1 = "linear_stream_dot_norm_1", STREAM_THREADS, 2, all_shared;
    /// One row that is gated, normalized in groups, rotated and quantized first.
    DOT_GATED_1 = "linear_stream_dot_gated_1", STREAM_THREADS, 2, all_shared;
    /// The same of a wider row.
    DOT_GATED_1_WIDE = "linear_stream_dot_gated_1_wide", STREAM_THREADS, 2, all_shared;
    /// Up to 2 rows.
    DOT_2_I8 = "linear_stream_dot_2_i8", STREAM_THREADS, 2, all_shared;
    /// Unsigned activations.
    DOT_2_U8 = "linear_stream_dot_2_u8", STREAM_THREADS, 2, all_shared;
    /// Up to 4 rows, activations as columns of tensor cores.
    COLUMNS_4_I8 = "linear_stream_columns_4_i8", STREAM_THREADS, 2, all_shared;
    /// Unsigned activations.
    COLUMNS_4_U8 = "linear_stream_columns_4_u8", STREAM_THREADS, 2, all_shared;
    /// As `SKINNY_8_I8`, with bulk copies.
    STREAM_8_I8 = "linear_stream_8_i8", STREAM_THREADS, 2, all_shared;
    /// Unsigned activations.
    STREAM_8_U8 = "linear_stream_8_u8", STREAM_THREADS, 2, all_shared;
    /// Up to 16 rows.
    STREAM_16_I8 = "linear_stream_16_i8", STREAM_THREADS, 2, all_shared;
    /// Up to 16 rows, unsigned activations.
    STREAM_16_U8 = "linear_stream_16_u8", STREAM_THREADS, 2, all_shared;
    /// Up to 32 rows.
    STREAM_32_I8 = "linear_stream_32_i8", STREAM_THREADS, 2, all_shared;
    /// Up to 32 rows, unsigned activations.
    STREAM_32_U8 = "linear_stream_32_u8", STREAM_THREADS, 2, all_shared;
    /// Up to 64 rows.
    STREAM_64_I8 = "linear_stream_64_i8", STREAM_THREADS, 1, all_shared;
    /// Up to 64 rows, unsigned activations.
    STREAM_64_U8 = "linear_stream_64_u8", STREAM_THREADS, 1, all_shared;
    /// Up to 32 rows of W4, with bulk copies of weights and activations.
    MANY_32_I8 = "linear_stream_many_32_i8", MANY_THREADS, 1, all_shared;
    /// Unsigned activations.
    MANY_32_U8 = "linear_stream_many_32_u8", MANY_THREADS, 1, all_shared;

    /// Up to 16 rows, pairs of blocks that share k; blocks of what is behind it fit beside one.
    PAIR_16_I8 = "linear_pair_16_i8", PAIR_THREADS, 2, all_shared;
    /// Unsigned activations.
    PAIR_16_U8 = "linear_pair_16_u8", PAIR_THREADS, 2, all_shared;
    /// Up to 32 rows of W4.
    PAIR_32_I8 = "linear_pair_32_i8", PAIR_THREADS, 1, all_shared;
    /// Unsigned activations.
    PAIR_32_U8 = "linear_pair_32_u8", PAIR_THREADS, 1, all_shared;
    /// Up to 64 rows of W4.
    PAIR_64_I8 = "linear_pair_64_i8", PAIR_THREADS, 1, all_shared;
    /// Unsigned activations.
    PAIR_64_U8 = "linear_pair_64_u8", PAIR_THREADS, 1, all_shared;

    /// W8 by warpgroup instructions, 64 x 32 tiles.
    WARPGROUP_32_I8 = "linear_warpgroup_32_i8", 160, 3;
    /// Unsigned activations.
    WARPGROUP_32_U8 = "linear_warpgroup_32_u8", 160, 3;
    /// 64 x 64 tiles.
    WARPGROUP_64_I8 = "linear_warpgroup_64_i8", 160, 3;
    /// Unsigned activations.
    WARPGROUP_64_U8 = "linear_warpgroup_64_u8", 160, 3;
    /// W8 by two warpgroups in turn, 128 x 128 tiles, clusters of two blocks.
    PINGPONG_I8 = "linear_pingpong_i8", 288, 1;
    /// Unsigned activations.
    PINGPONG_U8 = "linear_pingpong_u8", 288, 1;
    /// W4 two-level weights to W8.
    EXPAND = "linear_expand", 256, 1;

    /// Linear of float weights or small groups, one row.
    SCALAR_1 = "linear_scalar_1", 256, 1;
    /// Eight rows at a time.
    SCALAR_8 = "linear_scalar_8", 256, 1;
    /// Linear of f32 weights, many rows.
    FLOAT_F32 = "linear_float_f32", 256, 1;
    /// f16 weights.
    FLOAT_F16 = "linear_float_f16", 256, 1;
    /// bf16 weights.
    FLOAT_BF16 = "linear_float_bf16", 256, 1;

    /// Calibration: sums of products over tokens.
    GRAM = "gram", 256, 1;
    /// Inputs of a linear as floats, and what they lack.
    OBSERVE_ROWS = "observe_rows", 256, 1;
    /// What the residual stream lacks behind a linear.
    OBSERVE_RESIDUAL = "observe_residual", 256, 1;
    /// How large each channel is.
    OBSERVE_CHANNELS = "observe_channels", 256, 1;

    /// W8 GEMM, 128 x 128 tiles, 96 KiB.
    GEMM_W8_I8 = "linear_gemm_w8_i8", 256, 1;
    /// Unsigned activations.
    GEMM_W8_U8 = "linear_gemm_w8_u8", 256, 1;
    /// W8 GEMM, 128 x 256 tiles, 192 KiB.
    GEMM_W8_WIDE_I8 = "linear_gemm_w8_wide_i8", 256, 1;
    /// Unsigned activations.
    GEMM_W8_WIDE_U8 = "linear_gemm_w8_wide_u8", 256, 1;
    /// W4 two-level GEMM, 128 x 128 tiles, 96 KiB.
    GEMM_W4_I8 = "linear_gemm_w4_i8", 256, 1;
    /// Unsigned activations.
    GEMM_W4_U8 = "linear_gemm_w4_u8", 256, 1;
    /// W4 group GEMM, 128 x 128 tiles, 96 KiB.
    GEMM_W4_GROUP_I8 = "linear_gemm_w4_group_i8", 256, 1;
    /// Unsigned activations.
    GEMM_W4_GROUP_U8 = "linear_gemm_w4_group_u8", 256, 1;
}
