// Plan kernel `gated_rms_norm` of a few rows, on Hopper and later: as gated_rms_norm, with the row in registers.
//
// Bound by waiting: a row is a cluster's, and no block has more than 1024 columns.
//
// - A warp has 256 columns, a lane eight consecutive ones: three steps of a rotation are in the lane and five across lanes.
//   Rotations of 512 and 1024 columns add those of two and four warps, through shared memory, once.
// - The gate is there, and its SiLU computed, before the scan has finished: the kernel ahead starts this one when what is ahead
//   of it has finished.
// - Peaks are exchanged as in cluster_peaks.cuh: nobody waits for what was stored.
//
// Supports parts of whole groups of the norm, which are whole pieces of 256 columns.
#pragma once
#include "cluster_peaks.cuh"
#include "emit.cuh"

#if __CUDA_ARCH__ >= 900

namespace gated_rows {

constexpr u32 WARPS = GATED_ROWS_WARPS, PIECE = 256;

struct Shared {
  ClusterPeaks<WARPS> peaks;
  float squares[WARPS];
  alignas(16) float row[WARPS * PIECE];
};
static_assert(GATED_ROWS_CLUSTER <= ClusterPeaks<WARPS>::MAX_BLOCKS, "a place a peak");

// v * inverse * weight of the group's columns.
DEVICE void normalize(const GatedNormParams &p, Shared &shared, float (&v)[8], const float (&weight)[8]) {
  float squares = 0.0f;
#pragma unroll
  for (u32 r = 0; r < 8; r++) squares = fmaf(v[r], v[r], squares);
  squares = warp_sum(squares);
  if (lane_id() == 0) shared.squares[warp_id()] = squares;
  __syncthreads();
  u32 pieces = p.group_size / PIECE, first = warp_id() / pieces * pieces;
  squares = 0.0f;
  for (u32 i = first; i < min(first + pieces, WARPS); i++) squares += shared.squares[i];
  float inverse = 1.0f / sqrtf(squares / p.group_size + p.eps);
#pragma unroll
  for (u32 r = 0; r < 8; r++) v[r] = v[r] * inverse * weight[r];
}

// What the warp has of a wider rotation: sums and differences of the columns of two or four warps.
DEVICE void exchange(Shared &shared, float (&v)[8], u32 mine, u32 block) {
  float4 *to = (float4 *)(shared.row + mine);
  to[0] = make_float4(v[0], v[1], v[2], v[3]);
  to[1] = make_float4(v[4], v[5], v[6], v[7]);
  __syncthreads();
  u32 warps = block / PIECE, low = mine % PIECE + warp_id() / warps * warps * PIECE;
  // Pairs of warps first, then pairs of pairs.
  float sums[8], others[8];
  auto pair = [&](u32 warp, float(&out)[8]) {
    float first[8], second[8], sign = warp_id() & 1 ? -1.0f : 1.0f;
    load8<DTYPE_F32>(shared.row, low + warp * PIECE, first);
    load8<DTYPE_F32>(shared.row, low + (warp + 1) * PIECE, second);
#pragma unroll
    for (u32 r = 0; r < 8; r++) out[r] = fmaf(sign, second[r], first[r]);
  };
  pair(0, sums);
  if (warps == 4) {
    pair(2, others);
    float sign = warp_id() & 2 ? -1.0f : 1.0f;
#pragma unroll
    for (u32 r = 0; r < 8; r++) sums[r] = fmaf(sign, others[r], sums[r]);
  }
#pragma unroll
  for (u32 r = 0; r < 8; r++) v[r] = sums[r];
}

DEVICE void rotate(Shared &shared, float (&v)[8], u32 mine, u32 block) {
  if (block <= 1) return;
  hadamard::butterflies<8>(v);
  if (block > PIECE) exchange(shared, v, mine, block);
  float norm = 1.0f / sqrtf((float)block);
#pragma unroll
  for (u32 r = 0; r < 8; r++) v[r] *= norm;
}

} // namespace gated_rows

#endif

DEVICE void gated_norm_rows(const GatedNormParams &p) {
#if __CUDA_ARCH__ >= 900
  using namespace gated_rows;
  __shared__ Shared shared;
  const Emit &e = p.emit;
  RowPart part(e.n);
  u32 mine = warp_id() * PIECE + lane_id() * 8;
  bool there = mine < part.n;
  pdl_launch_dependents();
  shared.peaks.init();
  float v[8] = {}, gate[8] = {}, weight[8] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
  if (there) {
    if (p.weight) load8<DTYPE_F32>(p.weight, part.begin + mine, weight);
    load8<DTYPE_F32>(p.z, part.at(e.n, mine), gate);
  }
#pragma unroll
  for (u32 r = 0; r < 8; r++) gate[r] = silu(gate[r]);
  pdl_wait();
  if (there) load8<DTYPE_F32>(p.x, part.at(e.n, mine), v);
#pragma unroll
  for (u32 r = 0; r < 8; r++) v[r] *= gate[r];
  normalize(p, shared, v, weight);
  rotate(shared, v, mine, e.hadamard_block);
  float peak = 0.0f;
#pragma unroll
  for (u32 r = 0; r < 8; r++) peak = fmaxf(peak, fabsf(v[r]));
  Quantizer quantizer(shared.peaks.most_of_cluster(peak), e.format == EMIT_U8);
  if (threadIdx.x == 0 && part.begin == 0) e.out_scale[part.row] = quantizer.scale();
  if (there) *(uint2 *)((u8 *)e.out + part.at(e.n, mine)) = quantizer.pack(v);
#endif
}
