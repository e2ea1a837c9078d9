//! The scan of many tokens in chunks, on tensor cores.

use super::enqueue::{Queue, is_narrow};
use super::entry::{CHUNKED, Chunked};
use super::kernels::Grid;
use super::params::{SCAN_CHUNK_COLUMNS, SCAN_CHUNK_ROWS, SsmScanParams};
use crate::device::DeviceError;

/// Fewer tokens take less time one by one than a chunk and what comes before it.
const FEWEST_TOKENS: usize = 64;

impl Queue<'_> {
    /// How long the chunks are, or `None` where there are other kernels for it.
    pub(super) fn scan_in_chunks(&self, params: &SsmScanParams) -> Option<Chunked> {
        let room = self.gpu.smem_per_block;
        let narrow = is_narrow(params) == 1;
        let fits = |kernel: &Chunked| kernel.narrow == narrow && kernel.smem_bytes() <= room;
        let kernel = CHUNKED.into_iter().find(fits)?;
        (self.shape.longest >= FEWEST_TOKENS && takes(params)).then_some(kernel)
    }

    pub(super) fn chunked(&self, kernel: Chunked, params: &SsmScanParams) -> Result<(), DeviceError> {
        let params = SsmScanParams { rows: self.shape.rows as u32, ..*params };
        let chunks = self.shape.longest.div_ceil(kernel.tokens as usize);
        let grid = Grid::new(params.groups as usize, chunks, self.shape.sequences);
        self.launch(kernel.prepare, grid.smem(kernel.prepare_smem_bytes() as usize), &params)?;
        let slabs = params.heads * params.head_dim.div_ceil(SCAN_CHUNK_ROWS);
        let grid = Grid::new(slabs as usize, self.shape.sequences, 1);
        self.launch(kernel.entry, grid.smem(kernel.smem_bytes() as usize), &params)
    }
}

/// Whether rows of x, B and C can be copied by 16 bytes, and there are registers for the columns.
fn takes(params: &SsmScanParams) -> bool {
    let whole = params.head_dim.is_multiple_of(4) && params.state_size.is_multiple_of(4);
    whole && params.state_size <= SCAN_CHUNK_COLUMNS
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    fn params(head_dim: u32, state_size: u32) -> SsmScanParams {
        SsmScanParams { head_dim, state_size, ..SsmScanParams::zeroed() }
    }

    #[test]
    fn takes_states_up_to_128_wide() {
        assert!(takes(&params(64, 128)));
        assert!(takes(&params(32, 16)));
        assert!(takes(&params(100, 68)));
    }

    #[test]
    fn leaves_wide_states_and_odd_heads_to_others() {
        assert!(!takes(&params(64, 132)));
        assert!(!takes(&params(30, 128)));
    }

    #[test]
    fn every_gpu_has_room_for_a_chunk() {
        assert!(CHUNKED[0].smem_bytes() <= 232_448 && CHUNKED[0].prepare_smem_bytes() <= 232_448);
        let small = CHUNKED.iter().filter(|kernel| kernel.smem_bytes() <= 101_376);
        assert_eq!(small.map(|kernel| kernel.narrow).collect::<Vec<_>>(), [false, true]);
        assert!(CHUNKED[1].prepare_smem_bytes() <= 101_376);
    }
}
