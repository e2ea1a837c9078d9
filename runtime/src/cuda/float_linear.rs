//! Linears that no integer tensor cores take: of float weights, and of small groups.

use super::enqueue::Queue;
use super::entry;
use super::kernels::Grid;
use super::params::{FLOAT_TILE, FORMAT_BF16, FORMAT_F16, LinearParams};
use crate::device::DeviceError;

/// More rows of x than this go to the tiles of the product of floats.
const SCALAR_ROWS: u32 = 64;

impl Queue<'_> {
    /// One segment, any number of rows.
    pub(super) fn scalar(&self, params: &LinearParams) -> Result<(), DeviceError> {
        if params.rows > SCALAR_ROWS && params.segments[0].group_size == 0 {
            return self.float(params);
        }
        let (entry, tokens) = if params.rows == 1 { (entry::SCALAR_1, 1) } else { (entry::SCALAR_8, 8) };
        let blocks = params.segments[0].out_features.div_ceil(entry.threads / 32) as usize;
        self.launch(entry, Grid::new(blocks, params.rows.div_ceil(tokens) as usize, 1), params)
    }

    /// Float weights and many rows.
    pub(super) fn float(&self, params: &LinearParams) -> Result<(), DeviceError> {
        let segment = &params.segments[0];
        let entry = match segment.format {
            FORMAT_F16 => entry::FLOAT_F16,
            FORMAT_BF16 => entry::FLOAT_BF16,
            _ => entry::FLOAT_F32,
        };
        let tiles = |count: u32| count.div_ceil(FLOAT_TILE) as usize;
        self.launch(entry, Grid::new(tiles(params.rows), tiles(segment.out_features), 1), params)
    }
}
