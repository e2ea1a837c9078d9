//! The scan of one token of each of several sequences, whose states are copied into a ring.

use super::enqueue::{Queue, is_narrow};
use super::entry::{self, scan_many_smem_bytes};
use super::kernels::Grid;
use super::params::{SCAN_MANY_ROWS, SsmScanParams};

/// Fewer sequences have too few states to need more of them in flight.
const FEWEST_SEQUENCES: usize = 4;
/// Its barriers, and what the driver keeps of a block's shared memory.
const FIXED_BYTES: u32 = 2048;

impl Queue<'_> {
    /// Grid and arguments, or `None` where there are other kernels for it.
    pub(super) fn scan_of_many(&self, params: &SsmScanParams) -> Option<(Grid, SsmScanParams)> {
        let sequences = self.shape.sequences;
        let many = self.shape.is_decode() && sequences >= FEWEST_SEQUENCES;
        let smem = scan_many_smem_bytes(params.state_size);
        let fits = self.kernels.hopper && smem + FIXED_BYTES <= self.gpu.smem_per_block;
        if !many || !takes(params) || !fits {
            return None;
        }
        let params = SsmScanParams { sequences: sequences as u32, ..*params };
        let pieces = params.sequences * params.heads * (params.head_dim / SCAN_MANY_ROWS);
        let resident = (self.gpu.smem_per_sm / (smem + FIXED_BYTES)).clamp(1, entry::SCAN_MANY_128.blocks_per_sm);
        let blocks = pieces.min(resident * self.gpu.sm_count);
        Some((Grid::new(blocks as usize, 1, 1).smem(smem as usize), params))
    }
}

/// Whether states are f32, of a width that the kernel has registers for, and heads whole pieces.
fn takes(params: &SsmScanParams) -> bool {
    let whole = params.head_dim.is_multiple_of(SCAN_MANY_ROWS) && params.state_size.is_multiple_of(4);
    whole && (65..=128).contains(&params.state_size) && is_narrow(params) == 0
}

#[cfg(test)]
mod tests {
    use super::super::params::{DTYPE_F16, DTYPE_F32};
    use super::*;
    use bytemuck::Zeroable;

    fn params(head_dim: u32, state_size: u32, state_dtype: u32) -> SsmScanParams {
        SsmScanParams { head_dim, state_size, state_dtype, ..SsmScanParams::zeroed() }
    }

    #[test]
    fn takes_wide_f32_states_of_whole_pieces() {
        assert!(takes(&params(64, 128, DTYPE_F32)));
        assert!(takes(&params(32, 68, DTYPE_F32)));
    }

    #[test]
    fn leaves_narrow_small_large_and_odd_states_to_others() {
        assert!(!takes(&params(64, 128, DTYPE_F16)));
        assert!(!takes(&params(64, 64, DTYPE_F32)));
        assert!(!takes(&params(64, 132, DTYPE_F32)));
        assert!(!takes(&params(40, 128, DTYPE_F32)));
    }
}
