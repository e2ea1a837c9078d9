//! How the copy engine of Hopper finds tiles of a matrix.

use super::driver::failed;
use super::entry::WARPGROUP_STAGE_K;
use super::params::{EPILOGUE_ACCUMULATOR, LinearParams, LinearSegment, TensorMap};
use crate::device::DeviceError;
use cudarc::driver::sys::{
    self, CUtensorMapDataType, CUtensorMapDataType_enum::*, CUtensorMapL2promotion, CUtensorMapL2promotion_enum::*,
};
use std::ffi::c_void;

/// What L2 brings from memory of a row of a tile: its 128 bytes.
pub(super) const ONE_LINE: CUtensorMapL2promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
/// Or those of the next tile, too.
pub(super) const TWO_LINES: CUtensorMapL2promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_256B;

/// How the copy engine finds the weights of each segment of a linear, in tiles of `tile_rows` rows.
pub(super) fn map_weights(
    maps: &mut [TensorMap],
    linear: &LinearParams,
    tile_rows: u32,
    promotion: CUtensorMapL2promotion,
) -> Result<(), DeviceError> {
    for (map, segment) in maps.iter_mut().zip(linear.segments()) {
        *map = tensor_map(segment.weight, segment.row_bytes, segment.out_features, tile_rows, promotion)?;
    }
    Ok(())
}

/// How the copy engine stores the results of each segment; a bit for each whose results it can store.
pub(super) fn map_results(maps: &mut [TensorMap], linear: &LinearParams) -> Result<u32, DeviceError> {
    let mut stored = 0;
    for (index, (map, segment)) in maps.iter_mut().zip(linear.segments()).enumerate() {
        if let Some(found) = result_map(segment, linear.rows)? {
            (*map, stored) = (found, stored | 1 << index);
        }
    }
    Ok(stored)
}

/// How the copy engine finds tiles of 128 bytes by `tile_rows` of a matrix of `rows` rows of `row_bytes` bytes; what is
/// beyond it reads as zeros. Tiles are swizzled by 128 bytes.
pub(super) fn tensor_map(
    address: u64,
    row_bytes: u32,
    rows: u32,
    tile_rows: u32,
    promotion: CUtensorMapL2promotion,
) -> Result<TensorMap, DeviceError> {
    let matrix = Matrix { address, kind: CU_TENSOR_MAP_DATA_TYPE_UINT8, columns: row_bytes, row_bytes, rows };
    matrix.encode([WARPGROUP_STAGE_K, tile_rows], promotion)
}

/// The same, `tiles` that are neighbors in k at a time: rows are whole tiles.
pub(super) fn neighbors_map(
    address: u64,
    row_bytes: u32,
    rows: u32,
    tile_rows: u32,
    tiles: u32,
) -> Result<TensorMap, DeviceError> {
    let sizes = [WARPGROUP_STAGE_K, rows, row_bytes / WARPGROUP_STAGE_K].map(u64::from);
    let strides = [row_bytes, WARPGROUP_STAGE_K].map(u64::from);
    encode(address, CU_TENSOR_MAP_DATA_TYPE_UINT8, sizes, &strides, [WARPGROUP_STAGE_K, tile_rows, tiles], TWO_LINES)
}

/// Rows of a box of results.
const RESULT_ROWS: u32 = 32;

/// How the copy engine stores boxes of 32 by 32 results of a linear, i32 or f32, swizzled by 128 bytes; `None` where it cannot,
/// as rows do not start at multiples of 16 bytes.
fn result_map(segment: &LinearSegment, rows: u32) -> Result<Option<TensorMap>, DeviceError> {
    let row_bytes = segment.out_features * 4;
    if !row_bytes.is_multiple_of(16) || !segment.out.is_multiple_of(16) {
        return Ok(None);
    }
    let integers = segment.epilogue == EPILOGUE_ACCUMULATOR;
    let kind = if integers { CU_TENSOR_MAP_DATA_TYPE_INT32 } else { CU_TENSOR_MAP_DATA_TYPE_FLOAT32 };
    let matrix = Matrix { address: segment.out, kind, columns: segment.out_features, row_bytes, rows };
    matrix.encode([WARPGROUP_STAGE_K / 4, RESULT_ROWS], CU_TENSOR_MAP_L2_PROMOTION_NONE).map(Some)
}

/// A matrix in the GPU's memory.
struct Matrix {
    address: u64,
    kind: CUtensorMapDataType,
    columns: u32,
    row_bytes: u32,
    rows: u32,
}

impl Matrix {
    fn encode(&self, tile: [u32; 2], promotion: CUtensorMapL2promotion) -> Result<TensorMap, DeviceError> {
        let sizes = [u64::from(self.columns), u64::from(self.rows)];
        encode(self.address, self.kind, sizes, &[u64::from(self.row_bytes)], tile, promotion)
    }
}

/// Of `RANK` dimensions, with the bytes from one to the next of all but the first.
fn encode<const RANK: usize>(
    address: u64,
    kind: CUtensorMapDataType,
    sizes: [u64; RANK],
    strides: &[u64],
    tile: [u32; RANK],
    promotion: CUtensorMapL2promotion,
) -> Result<TensorMap, DeviceError> {
    debug_assert_eq!(strides.len() + 1, RANK);
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    let steps = [1; RANK];
    // SAFETY: every pointer is to an array of the rank's length, that of strides to one less, which the driver reads during the
    // call; the address is of memory of this size.
    let encoded = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            kind,
            RANK as u32,
            address as *mut c_void,
            sizes.as_ptr(),
            strides.as_ptr(),
            tile.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
            promotion,
            sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    encoded.result().map_err(failed("cuTensorMapEncodeTiled"))?;
    Ok(TensorMap { opaque: map.opaque })
}
