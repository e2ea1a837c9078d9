//! How the copy engine of Hopper finds tiles of a matrix.

use super::driver::failed;
use super::entry::WARPGROUP_STAGE_K;
use super::params::{LinearParams, TensorMap};
use crate::device::DeviceError;
use cudarc::driver::sys;
use std::ffi::c_void;

/// How the copy engine finds the weights of each segment of a linear, in tiles of `tile_rows` rows.
pub(super) fn map_weights(maps: &mut [TensorMap], linear: &LinearParams, tile_rows: u32) -> Result<(), DeviceError> {
    for (map, segment) in maps.iter_mut().zip(linear.segments()) {
        *map = tensor_map(segment.weight, segment.row_bytes, segment.out_features, tile_rows)?;
    }
    Ok(())
}

/// How the copy engine finds tiles of 128 bytes by `tile_rows` of a matrix of `rows` rows of `row_bytes` bytes; what is
/// beyond it reads as zeros. Tiles are swizzled by 128 bytes.
pub(super) fn tensor_map(address: u64, row_bytes: u32, rows: u32, tile_rows: u32) -> Result<TensorMap, DeviceError> {
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    let (sizes, strides) = ([u64::from(row_bytes), u64::from(rows)], [u64::from(row_bytes)]);
    let (tile, steps) = ([WARPGROUP_STAGE_K, tile_rows], [1, 1]);
    // SAFETY: every pointer is to an array of the rank's length, which the driver reads during the call; the address is
    // of memory of this size.
    let encoded = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            2,
            address as *mut c_void,
            sizes.as_ptr(),
            strides.as_ptr(),
            tile.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    encoded.result().map_err(failed("cuTensorMapEncodeTiled"))?;
    Ok(TensorMap { opaque: map.opaque })
}
