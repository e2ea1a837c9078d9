//! The mixer of one token of each of several sequences, whose scan states are copied into a ring.

use super::enqueue::Queue;
use super::entry::{self, MANY_SCANS, ManyScan};
use super::kernels::Grid;
use super::params::{
    Conv1dParams, EMIT_FLOAT, Emit, GATED_ROWS_CLUSTER, GATED_ROWS_WARPS, GatedNormParams, SCAN_MANY_ROWS,
    SsmScanParams,
};
use super::program::MixerOp;
use crate::device::DeviceError;

/// Fewer sequences have too few states to need more of them in flight.
const FEWEST_SEQUENCES: usize = 4;
/// The scan's barriers, and what the driver keeps of a block's shared memory.
const FIXED_BYTES: u32 = 2048;
/// Columns of a warp of the gated norm.
const NORM_PIECE: u32 = 256;

impl Queue<'_> {
    /// Convolution, scan, norm, if this is a step of several sequences and their states go through a ring; else nothing, and
    /// false. The norm behind another scan could not read its gate before that has finished.
    pub(super) fn mixer_of_many(&self, mixer: &MixerOp) -> Result<bool, DeviceError> {
        if self.many_scan(&mixer.scan).is_none() {
            return Ok(false);
        }
        if in_fours(&mixer.conv) {
            self.conv1d_step(&mixer.conv)?;
        } else {
            self.conv1d(&mixer.conv)?;
        }
        self.scan_of_many(&mixer.scan)?;
        match norm_cluster(&mixer.norm) {
            Some(cluster) => {
                let blocks = self.shape.rows * cluster as usize;
                let grid = Grid::new(blocks, 1, 1).clusters(cluster as usize);
                self.launch(entry::GATED_NORM_ROWS, grid, &mixer.norm)?;
            }
            None => self.gated_norm(&mixer.norm)?,
        }
        Ok(true)
    }

    /// The scan alone, likewise.
    pub(super) fn scan_of_many(&self, params: &SsmScanParams) -> Result<bool, DeviceError> {
        let Some(kernel) = self.many_scan(params) else { return Ok(false) };
        let params = SsmScanParams { sequences: self.shape.sequences as u32, ..*params };
        let smem = kernel.smem_bytes(params.state_size);
        let pieces = params.sequences * params.heads * (params.head_dim / SCAN_MANY_ROWS);
        let resident = (self.gpu.smem_per_sm / (smem + FIXED_BYTES)).clamp(1, kernel.entry.blocks_per_sm);
        let blocks = pieces.min(resident * self.gpu.sm_count);
        self.launch(kernel.entry, Grid::new(blocks as usize, 1, 1).smem(smem as usize), &params)?;
        Ok(true)
    }

    fn many_scan(&self, scan: &SsmScanParams) -> Option<ManyScan> {
        let many = self.shape.is_decode() && self.shape.sequences >= FEWEST_SEQUENCES && self.kernels.hopper;
        let fits = |kernel: &ManyScan| kernel.smem_bytes(scan.state_size) + FIXED_BYTES <= self.gpu.smem_per_block;
        many_scan(scan).filter(fits).filter(|_| many)
    }

    fn conv1d_step(&self, params: &Conv1dParams) -> Result<(), DeviceError> {
        let blocks = (params.channels / 4).div_ceil(entry::CONV1D_STEP.threads);
        self.launch(entry::CONV1D_STEP, Grid::new(blocks as usize, self.shape.sequences, 1), params)
    }
}

/// The kernel for states of this type, if it has registers for their width and heads are whole pieces.
fn many_scan(params: &SsmScanParams) -> Option<ManyScan> {
    let whole = params.head_dim.is_multiple_of(SCAN_MANY_ROWS) && params.state_size.is_multiple_of(4);
    let taken = whole && (65..=128).contains(&params.state_size);
    MANY_SCANS.into_iter().find(|kernel| taken && kernel.state_dtype == params.state_dtype)
}

/// Whether a thread can convolve four channels, by vector loads.
fn in_fours(conv: &Conv1dParams) -> bool {
    let aligned = [conv.x, conv.weight, conv.bias, conv.out, conv.state_offset];
    conv.taps == 4 && conv.channels.is_multiple_of(4) && aligned.iter().all(|address| address.is_multiple_of(16))
}

/// Blocks that share a row of the gated norm by registers, each with whole groups and whole blocks of a rotation. A single
/// one is not launched as a cluster, in which alone there are asynchronous stores.
fn norm_cluster(norm: &GatedNormParams) -> Option<u32> {
    let Emit { n, n_padded, hadamard_block, format, .. } = norm.emit;
    let rotation = matches!(hadamard_block, 0 | 1 | 256 | 512 | 1024);
    let fits = |blocks: &u32| {
        let part = n / blocks;
        let whole = |size: u32| part.is_multiple_of(size.max(1));
        n.is_multiple_of(*blocks)
            && part <= GATED_ROWS_WARPS * NORM_PIECE
            && whole(hadamard_block)
            && whole(norm.group_size)
            && norm.group_size.is_multiple_of(NORM_PIECE)
    };
    let found = [2, 4, GATED_ROWS_CLUSTER].into_iter().find(fits);
    found.filter(|_| rotation && format != EMIT_FLOAT && n == n_padded)
}

#[cfg(test)]
mod tests {
    use super::super::params::{DTYPE_BF16, DTYPE_F16, DTYPE_F32, DTYPE_I8, EMIT_I8};
    use super::*;
    use bytemuck::Zeroable;

    fn params(head_dim: u32, state_size: u32, state_dtype: u32) -> SsmScanParams {
        SsmScanParams { head_dim, state_size, state_dtype, ..SsmScanParams::zeroed() }
    }

    fn norm(n: u32, group_size: u32, hadamard_block: u32) -> GatedNormParams {
        let emit = Emit { n, n_padded: n.next_multiple_of(16), hadamard_block, format: EMIT_I8, ..Emit::zeroed() };
        GatedNormParams { emit, group_size, ..GatedNormParams::zeroed() }
    }

    #[test]
    fn takes_wide_states_of_whole_pieces_by_their_type() {
        let entry = |params| many_scan(&params).map(|kernel| kernel.entry);
        assert_eq!(entry(params(64, 128, DTYPE_F32)), Some(entry::SCAN_MANY_128));
        assert_eq!(entry(params(32, 68, DTYPE_F16)), Some(entry::SCAN_MANY_128_F16));
        assert_eq!(entry(params(16, 100, DTYPE_BF16)), Some(entry::SCAN_MANY_128_BF16));
    }

    #[test]
    fn leaves_8_bit_small_large_and_odd_states_to_others() {
        for (head_dim, state_size, dtype) in
            [(64, 128, DTYPE_I8), (64, 64, DTYPE_F32), (64, 132, DTYPE_F16), (40, 128, DTYPE_BF16)]
        {
            assert!(many_scan(&params(head_dim, state_size, dtype)).is_none());
        }
    }

    #[test]
    fn keeps_two_rings_an_sm() {
        assert!(MANY_SCANS.iter().all(|kernel| 2 * (kernel.smem_bytes(128) + FIXED_BYTES) <= 227 * 1024));
    }

    #[test]
    fn shares_rows_of_the_norm_by_whole_groups_and_rotations() {
        assert_eq!(norm_cluster(&norm(8192, 1024, 1024)), Some(8));
        assert_eq!(norm_cluster(&norm(2048, 256, 512)), Some(2));
        assert_eq!(norm_cluster(&norm(768, 256, 0)), None);
    }

    #[test]
    fn leaves_wide_groups_wide_rotations_and_floats_to_the_norm_in_shared_memory() {
        assert_eq!(norm_cluster(&norm(8192, 2048, 1024)), None);
        assert_eq!(norm_cluster(&norm(8192, 1024, 2048)), None);
        assert_eq!(norm_cluster(&norm(16_384, 1024, 1024)), None);
        assert_eq!(norm_cluster(&norm(320, 64, 0)), None);
        let mut floats = norm(8192, 1024, 1024);
        floats.emit.format = EMIT_FLOAT;
        assert_eq!(norm_cluster(&floats), None);
    }

    #[test]
    fn convolves_in_fours_where_four_taps_and_channels_are_together() {
        let conv = Conv1dParams { channels: 10_240, taps: 4, ..Conv1dParams::zeroed() };
        assert!(in_fours(&conv));
        assert!(!in_fours(&Conv1dParams { taps: 3, ..conv }));
        assert!(!in_fours(&Conv1dParams { channels: 322, ..conv }));
        assert!(!in_fours(&Conv1dParams { state_offset: 8, ..conv }));
    }
}
