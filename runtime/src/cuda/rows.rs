//! Kernels that make rows of rows: norms, activations, quantization.

use super::enqueue::Queue;
use super::entry::{self, Entry};
use super::kernels::Grid;
use super::params::{
    EMIT_FLOAT, Emit, MAP_PART_WARPS, MAP_ROW_TURNS, MAP_ROW_WARPS, MAP_SHORT_TURNS, MAP_SHORT_WARPS, MapParams,
    NORM_PART_TURNS, NORM_PART_WARPS, NORM_ROW_TURNS, NORM_ROW_WARPS, RmsNormParams,
};
use super::program::RowCount;
use crate::device::DeviceError;
use crate::plan::Rows;

/// Most rows that are shared by clusters; more rows fill the GPU by themselves.
const CLUSTER_ROWS: usize = 64;
/// Columns of a row that a warp of a norm adds up.
const NORM_PIECE: u32 = 128;
/// Columns of a row that a warp of a map takes at a time.
const MAP_PIECE: u32 = 256;

impl Queue<'_> {
    /// A row is one block's, or that of a cluster of blocks where a row is long and there are few: each keeps its part in
    /// shared memory. Parts hold whole groups of columns.
    pub(super) fn per_row(&self, rows: Rows, emit: &Emit, group: u32) -> Grid {
        let count = self.row_count(rows);
        let cluster = if count > CLUSTER_ROWS { 1 } else { self.cluster(emit, group) };
        Grid::new(count * cluster, 1, 1).smem(emit.n as usize * 4 / cluster).clusters(cluster)
    }

    fn cluster(&self, emit: &Emit, group: u32) -> usize {
        let fits = |blocks: &u32| {
            let part = emit.n / blocks;
            let whole = |size: u32| part.is_multiple_of(size.max(1)) && emit.n.is_multiple_of(*blocks);
            part >= 512 && emit.n == emit.n_padded && whole(4) && whole(emit.hadamard_block) && whole(group)
        };
        let found = [8, 4, 2].into_iter().find(fits);
        if self.kernels.hopper { found.unwrap_or(1) as usize } else { 1 }
    }

    /// `taken`: the linear behind it can do it as well, and adds in the order of one block.
    pub(super) fn rms_norm(&self, params: &RmsNormParams, count: RowCount, taken: bool) -> Result<(), DeviceError> {
        let rows = self.row_count(count.rows);
        if let Some(entry) = norm_of_many(params).filter(|_| rows > CLUSTER_ROWS) {
            return self.launch(entry, Grid::new(rows, 1, 1), params);
        }
        let alone = taken && rows == 1;
        let grid = self.per_row(count.rows, &params.emit, if alone { params.emit.n } else { 1 });
        if fits_registers(params, grid.cluster) {
            return self.launch(entry::RMS_NORM_PART, grid.smem(0), params);
        }
        self.launch(entry::RMS_NORM, grid, params)
    }

    pub(super) fn map(&self, params: &MapParams, rows: Rows) -> Result<(), DeviceError> {
        let count = self.row_count(rows);
        match map_in_registers(&params.emit, count, self.kernels.hopper) {
            Some((entry, cluster)) => self.launch(entry, Grid::new(count * cluster, 1, 1).clusters(cluster), params),
            None => self.launch(entry::MAP, self.per_row(rows, &params.emit, 1), params),
        }
    }
}

/// The kernel that keeps a row of a map in registers, and its blocks a row: where rows are few and clusters there, as many as give
/// each warp one piece; else as few as have room for the row.
fn map_in_registers(emit: &Emit, rows: usize, clusters: bool) -> Option<(Entry, usize)> {
    let &Emit { n, n_padded, hadamard_block, .. } = emit;
    let (part, short, whole) = match hadamard_block {
        0 | 1 => (entry::MAP_PART_PLAIN, entry::MAP_SHORT_PLAIN, entry::MAP_PLAIN),
        MAP_PIECE => (entry::MAP_PART_ROTATED, entry::MAP_SHORT_ROTATED, entry::MAP_ROTATED),
        _ => return None,
    };
    if n != n_padded || !n.is_multiple_of(8) {
        return None;
    }
    let pieces = n.div_ceil(MAP_PIECE);
    let few = clusters && rows <= CLUSTER_ROWS;
    let fewest = |most: u32, pieces_of_block: u32| {
        [1, 2, 4, 8].into_iter().filter(|blocks| *blocks <= most).find(|blocks| pieces <= blocks * pieces_of_block)
    };
    let of_parts = fewest(if few { 8 } else { 1 }, MAP_PART_WARPS).map(|blocks| (part, blocks));
    let of_short = (rows > CLUSTER_ROWS && pieces <= MAP_SHORT_WARPS * MAP_SHORT_TURNS).then_some((short, 1));
    let of_rows = fewest(if clusters { 8 } else { 1 }, MAP_ROW_WARPS * MAP_ROW_TURNS)
        .map(|blocks| (whole, if few { 8 } else { blocks }));
    of_parts.or(of_short).or(of_rows).map(|(entry, blocks)| (entry, blocks as usize))
}

/// A norm that keeps rows in registers quantizes them, and neither adds nor rotates.
fn is_plain(norm: &RmsNormParams) -> bool {
    let Emit { n, n_padded, hadamard_block, format, .. } = norm.emit;
    norm.delta == 0 && hadamard_block <= 1 && format != EMIT_FLOAT && n == n_padded
}

/// Whether the blocks of a cluster keep a row of a norm in registers, each whole pieces of it.
fn fits_registers(norm: &RmsNormParams, cluster: u32) -> bool {
    let part = norm.emit.n / cluster;
    let whole = part.is_multiple_of(NORM_PIECE) && part <= NORM_PART_WARPS * NORM_PART_TURNS * NORM_PIECE;
    cluster > 1 && is_plain(norm) && whole
}

/// The norm of many rows that a block keeps in registers.
fn norm_of_many(norm: &RmsNormParams) -> Option<Entry> {
    const COLUMNS: u32 = NORM_ROW_WARPS * NORM_ROW_TURNS * NORM_PIECE;
    let whole = is_plain(norm) && norm.emit.n.is_multiple_of(NORM_PIECE);
    match norm.emit.n {
        _ if !whole => None,
        ..=COLUMNS => Some(entry::RMS_NORM_ROWS),
        n if n <= 2 * COLUMNS => Some(entry::RMS_NORM_ROWS_WIDE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::params::EMIT_I8;
    use super::*;
    use bytemuck::Zeroable;

    fn norm(n: u32, format: u32) -> RmsNormParams {
        RmsNormParams { emit: Emit { n, n_padded: n, format, ..Emit::zeroed() }, ..RmsNormParams::zeroed() }
    }

    #[test]
    fn keeps_parts_of_rows_in_registers() {
        assert!(fits_registers(&norm(4096, EMIT_I8), 8));
        assert!(fits_registers(&norm(8192, EMIT_I8), 8));
        assert!(fits_registers(&norm(1536, EMIT_I8), 2));
    }

    #[test]
    fn leaves_long_parts_whole_rows_sums_rotations_and_floats_to_shared_memory() {
        assert!(!fits_registers(&norm(16_384, EMIT_I8), 8));
        assert!(!fits_registers(&norm(1088, EMIT_I8), 2));
        assert!(!fits_registers(&norm(1024, EMIT_I8), 1));
        assert!(!fits_registers(&norm(4096, EMIT_FLOAT), 8));
        assert!(!fits_registers(&RmsNormParams { delta: 256, ..norm(4096, EMIT_I8) }, 8));
        let mut rotated = norm(4096, EMIT_I8);
        rotated.emit.hadamard_block = 256;
        assert!(!fits_registers(&rotated, 8));
    }

    #[test]
    fn keeps_many_rows_of_whole_pieces_in_registers() {
        let of = |n, format| norm_of_many(&norm(n, format));
        assert_eq!(of(512, EMIT_I8), Some(entry::RMS_NORM_ROWS));
        assert_eq!(of(4096, EMIT_I8), Some(entry::RMS_NORM_ROWS));
        assert_eq!(of(8192, EMIT_I8), Some(entry::RMS_NORM_ROWS_WIDE));
        assert_eq!([of(8320, EMIT_I8), of(4160, EMIT_I8), of(4096, EMIT_FLOAT)], [None; 3]);
    }

    fn map(n: u32, hadamard_block: u32) -> Emit {
        Emit { n, n_padded: n, hadamard_block, format: EMIT_I8, ..Emit::zeroed() }
    }

    #[test]
    fn gives_each_warp_a_piece_of_a_row_where_a_cluster_has_enough() {
        assert_eq!(map_in_registers(&map(21_504, 256), 64, true), Some((entry::MAP_PART_ROTATED, 8)));
        assert_eq!(map_in_registers(&map(12_288, 0), 1, true), Some((entry::MAP_PART_PLAIN, 4)));
        assert_eq!(map_in_registers(&map(328, 0), 1, true), Some((entry::MAP_PART_PLAIN, 1)));
        assert_eq!(map_in_registers(&map(32_768, 256), 1, true), Some((entry::MAP_ROTATED, 8)));
    }

    #[test]
    fn gives_a_row_to_as_few_blocks_as_have_room_where_rows_are_many() {
        assert_eq!(map_in_registers(&map(3072, 256), 65, true), Some((entry::MAP_PART_ROTATED, 1)));
        assert_eq!(map_in_registers(&map(21_504, 256), 65, true), Some((entry::MAP_ROTATED, 1)));
        assert_eq!(map_in_registers(&map(32_768, 0), 65, true), Some((entry::MAP_PLAIN, 2)));
    }

    #[test]
    fn gives_a_row_to_one_block_where_there_are_no_clusters() {
        assert_eq!(map_in_registers(&map(21_504, 256), 1, false), Some((entry::MAP_ROTATED, 1)));
        assert_eq!(map_in_registers(&map(32_768, 0), 1, false), None);
    }

    #[test]
    fn gives_many_short_rows_to_small_blocks() {
        assert_eq!(map_in_registers(&map(4096, 0), 65, true), Some((entry::MAP_SHORT_PLAIN, 1)));
        assert_eq!(map_in_registers(&map(4096, 256), 2048, false), Some((entry::MAP_SHORT_ROTATED, 1)));
        assert_eq!(map_in_registers(&map(4096, 0), 64, false), Some((entry::MAP_PLAIN, 1)));
        assert_eq!(map_in_registers(&map(4352, 0), 65, true), Some((entry::MAP_PLAIN, 1)));
    }

    #[test]
    fn leaves_padded_rows_and_other_rotations_of_a_map_to_shared_memory() {
        assert_eq!(map_in_registers(&Emit { n_padded: 336, ..map(328, 0) }, 1, true), None);
        assert_eq!(map_in_registers(&map(324, 0), 1, true), None);
        assert_eq!(map_in_registers(&map(21_504, 1024), 1, true), None);
    }
}
