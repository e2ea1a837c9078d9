// Plan kernel `rms_norm` of many rows without a sum: as rms_norm, with the row in registers.
//
// Bound by memory, and by waiting where few rows are under way: 2048 rows of 4096 columns read 34 MB and write 8 MB, 9.4 us at
// 4.45 TB/s.
//
// - A row is a block's, of so few threads that eight are under way on an SM.
// - Weights are read when the row has been summed up: they are in L1, and would take as many registers as the row.
//
// Supports whole pieces of 128 columns, and quantized results without rotation.
#pragma once
#include "norm_row.cuh"
#include "row_registers.cuh"

template <u32 WARPS, u32 TURNS> DEVICE void rms_norm_rows(const RmsNormParams &p) {
  using namespace norm_row;
  __shared__ float squared[WARPS * TURNS];
  RowRegisters<WARPS, TURNS> row;
  const Emit &e = p.emit;
  pdl_launch_dependents();
  pdl_wait();
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) row.v[t] = load(p.x + (u64)blockIdx.x * e.n, row.column(t), e.n);
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    float sum = warp_sum(squares(row.v[t]));
    if (lane_id() == 0) squared[warp_id() + t * WARPS] = sum;
  }
  __syncthreads();
  float scale = inverse(total(squared, e.n / PIECE), e.n, p.eps);
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    float4 weight = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    if (p.weight && row.column(t) < e.n) weight = *(const float4 *)(p.weight + row.column(t));
    row.v[t] = weighted(row.v[t], scale, weight);
  }
  row.quantize(e, blockIdx.x);
}
