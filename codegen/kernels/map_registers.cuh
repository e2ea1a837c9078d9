// Plan kernel `map`, rotated in blocks of 256 columns or not at all: as map, with the row in registers.
//
// Bound by memory: 2048 rows of 21504 columns read 176 MB and write 44 MB, 51 us at an H200's 4.29 TB/s.
//
// - A warp takes a block of 256, a lane eight consecutive columns of it: 32-byte loads, three steps of the transform in the
//   lane and five across lanes, 8-byte stores.
// - All blocks of a warp are loaded before the first is transformed. Two blocks of threads fit an SM, or eight of short rows: some
//   compute while others load. Of few rows a warp has one block, so that there is little code: it has left the caches of
//   instructions since the layer before.
// - Such a kernel has so few registers that it fits an SM beside the linear that makes its row, and is there
//   when that ends. Blocks of a cluster exchange peaks as in cluster_peaks.cuh.
//
// Supports multiples of 8 columns, up to WARPS * TURNS blocks of 256 columns a block of threads. Blocks of a cluster take turns at
// them, so that parts need not be equal.
#pragma once
#include "cluster_peaks.cuh"
#include "emit.cuh"

namespace map_registers {

constexpr u32 BLOCK = 256;

// ptxas for sm_100a would keep the addresses of all blocks of a warp, for which there are no registers: they are computed again.
DEVICE void forget_addresses(u32 &first) {
#if __CUDA_ARCH__ >= 1000 && __CUDA_ARCH__ < 1200
  asm volatile("" : "+r"(first));
#endif
}

DEVICE void transform(float (&v)[8]) {
  hadamard::butterflies(v);
#pragma unroll
  for (u32 r = 0; r < 8; r++) v[r] *= 1.0f / 16.0f;
}

} // namespace map_registers

template <bool ROTATED, u32 WARPS, u32 TURNS> DEVICE void map_registers_row(const MapParams &p) {
  using namespace map_registers;
  __shared__ ClusterPeaks<WARPS> peaks;
  const Emit &e = p.emit;
  u32 size = cluster_size(), row = blockIdx.x / size;
  u32 mine = (warp_id() * size + cluster_rank()) * BLOCK + lane_id() * 8, step = WARPS * size * BLOCK;
  if (e.format != EMIT_FLOAT && size > 1) peaks.init();
  pdl_launch_dependents();
  pdl_wait();
  const float *x = p.x + (u64)row * e.n;
  float v[TURNS][8];
#pragma unroll
  for (u32 t = 0; t < TURNS; t++)
    if (mine + t * step < e.n) load8<DTYPE_F32>(x, mine + t * step, v[t]);
  forget_addresses(mine);
  float peak = 0.0f;
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    if (mine + t * step >= e.n) continue;
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
    float *out = (float *)e.out + (u64)row * e.n;
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
      if (mine + t * step >= e.n) continue;
      float4 *to = (float4 *)(out + mine + t * step);
      to[0] = make_float4(v[t][0], v[t][1], v[t][2], v[t][3]);
      to[1] = make_float4(v[t][4], v[t][5], v[t][6], v[t][7]);
    }
    return;
  }
  forget_addresses(mine);
  Quantizer quantizer(peaks.most(peak), e.format == EMIT_U8);
  if (threadIdx.x == 0 && cluster_rank() == 0) e.out_scale[row] = quantizer.scale();
  u8 *out = (u8 *)e.out + (u64)row * e.n_padded;
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    if (mine + t * step >= e.n) continue;
    *(uint2 *)(out + mine + t * step) = quantizer.pack(v[t]);
  }
}
