//! The tiles of kernels, and what they need of shared memory.

use super::{
    Entry, PINGPONG_I8, PINGPONG_U8, SCAN_CHUNKED_32, SCAN_CHUNKED_32_NARROW, SCAN_CHUNKED_64, SCAN_MANY_128,
    SCAN_MANY_128_BF16, SCAN_MANY_128_F16, SCAN_PREPARE_32, SCAN_PREPARE_64, SKINNY_THREADS, WARPGROUP_32_I8,
    WARPGROUP_32_U8, WARPGROUP_64_I8, WARPGROUP_64_U8,
};
use crate::cuda::params::{
    ATTENTION_DECODE_WARPS, DTYPE_BF16, DTYPE_F16, DTYPE_F32, GATED_CLUSTER, GATED_SHARED_BYTES, MANY_ROW_BYTES,
    MANY_STAGES, MANY_TILE_ROWS, MANY_TOKENS, NORM_MAX_COLUMNS, PINGPONG_CLUSTER, PINGPONG_STAGES, SCAN_CHUNK_COLUMNS,
    SCAN_CHUNK_ROWS, SCAN_CHUNK_WARPS, SCAN_MANY_ROWS, SCAN_MANY_STAGES, SCAN_MANY_STAGES_16, SCAN_STAGE_TOKENS,
    SKINNY_STAGES, SKINNY_TILE_ROWS, SKINNY_WARPS, STREAM_ROW_BYTES, STREAM_SCALE_STAGES, STREAM_STAGES, STREAM_WARPS,
};

/// A linear by warpgroup instructions, for up to so many rows at a time.
#[derive(Clone, Copy, Debug)]
pub struct Warpgroup {
    /// For signed and for unsigned activations.
    pub entries: [Entry; 2],
    /// Tokens of a tile.
    pub tokens: u32,
    /// Weight rows of a block's tile.
    pub rows: u32,
    /// Stages of the ring.
    pub stages: u32,
    /// Blocks that share their tokens.
    pub cluster: u32,
    /// Shared memory through which the copy engine stores results; 0 where threads store them.
    pub leaving_bytes: u32,
}

/// By tokens of a tile.
pub const WARPGROUP: [Warpgroup; 3] = [
    Warpgroup {
        entries: [WARPGROUP_32_I8, WARPGROUP_32_U8],
        tokens: 32,
        rows: 64,
        stages: 5,
        cluster: 1,
        leaving_bytes: 0,
    },
    Warpgroup {
        entries: [WARPGROUP_64_I8, WARPGROUP_64_U8],
        tokens: 64,
        rows: 64,
        stages: 4,
        cluster: 1,
        leaving_bytes: 0,
    },
    Warpgroup {
        entries: [PINGPONG_I8, PINGPONG_U8],
        tokens: 128,
        rows: 128,
        stages: PINGPONG_STAGES,
        cluster: PINGPONG_CLUSTER,
        leaving_bytes: 2 * 2 * 32 * 64 * 4,
    },
];

/// Columns of k of its stages, and bytes of a row of a tile that the copy engine brings.
pub const WARPGROUP_STAGE_K: u32 = 128;

impl Warpgroup {
    /// Shared memory of a block: the ring and its barriers, scales of the tokens of two tiles, and results on their way out.
    pub const fn smem_bytes(&self) -> u32 {
        self.stages * ((self.rows + self.tokens) * WARPGROUP_STAGE_K + 16) + 2 * self.tokens * 4 + self.leaving_bytes
    }
}

/// Token rows a GEMM block computes.
pub const GEMM_BLOCK_M: u32 = 128;
/// Columns of k of a GEMM stage.
pub const GEMM_STAGE_K: u32 = 128;

/// Shared memory of a skinny linear of up to `tokens` rows: the ring of weights, of scales, and the partial sums.
pub const fn skinny_smem_bytes(tokens: u32) -> u32 {
    let weights = SKINNY_STAGES * SKINNY_THREADS * 16;
    let scales = SKINNY_STAGES * SKINNY_WARPS * SKINNY_TILE_ROWS * 4;
    weights + scales + 2 * SKINNY_WARPS * tokens * SKINNY_TILE_ROWS * 4
}

/// Shared memory of a streaming linear of up to `tokens` rows without its group scales: the ring, row scales, barriers,
/// drawn tiles, partial sums.
pub const fn stream_smem_bytes(tokens: u32) -> u32 {
    let ring = STREAM_STAGES * SKINNY_TILE_ROWS * STREAM_ROW_BYTES;
    let scales = STREAM_SCALE_STAGES * SKINNY_TILE_ROWS * 4;
    let tiles = STREAM_SCALE_STAGES * (4 + 8);
    ring + scales + tiles + 2 * STREAM_STAGES * 8 + 2 * STREAM_WARPS * tokens * SKINNY_TILE_ROWS * 4
}

/// Shared memory of the streaming linear of many rows: the ring of weights and activations, partial sums, barriers, drawn tiles.
pub const MANY_SMEM_BYTES: u32 = {
    let stage = MANY_TILE_ROWS * (MANY_ROW_BYTES + 64) + MANY_TOKENS * (2 * MANY_ROW_BYTES + 16);
    let sums = STREAM_WARPS * MANY_TOKENS * (MANY_TILE_ROWS + 4) * 4;
    MANY_STAGES * (stage + 16) + sums + STREAM_SCALE_STAGES * (8 + 4)
};

/// What a norm in front of a streaming linear adds: the row, sums of its pieces, and peaks.
pub const NORM_SMEM_BYTES: u32 =
    (NORM_MAX_COLUMNS + NORM_MAX_COLUMNS / 128 * 4 + STREAM_WARPS * 4 + 4).next_multiple_of(16);

/// What a gated row of `n` columns that a cluster makes in front of a streaming linear adds; rotations wider than 256
/// columns exchange the block's part of it.
pub const fn gated_smem_bytes(n: u32, hadamard_block: u32) -> u32 {
    GATED_SHARED_BYTES + n + if hadamard_block > 256 { n / GATED_CLUSTER * 4 } else { 0 }
}

/// Shared memory of a scan of many tokens: two stages of x, B, C, dt and decay.
pub const fn scan_smem_bytes(head_dim: u32, state_size: u32) -> u32 {
    2 * SCAN_STAGE_TOKENS * (2 * state_size + head_dim + 2) * 4
}

/// A scan of many sequences, whose states are of one type.
#[derive(Clone, Copy, Debug)]
pub struct ManyScan {
    /// The type, as in `SsmScanParams`.
    pub state_dtype: u32,
    /// The scan.
    pub entry: Entry,
    /// Pieces in its ring.
    stages: u32,
    element_bytes: u32,
}

/// By the type of the state.
pub const MANY_SCANS: [ManyScan; 3] = [
    ManyScan { state_dtype: DTYPE_F32, entry: SCAN_MANY_128, stages: SCAN_MANY_STAGES, element_bytes: 4 },
    ManyScan { state_dtype: DTYPE_F16, entry: SCAN_MANY_128_F16, stages: SCAN_MANY_STAGES_16, element_bytes: 2 },
    ManyScan { state_dtype: DTYPE_BF16, entry: SCAN_MANY_128_BF16, stages: SCAN_MANY_STAGES_16, element_bytes: 2 },
];

impl ManyScan {
    /// Shared memory of a block: the ring of states.
    pub const fn smem_bytes(&self, state_size: u32) -> u32 {
        self.stages * SCAN_MANY_ROWS * state_size * self.element_bytes
    }
}

/// A scan in chunks of so many tokens.
#[derive(Clone, Copy, Debug)]
pub struct Chunked {
    /// Tokens of a chunk.
    pub tokens: u32,
    /// What comes before it.
    pub prepare: Entry,
    /// The scan.
    pub entry: Entry,
    /// Whether the state is kept in fewer than 32 bits.
    pub narrow: bool,
}

/// The fastest first.
pub const CHUNKED: [Chunked; 3] = [
    Chunked { tokens: 64, prepare: SCAN_PREPARE_64, entry: SCAN_CHUNKED_64, narrow: false },
    Chunked { tokens: 32, prepare: SCAN_PREPARE_32, entry: SCAN_CHUNKED_32, narrow: false },
    Chunked { tokens: 32, prepare: SCAN_PREPARE_32, entry: SCAN_CHUNKED_32_NARROW, narrow: true },
];

/// Halves of B and of C of a token and group, in f16.
const CHUNK_SPLIT_BYTES: u32 = 4 * SCAN_CHUNK_COLUMNS * 2;

impl Chunked {
    /// Shared memory of the kernel that prepares: halves of B and C, and their scales.
    pub const fn prepare_smem_bytes(&self) -> u32 {
        self.tokens * (CHUNK_SPLIT_BYTES + 2 * 4)
    }

    /// Shared memory of the scan: two stages of B, C and x, two of weights with their scales, three of factors, and sums of
    /// half of the columns.
    pub const fn smem_bytes(&self) -> u32 {
        let stage = self.tokens * (CHUNK_SPLIT_BYTES + SCAN_CHUNK_ROWS * 4);
        let weights = self.tokens * (2 * self.tokens * 2 + 4);
        let sums = SCAN_CHUNK_WARPS * self.tokens / 16 * 32 * 16;
        2 * stage + 2 * weights + 3 * self.tokens * (16 + 2 * 4) + sums
    }
}

/// Memory of what the first kernel of a scan in chunks leaves to the second. The last tokens of a chunk may not be there.
pub const fn chunked_bytes(rows: usize, heads: usize, groups: usize) -> usize {
    let tokens = CHUNKED[0].tokens as usize;
    rows * (groups * (CHUNK_SPLIT_BYTES as usize + tokens * 4) + heads * (16 + 2 * 4)) + tokens * 4
}

/// Queries of a block of attention on tensor cores.
pub const ATTENTION_TILE: u32 = 64;
/// Keys of a stage of it.
const ATTENTION_STAGE_KEYS: u32 = 32;

/// Its shared memory: two stages of keys and of values with their scales, and halves of the queries.
pub const fn attention_tiles_smem_bytes(head_dim: u32) -> u32 {
    let columns = if head_dim <= 64 { 64 } else { 128 };
    2 * 2 * ATTENTION_STAGE_KEYS * (columns * 2 + 4) + ATTENTION_TILE * columns * 2
}

/// Queries of a block of attention by warpgroup instructions.
pub const ATTENTION_WARPGROUP_TILE: u32 = 128;
/// Keys of a stage of it.
const ATTENTION_WARPGROUP_KEYS: u32 = 128;
/// Barriers of its two stages of keys and of values: what has arrived and what has been read.
const ATTENTION_WARPGROUP_BARRIERS: u32 = 2 * 2 * 2;

/// Its shared memory: halves of the queries, two stages of keys and of values, and barriers.
pub const fn attention_warpgroup_smem_bytes(head_dim: u32) -> u32 {
    let queries = 2 * ATTENTION_WARPGROUP_TILE * head_dim * 2;
    queries + 2 * 2 * ATTENTION_WARPGROUP_KEYS * head_dim * 2 + ATTENTION_WARPGROUP_BARRIERS * 8
}

/// Keys that a warp of attention of one token a sequence takes at a time.
const ATTENTION_DECODE_KEYS: u32 = 16;

/// Its shared memory: rings of keys and values of 16 bits.
pub const fn attention_decode_smem_bytes(head_dim: u32, stages: u32) -> u32 {
    ATTENTION_DECODE_WARPS * stages * ATTENTION_DECODE_KEYS * 2 * head_dim * 2
}

/// Shared memory of the kernel that combines parts: columns of a block, and weights of the parts of its heads.
pub const fn attention_combine_smem_bytes(columns: u32, head_dim: u32, parts: u32) -> u32 {
    (columns + (columns.div_ceil(head_dim) + 1) * parts) * 4
}

/// Shared memory of a GEMM.
pub const fn gemm_smem_bytes(w4: bool, block_n: u32, stages: u32) -> u32 {
    let weights = if w4 { GEMM_STAGE_K / 2 } else { GEMM_STAGE_K };
    stages * (GEMM_BLOCK_M * GEMM_STAGE_K + block_n * weights)
}
