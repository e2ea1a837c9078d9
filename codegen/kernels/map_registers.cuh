// Plan kernel `map`, rotated in blocks of 256 columns or not at all: as map, with the row in registers.
//
// Bound by memory: 2048 rows of 21504 columns read 176 MB and write 44 MB, 51 us at an H200's 4.29 TB/s.
//
// - A warp takes a block of 256, a lane eight consecutive columns of it: 32-byte loads, three steps of the transform in the
//   lane and five across lanes, 8-byte stores.
// - All blocks of a warp are loaded before the first is transformed.
// - Its blocks have so few threads and registers that they fit an SM beside the linear that makes their row, and are there
//   when it ends. Those of a cluster exchange peaks as in cluster_peaks.cuh.
//
// Supports multiples of 8 columns, up to WARPS * TURNS blocks of 256 columns a block of threads.
#pragma once
#include "cluster_peaks.cuh"
#include "emit.cuh"

namespace map_registers {

constexpr u32 BLOCK = 256;

DEVICE void transform(float (&v)[8]) {
  hadamard::butterflies(v);
#pragma unroll
  for (u32 r = 0; r < 8; r++) v[r] *= 1.0f / 16.0f;
}

} // namespace map_registers

template <bool ROTATED, u32 WARPS, u32 TURNS> DEVICE void map_registers_row(const MapParams &p) {
  using namespace map_registers;
  __shared__ ClusterPeaks<WARPS> peaks;
  RowPart part(p.emit.n);
  const Emit &e = p.emit;
  u32 mine = warp_id() * BLOCK + lane_id() * 8;
  constexpr u32 STEP = WARPS * BLOCK;
  if (e.format != EMIT_FLOAT && cluster_size() > 1) peaks.init();
  pdl_launch_dependents();
  pdl_wait();
  const float *x = p.x + part.at(e.n, 0);
  float v[TURNS][8];
#pragma unroll
  for (u32 t = 0; t < TURNS; t++)
    if (mine + t * STEP < part.n) load8<DTYPE_F32>(x, mine + t * STEP, v[t]);
  float peak = 0.0f;
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    if (mine + t * STEP >= part.n) continue;
#pragma unroll
    for (u32 r = 0; r < 8; r++) {
      float positive = fmaxf(v[t][r], 0.0f);
      v[t][r] = p.relu2 ? positive * positive : v[t][r];
    }
    if constexpr (ROTATED) transform(v[t]);
#pragma unroll
    for (u32 r = 0; r < 8; r++) peak = fmaxf(peak, fabsf(v[t][r]));
  }
  if (e.format == EMIT_FLOAT) {
    float *out = (float *)e.out + part.at(e.n, 0);
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
      if (mine + t * STEP >= part.n) continue;
      float4 *to = (float4 *)(out + mine + t * STEP);
      to[0] = make_float4(v[t][0], v[t][1], v[t][2], v[t][3]);
      to[1] = make_float4(v[t][4], v[t][5], v[t][6], v[t][7]);
    }
    return;
  }
  Quantizer quantizer(peaks.most(peak), e.format == EMIT_U8);
  if (threadIdx.x == 0 && part.begin == 0) e.out_scale[part.row] = quantizer.scale();
  u8 *out = (u8 *)e.out + part.at(e.n_padded, 0);
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    if (mine + t * STEP >= part.n) continue;
    *(uint2 *)(out + mine + t * STEP) = quantizer.pack(v[t]);
  }
}
