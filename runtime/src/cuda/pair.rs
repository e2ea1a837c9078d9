//! Linears of 5 to 64 rows on Hopper, by pairs of blocks that share k.

use super::enqueue::{Queue, with_rows};
use super::entry::{self, Entry, WARPGROUP_STAGE_K};
use super::kernels::Grid;
use super::params::{
    FORMAT_W4_TWO_LEVEL, FORMAT_W8, LinearParams, LinearSegment, PAIR_BOXES, PAIR_CLUSTER, PAIR_MAX_ROW_GROUPS,
    PAIR_MAX_STAGES, PAIR_SCALE_TILES, PairParams,
};
use super::tensor_map::neighbors_map;
use super::weights::{LinearOp, with_tiles};
use crate::device::DeviceError;
use bytemuck::Zeroable;

/// A kernel.
struct PairKernel {
    /// Most rows it takes.
    tokens: u32,
    /// For signed and for unsigned activations.
    entries: [Entry; 2],
}

/// Kernel, grid and arguments.
type Launch = (Entry, Grid, PairParams);

/// Fewer rows have kernels of their own.
const FEWEST_ROWS: u32 = 5;
/// By the rows they take.
const KERNELS: [PairKernel; 3] = [
    PairKernel { tokens: 16, entries: [entry::PAIR_16_I8, entry::PAIR_16_U8] },
    PairKernel { tokens: 32, entries: [entry::PAIR_32_I8, entry::PAIR_32_U8] },
    PairKernel { tokens: 64, entries: [entry::PAIR_64_I8, entry::PAIR_64_U8] },
];
/// Rows for which a block leaves room beside it, and that a warp multiplies by itself: more are multiplied by warpgroups, which have
/// all row groups of a tile.
const FEW_ROWS: u32 = KERNELS[0].tokens;
/// Fewer stages do not keep enough weights in flight.
const FEWEST_STAGES: u32 = 3;
/// What a block leaves of an SM's memory: blocks of the norm or quantization behind it, and of the mixer, fit beside it, and
/// wait there. With so much less that two blocks of linears fit an SM, they take turns and both are slower.
const ROOM_BYTES: u32 = 48 * 1024;
/// Fewer rows of a tile would read activations from L2 too often.
const FEWEST_ROW_GROUPS: u32 = 3;
/// Bytes of a row in a box of the copy engine.
const BOX_BYTES: u32 = WARPGROUP_STAGE_K;
/// Rows of an instruction.
const GROUP_ROWS: u32 = 16;
/// Barriers: of the ring, of scales, and of own and the other block's sums.
const CONTROL_BYTES: u32 = (2 * PAIR_MAX_STAGES + PAIR_SCALE_TILES + 4 * PAIR_MAX_ROW_GROUPS) * 8;
/// Sums of 16 rows and half of the tokens: those of a box of every block's half, and what comes from the other block.
const HALF_SUMS: u32 = PAIR_BOXES * PAIR_CLUSTER + 1;

/// Rows of a tile, in groups: where the pair with the most tiles has the fewest rows. W4 takes as many as there can be: fewer
/// warps are slower than its weights come.
fn row_groups(linear: &LinearParams, tokens: u32, pairs: u32) -> u32 {
    let most_rows = |groups: &u32| with_tiles(*linear, groups * GROUP_ROWS).tiles.div_ceil(pairs) * groups;
    let narrow = linear.segments().iter().any(|segment| segment.format != FORMAT_W8);
    let fewest = if narrow || tokens > FEW_ROWS { PAIR_MAX_ROW_GROUPS } else { FEWEST_ROW_GROUPS };
    (fewest..=PAIR_MAX_ROW_GROUPS).rev().min_by_key(most_rows).unwrap_or(PAIR_MAX_ROW_GROUPS)
}

/// The kernel, and everything but addresses; `None` where there is none that takes the linear.
fn prepare(linear: &LinearParams, smem_per_block: u32, pairs: u32) -> Option<(&'static PairKernel, PairParams)> {
    let kernel = KERNELS.iter().find(|kernel| linear.rows <= kernel.tokens)?;
    let tokens = kernel.tokens;
    let known = |segment: &LinearSegment| {
        let format = segment.format == FORMAT_W4_TWO_LEVEL || segment.format == FORMAT_W8;
        format && segment.row_bytes.is_multiple_of(BOX_BYTES)
    };
    if linear.rows < FEWEST_ROWS || pairs == 0 || !linear.segments().iter().all(known) {
        return None;
    }
    let row_groups = row_groups(linear, tokens, pairs);
    let narrow = linear.segments().iter().filter(|segment| segment.format != FORMAT_W8);
    // Scales may start anywhere within 16 bytes.
    let scale_bytes = narrow.map(|s| (row_groups * GROUP_ROWS * s.groups).next_multiple_of(16) + 16).max().unwrap_or(0);
    // A box of W4 is multiplied by two of activations.
    let wide = if scale_bytes > 0 { 2 } else { 1 };
    let stage_bytes = PAIR_BOXES * BOX_BYTES * (row_groups * GROUP_ROWS + wide * tokens);
    let linear = with_tiles(*linear, row_groups * GROUP_ROWS);
    let params = PairParams { linear, row_groups, stage_bytes, scale_bytes, ..PairParams::zeroed() };
    let room = if tokens == FEW_ROWS { ROOM_BYTES } else { 0 };
    let stages = smem_per_block.saturating_sub(smem_bytes(&params, tokens) + 1024 + room) / stage_bytes;
    let params = PairParams { stages: stages.min(PAIR_MAX_STAGES), ..params };
    (stages >= FEWEST_STAGES && !outruns_scales(&params)).then_some((kernel, params))
}

/// Whether the thread that requests could be two rounds of scales ahead of those that multiply. It waits for scales to be left at
/// tiles that have some, which keeps it near unless others lie between; and a barrier does not tell a round from the one before last.
fn outruns_scales(params: &PairParams) -> bool {
    let segments = params.linear.segments();
    let mixed = segments.iter().any(|s| s.format == FORMAT_W8) && params.scale_bytes > 0;
    let of_block = |s: &LinearSegment| s.row_bytes.div_ceil(PAIR_BOXES * BOX_BYTES) / PAIR_CLUSTER;
    let fewest = segments.iter().map(of_block).min().unwrap_or(0);
    // The stage that it waits for is of a tile behind those that fill the others.
    mixed && (fewest == 0 || (params.stages - 1) / fewest + 1 >= 2 * PAIR_SCALE_TILES)
}

fn smem_bytes(params: &PairParams, tokens: u32) -> u32 {
    let sums = HALF_SUMS * params.row_groups * GROUP_ROWS * tokens / PAIR_CLUSTER * 4;
    params.stages * params.stage_bytes + sums + PAIR_SCALE_TILES * params.scale_bytes + CONTROL_BYTES
}

impl Queue<'_> {
    /// The launches of a linear by pairs of blocks, or `None` where there are other kernels for it.
    pub(super) fn paired(&self, linear: &LinearOp, rows: usize) -> Result<Option<Vec<Launch>>, DeviceError> {
        if !self.kernels.warpgroups {
            return Ok(None);
        }
        linear.skinny.iter().map(|params| self.paired_launch(&with_rows(params, rows))).collect()
    }

    fn paired_launch(&self, linear: &LinearParams) -> Result<Option<Launch>, DeviceError> {
        let pairs = self.gpu.sm_count / PAIR_CLUSTER;
        let Some((kernel, mut params)) = prepare(linear, self.gpu.smem_per_block, pairs) else { return Ok(None) };
        params.x = neighbors_map(linear.x, linear.k_padded, linear.rows, kernel.tokens, PAIR_BOXES)?;
        for (map, segment) in params.weights.iter_mut().zip(linear.segments()) {
            let rows = params.row_groups * GROUP_ROWS;
            *map = neighbors_map(segment.weight, segment.row_bytes, segment.out_features, rows, PAIR_BOXES)?;
        }
        let blocks = pairs.min(params.linear.tiles) * PAIR_CLUSTER;
        let grid = Grid::new(blocks as usize, 1, 1).smem(smem_bytes(&params, kernel.tokens) as usize);
        Ok(Some((kernel.entries[linear.x_unsigned as usize], grid.clusters(PAIR_CLUSTER as usize), params)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: u32 = 232_448;
    const PAIRS: u32 = 66;

    fn linear(rows: u32, k: u32, format: u32) -> LinearParams {
        let mut params = LinearParams { rows, k, k_padded: k, segment_count: 1, ..LinearParams::zeroed() };
        let row_bytes = if format == FORMAT_W8 { k } else { k / 2 };
        let groups = if format == FORMAT_W8 { 0 } else { k / 128 };
        params.segments[0] =
            LinearSegment { out_features: 1000, row_bytes, format, groups, group_size: 128, ..LinearSegment::zeroed() };
        params
    }

    fn of_features(out_features: u32) -> LinearParams {
        let mut params = linear(16, 4096, FORMAT_W8);
        params.segments[0].out_features = out_features;
        params
    }

    #[test]
    fn fills_shared_memory_with_stages_but_for_the_blocks_beside_it() {
        for (k, format) in [(4096, FORMAT_W8), (21504, FORMAT_W8), (8192, FORMAT_W4_TWO_LEVEL)] {
            let (kernel, params) = prepare(&linear(16, k, format), HOPPER, PAIRS).unwrap();
            let bytes = smem_bytes(&params, kernel.tokens);
            let room = HOPPER - 1024 - bytes;
            assert!((ROOM_BYTES..ROOM_BYTES + params.stage_bytes).contains(&room), "{room}");
        }
    }

    #[test]
    fn takes_more_rows_by_warpgroups_with_all_of_shared_memory() {
        for (rows, k, format) in [
            (17, 4096, FORMAT_W4_TWO_LEVEL),
            (32, 8192, FORMAT_W8),
            (33, 4096, FORMAT_W8),
            (64, 21504, FORMAT_W4_TWO_LEVEL),
        ] {
            let (kernel, params) = prepare(&linear(rows, k, format), HOPPER, PAIRS).unwrap();
            assert!(rows <= kernel.tokens && params.row_groups == PAIR_MAX_ROW_GROUPS);
            assert!((0..params.stage_bytes).contains(&(HOPPER - 1024 - smem_bytes(&params, kernel.tokens))));
        }
    }

    #[test]
    fn shares_rows_out_most_evenly() {
        // Of the 8B model: down_proj, up_proj, qkv_proj, lm_head.
        let groups = [4096, 21504, 6144, 131_072].map(|n| row_groups(&of_features(n), FEW_ROWS, PAIRS));
        assert_eq!(groups, [4, 3, 3, 3]);
        assert_eq!(row_groups(&linear(16, 4096, FORMAT_W4_TWO_LEVEL), FEW_ROWS, PAIRS), 4);
    }

    #[test]
    fn leaves_few_and_many_rows_and_other_formats_to_others() {
        let takes = |linear: &LinearParams| prepare(linear, HOPPER, PAIRS).is_some();
        assert!(!takes(&linear(4, 4096, FORMAT_W8)));
        assert!(!takes(&linear(65, 4096, FORMAT_W8)));
        assert!(!takes(&linear(65, 4096, FORMAT_W4_TWO_LEVEL)));
        assert!(!takes(&linear(16, 4064, FORMAT_W8)));
        assert!(!takes(&linear(16, 4096 + 128, FORMAT_W4_TWO_LEVEL)));
        assert!(!takes(&linear(16, 4096, super::super::params::FORMAT_W4_GROUP)));
    }

    /// z and xbc in 4 bits, dt in 8.
    fn mixed(rows: u32, k: u32) -> LinearParams {
        let mut params = linear(rows, k, FORMAT_W4_TWO_LEVEL);
        params.segments[1] = linear(rows, k, FORMAT_W8).segments[0];
        params.segment_count = 2;
        params
    }

    #[test]
    fn takes_formats_mixed_where_scales_cannot_be_outrun() {
        for rows in [5, 16, 32, 64] {
            // Of the 8B model: two tiles ahead at most.
            let (_, params) = prepare(&mixed(rows, 4096), HOPPER, PAIRS).unwrap();
            assert!((params.stages - 1) / 4 < 2, "{}", params.stages);
            assert!(prepare(&mixed(rows, 2048), HOPPER, PAIRS).is_some());
            assert!([256, 512].iter().all(|k| prepare(&mixed(rows, *k), HOPPER, PAIRS).is_none()));
            assert!(prepare(&linear(rows, 256, FORMAT_W8), HOPPER, PAIRS).is_some());
            assert!(prepare(&linear(rows, 256, FORMAT_W4_TWO_LEVEL), HOPPER, PAIRS).is_some());
        }
        // A stage a tile, and more of them than would be three tiles.
        assert!(prepare(&mixed(16, 1024), HOPPER, PAIRS).is_none());
    }

    #[test]
    fn leaves_a_gpu_with_little_shared_memory_to_others() {
        assert!(prepare(&linear(16, 4096, FORMAT_W4_TWO_LEVEL), 101_376, PAIRS).is_none());
    }
}
