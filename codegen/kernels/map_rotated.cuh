// Plan kernel `map` with a rotation in blocks of 256 columns: as map, with the row in registers.
//
// Bound by memory: 2048 rows of 21504 columns read 176 MB and write 44 MB, 51 us at an H200's 4.29 TB/s.
//
// - A warp takes a block of 256, a lane eight consecutive columns of it: 32-byte loads, three steps of the transform in the
//   lane and five across lanes, 8-byte stores.
// - All blocks of a warp are loaded before the first is transformed.
//
// Supports up to MAP_ROTATED_TURNS * 16 blocks of 256 columns a block of threads.
#pragma once
#include "emit.cuh"

namespace map_rotated {

constexpr u32 BLOCK = 256;
constexpr u32 TURNS = MAP_ROTATED_TURNS;

DEVICE void transform(float (&v)[8]) {
  hadamard::butterflies(v);
#pragma unroll
  for (u32 r = 0; r < 8; r++) v[r] *= 1.0f / 16.0f;
}

} // namespace map_rotated

DEVICE void map_rotated_256(const MapParams &p) {
  using namespace map_rotated;
  __shared__ float scratch[WARP];
  __shared__ float exchanged;
  RowPart part(p.emit.n);
  const Emit &e = p.emit;
  u32 warps = blockDim.x / WARP, mine = warp_id() * BLOCK + lane_id() * 8, step = warps * BLOCK;
  pdl_launch_dependents();
  pdl_wait();
  const float *x = p.x + part.at(e.n, 0);
  float v[TURNS][8];
#pragma unroll
  for (u32 t = 0; t < TURNS; t++)
    if (mine + t * step < part.n) load8<DTYPE_F32>(x, mine + t * step, v[t]);
  float peak = 0.0f;
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    if (mine + t * step >= part.n) continue;
#pragma unroll
    for (u32 r = 0; r < 8; r++) {
      float positive = fmaxf(v[t][r], 0.0f);
      v[t][r] = p.relu2 ? positive * positive : v[t][r];
    }
    transform(v[t]);
#pragma unroll
    for (u32 r = 0; r < 8; r++) peak = fmaxf(peak, fabsf(v[t][r]));
  }
  if (e.format == EMIT_FLOAT) {
    float *out = (float *)e.out + part.at(e.n, 0);
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
      if (mine + t * step >= part.n) continue;
      float4 *to = (float4 *)(out + mine + t * step);
      to[0] = make_float4(v[t][0], v[t][1], v[t][2], v[t][3]);
      to[1] = make_float4(v[t][4], v[t][5], v[t][6], v[t][7]);
    }
    return;
  }
  peak = cluster_max(block_max(peak, scratch), &exchanged);
  float factor = peak > 0.0f ? 127.0f / peak : 0.0f;
  if (threadIdx.x == 0 && part.begin == 0) e.out_scale[part.row] = peak / 127.0f;
  u8 *out = (u8 *)e.out + part.at(e.n_padded, 0);
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    if (mine + t * step >= part.n) continue;
    *(uint2 *)(out + mine + t * step) =
        make_uint2(quantize4(make_float4(v[t][0], v[t][1], v[t][2], v[t][3]), factor, -127.0f, 127.0f),
                   quantize4(make_float4(v[t][4], v[t][5], v[t][6], v[t][7]), factor, -127.0f, 127.0f));
  }
  cluster_leave();
}
