//! The gated norm of rows: of one block or cluster each, or of many rows in registers.

use super::enqueue::Queue;
use super::entry;
use super::kernels::Grid;
use super::params::{EMIT_U8, GATED_ROWS_GROUPS, GatedNormParams};
use crate::device::DeviceError;
use crate::plan::Rows;

/// Columns that a warp keeps in registers.
const GROUP: u32 = 1024;
/// Most rows that are faster by clusters.
const CLUSTER_ROWS: usize = 32;

impl Queue<'_> {
    pub(super) fn gated_norm(&self, params: &GatedNormParams) -> Result<(), DeviceError> {
        if self.shape.rows > CLUSTER_ROWS && fits_registers(params) {
            return self.launch(entry::GATED_RMS_NORM_1024, Grid::new(self.shape.rows, 1, 1), params);
        }
        self.launch(entry::GATED_RMS_NORM, self.per_row(Rows::Token, &params.emit, params.group_size), params)
    }
}

/// Whether each group is a warp's, and so is each block of the rotation.
fn fits_registers(params: &GatedNormParams) -> bool {
    let emit = &params.emit;
    let whole = emit.n == emit.n_padded && params.group_size == GROUP && emit.n <= GATED_ROWS_GROUPS * GROUP;
    whole && emit.format != EMIT_U8 && matches!(emit.hadamard_block, 0 | 1 | 128 | 256 | 512 | 1024)
}

#[cfg(test)]
mod tests {
    use super::super::params::{EMIT_I8, Emit};
    use super::*;
    use bytemuck::Zeroable;

    fn params(n: u32, group_size: u32, hadamard_block: u32, format: u32) -> GatedNormParams {
        let emit = Emit { n, n_padded: n, hadamard_block, format, ..Emit::zeroed() };
        GatedNormParams { emit, group_size, ..GatedNormParams::zeroed() }
    }

    #[test]
    fn keeps_groups_of_1024_columns_in_registers() {
        assert!(fits_registers(&params(8192, 1024, 1024, EMIT_I8)));
        assert!(fits_registers(&params(1024, 1024, 0, EMIT_I8)));
    }

    #[test]
    fn leaves_other_groups_long_rows_and_other_rotations_to_others() {
        assert!(!fits_registers(&params(8192, 512, 1024, EMIT_I8)));
        assert!(!fits_registers(&params(9216, 1024, 1024, EMIT_I8)));
        assert!(!fits_registers(&params(8192, 1024, 2048, EMIT_I8)));
        assert!(!fits_registers(&params(8192, 1024, 64, EMIT_I8)));
        assert!(!fits_registers(&params(8192, 1024, 1024, EMIT_U8)));
    }
}
