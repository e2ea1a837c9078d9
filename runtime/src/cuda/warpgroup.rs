//! Linears of many rows by warpgroup instructions: persistent blocks, as many as are resident.

use super::enqueue::{Queue, with_rows};
use super::entry::{WARPGROUP, Warpgroup};
use super::kernels::Grid;
use super::params::{LinearParams, WarpgroupParams};
use super::tensor_map::{ONE_LINE, map_results, map_weights, tensor_map};
use super::weights::{WideOp, with_tiles};
use crate::device::DeviceError;
use bytemuck::Zeroable;

/// Rows of a box of weights or x that the copy engine brings.
const BOX_ROWS: u32 = 64;
/// Weight rows up to which the blocks of a cluster share them and not their tokens.
const FEW_WEIGHT_ROWS: u32 = 8192;

impl Queue<'_> {
    /// Weights that are W8 times so many rows.
    pub(super) fn multiply(&self, wide: &WideOp, rows: usize) -> Result<(), DeviceError> {
        let fits = |kernel: &&Warpgroup| rows <= kernel.tokens as usize;
        let kernel = WARPGROUP.iter().find(fits).unwrap_or(&WARPGROUP[WARPGROUP.len() - 1]);
        let linear = with_rows(&wide.linear, rows);
        let shares_weights = kernel.cluster > 1 && shares_weights(&linear, kernel);
        let [row_tiles, token_tiles] = if shares_weights { [1, kernel.cluster] } else { [kernel.cluster, 1] };
        let linear = with_tiles(linear, kernel.rows * row_tiles);
        let mut params = WarpgroupParams { linear, shares_weights: shares_weights.into(), ..WarpgroupParams::zeroed() };
        params.x = tensor_map(linear.x, linear.k_padded, linear.rows, kernel.tokens.min(BOX_ROWS), ONE_LINE)?;
        map_weights(&mut params.weights, &linear, BOX_ROWS, ONE_LINE)?;
        if kernel.leaving_bytes > 0 {
            params.engine_stores = map_results(&mut params.out, &linear)?;
        }
        params.columns = linear.rows.div_ceil(kernel.tokens * token_tiles);
        let entry = kernel.entries[linear.x_unsigned as usize];
        let resident = entry.blocks_per_sm * self.gpu.sm_count / kernel.cluster;
        let pairs = linear.tiles * params.columns;
        // Blocks by themselves cut nothing.
        let share = Share::new(pairs, if kernel.cluster > 1 { resident } else { resident.min(pairs) });
        (params.rounds, params.extra, params.halved) = (share.rounds, share.extra, share.halved.into());
        let grid = Grid::new((share.clusters * kernel.cluster) as usize, 1, 1).clusters(kernel.cluster as usize);
        self.launch(entry, grid.smem(kernel.smem_bytes() as usize), &params)
    }
}

/// How clusters share pairs of tiles.
#[derive(Debug, PartialEq, Eq)]
struct Share {
    clusters: u32,
    /// Pairs that each of them computes.
    rounds: u32,
    /// Clusters that compute one more, or half of one.
    extra: u32,
    halved: bool,
}

impl Share {
    /// What does not fill the last round is cut into halves if that round is shorter then.
    fn new(pairs: u32, resident: u32) -> Share {
        let clusters = resident.min(2 * pairs).max(1);
        let (rounds, rest) = (pairs / clusters, pairs % clusters);
        let halved = rest > 0 && 2 * rest <= clusters;
        Share { clusters, rounds, extra: if halved { 2 * rest } else { rest }, halved }
    }
}

/// Whether neighbouring tokens go to the blocks of a cluster, and not neighbouring weight rows.
fn shares_weights(linear: &LinearParams, kernel: &Warpgroup) -> bool {
    let rows: u32 = linear.segments().iter().map(|segment| segment.out_features).sum();
    rows <= FEW_WEIGHT_ROWS && linear.rows.div_ceil(kernel.tokens).is_multiple_of(kernel.cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_the_last_pairs_in_two_where_half_of_the_clusters_would_have_none() {
        let up_proj = Share { clusters: 66, rounds: 20, extra: 48, halved: true };
        assert_eq!(Share::new(1344, 66), up_proj);
        assert_eq!(Share::new(16, 66), Share { clusters: 32, rounds: 0, extra: 32, halved: true });
    }

    #[test]
    fn keeps_pairs_whole_where_halves_would_take_two_rounds() {
        let down_proj = Share { clusters: 66, rounds: 3, extra: 58, halved: false };
        assert_eq!(Share::new(256, 66), down_proj);
        assert_eq!(Share::new(132, 66), Share { clusters: 66, rounds: 2, extra: 0, halved: false });
    }
}
