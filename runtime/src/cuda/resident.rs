//! Linears of 9 to 16 rows on Hopper, with the activations kept in shared memory.

use super::enqueue::{Queue, with_rows};
use super::entry::{self, Entry, WARPGROUP_STAGE_K};
use super::kernels::Grid;
use super::params::{
    FORMAT_W4_TWO_LEVEL, FORMAT_W8, LinearParams, LinearSegment, RESIDENT_MAX_STAGES, RESIDENT_TILE_ROWS,
    RESIDENT_TOKENS, RESIDENT_WARPS, ResidentParams,
};
use super::tensor_map::{map_weights, tensor_map};
use super::weights::{LinearOp, with_tiles};
use crate::device::DeviceError;
use bytemuck::Zeroable;

/// Kernel, grid and arguments.
type Launch = (Entry, Grid, ResidentParams);

/// Fewer rows read less from L2 than this kernel takes from the ring of weights.
const FEWEST_ROWS: u32 = 9;
/// Fewer stages do not keep enough weights in flight.
const FEWEST_STAGES: u32 = 6;
/// Bytes of a row in a box of the copy engine.
const BOX_BYTES: u32 = WARPGROUP_STAGE_K;
/// Room for activations; the rest of shared memory is for weights in flight.
const X_BYTES: u32 = 88 << 10;
const STAGE_BYTES: u32 = RESIDENT_WARPS * RESIDENT_TILE_ROWS * BOX_BYTES;
const SLOTS: u32 = RESIDENT_MAX_STAGES + 4;
/// Barriers, and the numbers of drawn tiles.
const CONTROL_BYTES: u32 = (2 * RESIDENT_MAX_STAGES + SLOTS + 5) * 8 + SLOTS * 4;
/// Sums of two tiles of every warp.
const SUMS_BYTES: u32 = 2 * RESIDENT_WARPS * RESIDENT_TOKENS * RESIDENT_TILE_ROWS * 4;

/// Everything but addresses; `None` where the kernel does not take the linear.
fn prepare(linear: &LinearParams, smem_per_block: u32) -> Option<ResidentParams> {
    let known = |segment: &LinearSegment| {
        [FORMAT_W8, FORMAT_W4_TWO_LEVEL].contains(&segment.format) && segment.row_bytes.is_multiple_of(BOX_BYTES)
    };
    let x_boxes = linear.k_padded.div_ceil(BOX_BYTES);
    let fits = x_boxes * RESIDENT_TOKENS * BOX_BYTES <= X_BYTES;
    let few = (FEWEST_ROWS..=RESIDENT_TOKENS).contains(&linear.rows);
    if !few || !fits || !linear.segments().iter().all(known) {
        return None;
    }
    let narrow = linear.segments().iter().filter(|segment| segment.format != FORMAT_W8);
    // Scales may start anywhere within 16 bytes.
    let scale_bytes = narrow.map(|s| (RESIDENT_TILE_ROWS * s.groups).next_multiple_of(16) + 16).max().unwrap_or(0);
    let linear = with_tiles(*linear, RESIDENT_TILE_ROWS);
    let params = ResidentParams { linear, x_boxes, scale_bytes, ..ResidentParams::zeroed() };
    let stages = smem_per_block.saturating_sub(smem_bytes(&params) + 1024) / STAGE_BYTES;
    (stages >= FEWEST_STAGES).then(|| ResidentParams { stages: stages.min(RESIDENT_MAX_STAGES), ..params })
}

fn smem_bytes(params: &ResidentParams) -> u32 {
    let x = params.x_boxes * RESIDENT_TOKENS * BOX_BYTES;
    params.stages * STAGE_BYTES + x + SUMS_BYTES + SLOTS * params.scale_bytes + CONTROL_BYTES
}

impl Queue<'_> {
    /// The launches of a linear with resident activations, or `None` where there are other kernels for it.
    pub(super) fn resident(&self, linear: &LinearOp, rows: usize) -> Result<Option<Vec<Launch>>, DeviceError> {
        if !self.kernels.warpgroups {
            return Ok(None);
        }
        linear.skinny.iter().map(|params| self.resident_launch(&with_rows(params, rows))).collect()
    }

    fn resident_launch(&self, linear: &LinearParams) -> Result<Option<Launch>, DeviceError> {
        let Some(mut params) = prepare(linear, self.gpu.smem_per_block) else { return Ok(None) };
        params.x = tensor_map(linear.x, linear.k_padded, linear.rows, RESIDENT_TOKENS)?;
        map_weights(&mut params.weights, linear, RESIDENT_TILE_ROWS)?;
        let blocks = self.gpu.sm_count.min(params.linear.tiles);
        let entry = [entry::RESIDENT_16_I8, entry::RESIDENT_16_U8][linear.x_unsigned as usize];
        Ok(Some((entry, Grid::new(blocks as usize, 1, 1).smem(smem_bytes(&params) as usize), params)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: u32 = 232_448;

    fn linear(rows: u32, k: u32, format: u32) -> LinearParams {
        let mut params = LinearParams { rows, k, k_padded: k, segment_count: 1, ..LinearParams::zeroed() };
        let row_bytes = if format == FORMAT_W8 { k } else { k / 2 };
        let groups = if format == FORMAT_W8 { 0 } else { k / 128 };
        params.segments[0] =
            LinearSegment { out_features: 1000, row_bytes, format, groups, group_size: 128, ..LinearSegment::zeroed() };
        params
    }

    #[test]
    fn fills_shared_memory_with_stages() {
        for format in [FORMAT_W8, FORMAT_W4_TWO_LEVEL] {
            let params = prepare(&linear(16, 4096, format), HOPPER).unwrap();
            assert_eq!((params.linear.tiles, params.x_boxes), (63, 32));
            let bytes = smem_bytes(&params);
            assert!(bytes + 1024 <= HOPPER && bytes + 1024 + STAGE_BYTES > HOPPER, "{bytes}");
        }
    }

    #[test]
    fn leaves_few_and_many_rows_long_rows_and_other_formats_to_others() {
        assert!(prepare(&linear(8, 4096, FORMAT_W8), HOPPER).is_none());
        assert!(prepare(&linear(17, 4096, FORMAT_W8), HOPPER).is_none());
        assert!(prepare(&linear(16, 8192, FORMAT_W8), HOPPER).is_none());
        assert!(prepare(&linear(16, 4064, FORMAT_W8), HOPPER).is_none());
        assert!(prepare(&linear(16, 4096 + 128, FORMAT_W4_TWO_LEVEL), HOPPER).is_none());
        assert!(prepare(&linear(16, 4096, super::super::params::FORMAT_W4_GROUP), HOPPER).is_none());
    }

    #[test]
    fn leaves_a_gpu_with_little_shared_memory_to_others() {
        assert!(prepare(&linear(16, 4096, FORMAT_W8), 101_376).is_none());
    }
}
