// Plan kernel `rms_norm` of many rows without a sum: as rms_norm, with the row in registers.
//
// Bound by memory, and by waiting where few rows are under way: 2048 rows of 4096 columns read 34 MB and write 8 MB, 9.4 us at
// 4.45 TB/s.
//
// - A row is a block's. A warp has up to eight pieces of 128 columns, four a lane: so few threads that eight rows are under way on an SM.
// - Weights are read when the row has been summed up: they are in L1, and would take as many registers as the row.
//
// Supports whole pieces, and quantized results without rotation.
#pragma once
#include "emit.cuh"
#include "norm_row.cuh"

template <u32 WARPS, u32 TURNS> DEVICE void rms_norm_rows(const RmsNormParams &p) {
  using namespace norm_row;
  __shared__ float squared[WARPS * TURNS], peaks[WARPS];
  const Emit &e = p.emit;
  u64 row = blockIdx.x;
  auto column = [&](u32 t) { return (warp_id() + t * WARPS) * PIECE + lane_id() * 4; };
  pdl_launch_dependents();
  pdl_wait();
  float4 v[TURNS];
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) v[t] = load(p.x + row * e.n, column(t), e.n);
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    float sum = warp_sum(squares(v[t]));
    if (lane_id() == 0) squared[warp_id() + t * WARPS] = sum;
  }
  __syncthreads();
  float scale = inverse(total(squared, e.n / PIECE), e.n, p.eps), most = 0.0f;
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    float4 weight = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    if (p.weight && column(t) < e.n) weight = *(const float4 *)(p.weight + column(t));
    v[t] = weighted(v[t], scale, weight);
    most = fmaxf(most, largest(v[t]));
  }
  Quantizer quantizer(block_max(most, peaks), e.format == EMIT_U8);
  if (threadIdx.x == 0) e.out_scale[row] = quantizer.scale();
#pragma unroll
  for (u32 t = 0; t < TURNS; t++)
    if (column(t) < e.n) *(u32 *)((u8 *)e.out + row * e.n_padded + column(t)) = quantizer.pack(v[t]);
}
