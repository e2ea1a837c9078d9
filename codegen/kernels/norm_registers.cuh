// Plan kernel `rms_norm` of a few rows without a sum, on Hopper and later: as rms_norm, with the row in registers.
//
// Bound by waiting: 16 rows of 4096 columns are 256 KB.
//
// - A row is a cluster's. A warp has pieces of 128 columns, four a lane. So few threads and registers fit an SM beside the linear
//   that makes the rows, and are there when it ends; so are the weights.
// - Squares of every piece go to every block at once, and count their bytes there: all add them up in the order of norm_row.cuh,
//   whatever the number of blocks. The peaks follow in the same way.
//
// Supports whole pieces a block, and quantized results without rotation.
#pragma once
#include "cluster_peaks.cuh"
#include "emit.cuh"
#include "norm_row.cuh"

#if __CUDA_ARCH__ >= 900

namespace norm_registers {

constexpr u32 WARPS = NORM_PART_WARPS, TURNS = NORM_PART_TURNS, CLUSTER = NORM_PART_CLUSTER;

struct Shared {
  ClusterPeaks<WARPS> peaks;
  u64 summed;
  float squares[CLUSTER * WARPS * TURNS];
};

} // namespace norm_registers

#endif

DEVICE void rms_norm_part(const RmsNormParams &p) {
#if __CUDA_ARCH__ >= 900
  using namespace norm_registers;
  __shared__ Shared shared;
  const Emit &e = p.emit;
  RowPart part(e.n);
  u32 count = part.n / norm_row::PIECE, blocks = cluster_size();
  if (threadIdx.x == 0) {
    barrier_init(&shared.summed, 1);
    barrier_arrive_expect(&shared.summed, blocks * count * sizeof(float));
  }
  shared.peaks.init();
  pdl_launch_dependents();
  float4 v[TURNS], w[TURNS];
  auto column = [&](u32 t) { return (warp_id() + t * WARPS) * norm_row::PIECE + lane_id() * 4; };
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    w[t] = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    if (p.weight && column(t) < part.n) w[t] = *(const float4 *)(p.weight + part.begin + column(t));
  }
  cluster_wait();
  pdl_wait();
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) v[t] = norm_row::load(p.x + part.at(e.n, 0), column(t), part.n);
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    u32 piece = warp_id() + t * WARPS;
    float squares = warp_sum(norm_row::squares(v[t]));
    float *mine = &shared.squares[cluster_rank() * count + piece];
    if (piece < count && lane_id() < blocks) store_remote(lane_id(), mine, __float_as_uint(squares), &shared.summed);
  }
  barrier_wait_cluster(&shared.summed, 0);
  float inverse = norm_row::inverse(norm_row::total(shared.squares, blocks * count), e.n, p.eps), most = 0.0f;
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    v[t] = norm_row::weighted(v[t], inverse, w[t]);
    most = fmaxf(most, largest(v[t]));
  }
  Quantizer quantizer(shared.peaks.exchange(warp_max(most)), e.format == EMIT_U8);
  if (threadIdx.x == 0 && part.begin == 0) e.out_scale[part.row] = quantizer.scale();
#pragma unroll
  for (u32 t = 0; t < TURNS; t++)
    if (column(t) < part.n) *(u32 *)((u8 *)e.out + part.at(e.n_padded, column(t))) = quantizer.pack(v[t]);
#endif
}
