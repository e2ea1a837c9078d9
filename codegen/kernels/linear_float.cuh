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
  float_tile::Sums sum = {};
  float_tile::multiply(x, weight, p.k, sum);
#pragma unroll
  for (u32 i = 0; i < 8; i++)
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
      u32 token = token0 + float_tile::row_of(i), row = row0 + float_tile::column_of(j);
      if (token < p.rows && row < s.out_features) store_float(s, (u64)token * s.out_features + row, sum[i][j]);
    }
}
