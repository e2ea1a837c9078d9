//! Which kernels do a launch of attention.

use super::enqueue::Queue;
use super::entry::{self, Entry};
use super::kernels::Grid;
use super::params::{ATTENTION_DECODE_STAGES, ATTENTION_WHOLE_STAGES, AttentionParams, MapParams};
use super::program::{AttentionOp, attention_parts};
use crate::device::DeviceError;
use crate::plan::{DType, Rows};
use bytemuck::Zeroable;

/// Chunks of at least this many tokens attend on tensor cores.
const TILES_FROM: usize = 16;
/// Query heads of a block.
const HEADS: usize = 4;
/// Blocks of a cluster that any GPU with clusters can hold.
const MOST_CLUSTER: u32 = 8;

impl Queue<'_> {
    pub(super) fn attention(&self, attention: &AttentionOp) -> Result<(), DeviceError> {
        let params = &attention.params;
        let parts = attention_parts(self.gpu, self.shape.rows, params.kv_heads as usize);
        if let Some(decode) = self.attention_decode(attention) {
            let whole = decode.whole.filter(|_| parts == 1 || !self.shape.long_context);
            let smem = |stages| entry::attention_decode_smem_bytes(params.head_dim, stages) as usize;
            let Some(whole) = whole else {
                return self.attention_parts(params, decode.part, smem(ATTENTION_DECODE_STAGES), parts);
            };
            let cluster = params.kv_heads as usize;
            let grid = Grid::new(self.shape.rows * cluster, 1, 1).smem(smem(ATTENTION_WHOLE_STAGES)).clusters(cluster);
            return self.launch(whole, grid, params);
        }
        if !self.shape.is_decode() {
            let append = match attention.dtype {
                DType::F16 => entry::ATTENTION_APPEND_F16,
                DType::Bf16 => entry::ATTENTION_APPEND_BF16,
                DType::I8 => entry::ATTENTION_APPEND_I8,
                _ => entry::ATTENTION_APPEND_F32,
            };
            self.launch(append, Grid::new(self.shape.rows, 1, 1), params)?;
        }
        let tiles = self.attention_warpgroups(attention).or_else(|| self.attention_tiles(attention));
        if let Some((tiles, grid)) = tiles {
            self.launch(tiles, grid, params)?;
            return self.map(&MapParams { x: params.part_acc, emit: params.emit, ..MapParams::zeroed() }, Rows::Token);
        }
        let (one, four) = match attention.dtype {
            DType::F16 => (entry::ATTENTION_F16_1, entry::ATTENTION_F16_4),
            DType::Bf16 => (entry::ATTENTION_BF16_1, entry::ATTENTION_BF16_4),
            DType::I8 => (entry::ATTENTION_I8_1, entry::ATTENTION_I8_4),
            _ => (entry::ATTENTION_F32_1, entry::ATTENTION_F32_4),
        };
        let params = AttentionParams { append: u32::from(self.shape.is_decode()), ..*params };
        self.attention_parts(&params, if params.heads == params.kv_heads { one } else { four }, 0, parts)
    }

    /// Parts of the context, then one vector a row.
    fn attention_parts(
        &self,
        params: &AttentionParams,
        part: Entry,
        smem: usize,
        parts: usize,
    ) -> Result<(), DeviceError> {
        let params = AttentionParams { parts: parts as u32, ..*params };
        let per_kv = (params.heads / params.kv_heads) as usize;
        let blocks = params.kv_heads as usize * per_kv.div_ceil(HEADS);
        self.launch(part, Grid::new(self.shape.rows, blocks, parts).smem(smem), &params)?;
        self.combine(&params)
    }

    fn combine(&self, params: &AttentionParams) -> Result<(), DeviceError> {
        let grid = self.per_row(Rows::Token, &params.emit, 1);
        let columns = params.emit.n / grid.cluster;
        let smem = entry::attention_combine_smem_bytes(columns, params.head_dim, params.parts);
        self.launch(entry::ATTENTION_COMBINE, grid.smem(smem as usize), params)
    }

    /// Attention on tensor cores, where the chunks are long enough and the cache is not f32.
    fn attention_tiles(&self, attention: &AttentionOp) -> Option<(Entry, Grid)> {
        let params = &attention.params;
        let [narrow, wide] = match attention.dtype {
            DType::F16 => [entry::ATTENTION_TILES_F16_64, entry::ATTENTION_TILES_F16_128],
            DType::Bf16 => [entry::ATTENTION_TILES_BF16_64, entry::ATTENTION_TILES_BF16_128],
            DType::I8 => [entry::ATTENTION_TILES_I8_64, entry::ATTENTION_TILES_I8_128],
            _ => return None,
        };
        let smem = entry::attention_tiles_smem_bytes(params.head_dim);
        let fits = params.head_dim <= 128 && smem + 1024 <= self.gpu.smem_per_block;
        if !fits || self.shape.longest < TILES_FROM {
            return None;
        }
        let blocks = self.shape.longest.div_ceil(entry::ATTENTION_TILE as usize);
        let grid = Grid::new(blocks, params.heads as usize, self.shape.sequences).smem(smem as usize);
        Some((if params.head_dim <= 64 { narrow } else { wide }, grid))
    }

    /// Attention by warpgroup instructions, where they pay, the cache is of 16 bits and heads have one of the usual sizes.
    fn attention_warpgroups(&self, attention: &AttentionOp) -> Option<(Entry, Grid)> {
        let params = &attention.params;
        let entry = match (attention.dtype, params.head_dim) {
            (DType::F16, 64) => entry::ATTENTION_WARPGROUP_F16_64,
            (DType::F16, 128) => entry::ATTENTION_WARPGROUP_F16_128,
            (DType::Bf16, 64) => entry::ATTENTION_WARPGROUP_BF16_64,
            (DType::Bf16, 128) => entry::ATTENTION_WARPGROUP_BF16_128,
            _ => return None,
        };
        let (longest, sequences, heads) = (self.shape.longest, self.shape.sequences, params.heads as usize);
        // Short chunks of many sequences: several of the smaller blocks run side by side on an SM.
        let full = longest > entry::ATTENTION_TILE as usize || heads * sequences <= self.gpu.sm_count as usize;
        if !self.kernels.warpgroups || longest < TILES_FROM || !full {
            return None;
        }
        let smem = entry::attention_warpgroup_smem_bytes(params.head_dim);
        let blocks = longest.div_ceil(entry::ATTENTION_WARPGROUP_TILE as usize);
        Some((entry, Grid::new(heads, blocks, sequences).smem(smem as usize)))
    }

    /// One token a sequence on tensor cores, where the cache is of 16 bits and heads have one of the usual sizes.
    fn attention_decode(&self, attention: &AttentionOp) -> Option<Decode> {
        let params = &attention.params;
        let (part, whole) = match (attention.dtype, params.head_dim) {
            (DType::F16, 64) => (entry::ATTENTION_DECODE_F16_64, entry::ATTENTION_WHOLE_F16_64),
            (DType::F16, 128) => (entry::ATTENTION_DECODE_F16_128, entry::ATTENTION_WHOLE_F16_128),
            (DType::Bf16, 64) => (entry::ATTENTION_DECODE_BF16_64, entry::ATTENTION_WHOLE_BF16_64),
            (DType::Bf16, 128) => (entry::ATTENTION_DECODE_BF16_128, entry::ATTENTION_WHOLE_BF16_128),
            _ => return None,
        };
        let smem = entry::attention_decode_smem_bytes(params.head_dim, ATTENTION_DECODE_STAGES);
        let fits = smem + 3 * 1024 <= self.gpu.smem_per_block;
        let whole = self.makes_rows(params).then_some(whole);
        (fits && self.shape.is_decode()).then_some(Decode { part, whole })
    }

    /// Whether a cluster of a block a key head makes a row: each emits its columns.
    fn makes_rows(&self, params: &AttentionParams) -> bool {
        let (emit, blocks) = (&params.emit, params.kv_heads);
        let columns = emit.n / blocks;
        let alone = blocks == 1;
        let together =
            self.kernels.hopper && blocks.is_power_of_two() && blocks <= MOST_CLUSTER && emit.n == emit.n_padded;
        let whole = columns.is_multiple_of(emit.hadamard_block.max(4));
        (alone || together) && whole && params.heads <= blocks * HEADS as u32
    }
}

/// Kernels for one token a sequence.
struct Decode {
    part: Entry,
    /// Of a whole context, where that can be.
    whole: Option<Entry>,
}
