// Plan kernel `linear` for float weights with f32 activations and many rows: tiles of float_tile.cuh.
//
// Bound by f32 multiply-adds: 2 rows k n operations, 67 TFLOP/s on an H200. Calibration runs the float model with it.
#pragma once
#include "epilogue.cuh"
#include "float_tile.cuh"

// A launch covers one segment: p.segments[0]. Tiles of tokens are next to each other: they share weights.
template <u32 DTYPE> DEVICE void linear_float(const LinearParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  const LinearSegment &s = p.segments[0];
  u32 token0 = blockIdx.x * FLOAT_TILE, row0 = blockIdx.y * FLOAT_TILE;
  float_tile::Along<DTYPE_F32> x = {(const float *)p.x, p.k_padded, p.k, token0, p.rows};
  float_tile::Along<DTYPE> weight = {(const typename Element<DTYPE>::Type *)s.weight, p.k, p.k, row0, s.out_features};
  float_tile::multiply(x, weight, p.k, [&](u32 i, u32 j, float sum) {
    u32 token = token0 + i, row = row0 + j;
    if (token < p.rows && row < s.out_features) store_float(s, (u64)token * s.out_features + row, sum);
  });
}
