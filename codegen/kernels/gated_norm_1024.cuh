// Plan kernel `gated_rms_norm` for many rows of groups of 1024 columns: as gated_rms_norm, with the row in registers.
//
// Bound by memory: 2048 rows of 8192 columns read 134 MB and write 17 MB, 34 us at 4.45 TB/s.
//
// - A warp has a group, a lane four consecutive columns of each of its pieces of 128: 16-byte loads, the rotation by 128 to 1024
//   columns in registers and across lanes.
// - x and z of a whole group are in flight together.
//
// Supports rows of up to GATED_ROWS_GROUPS groups, rotated or not, as floats or signed 8-bit numbers.
#pragma once
#include "emit.cuh"

namespace gated_norm_1024 {

constexpr u32 GROUP = 1024;
constexpr u32 PIECE = WARP * 4, PIECES = GROUP / PIECE, VALUES = GROUP / WARP;

DEVICE u32 column(u32 piece) { return warp_id() * GROUP + piece * PIECE + lane_id() * 4; }

DEVICE void load(const float *from, float (&v)[VALUES]) {
#pragma unroll
  for (u32 i = 0; i < PIECES; i++) {
    float4 four = *(const float4 *)(from + column(i));
    v[i * 4] = four.x, v[i * 4 + 1] = four.y, v[i * 4 + 2] = four.z, v[i * 4 + 3] = four.w;
  }
}

// Blocks of 32 REGISTERS columns.
template <int REGISTERS> DEVICE void rotate(float (&v)[VALUES], float norm) {
#pragma unroll
  for (u32 i = 0; i < VALUES; i += REGISTERS) {
    float part[REGISTERS];
#pragma unroll
    for (u32 r = 0; r < REGISTERS; r++) part[r] = v[i + r];
    hadamard::butterflies(part);
#pragma unroll
    for (u32 r = 0; r < REGISTERS; r++) v[i + r] = part[r] * norm;
  }
}

DEVICE void rotate_by(u32 block, float (&v)[VALUES]) {
  float norm = 1.0f / sqrtf((float)block);
  switch (block) {
  case 128: return rotate<4>(v, norm);
  case 256: return rotate<8>(v, norm);
  case 512: return rotate<16>(v, norm);
  case 1024: return rotate<32>(v, norm);
  }
}

} // namespace gated_norm_1024

DEVICE void gated_rms_norm_1024(const GatedNormParams &p) {
  using namespace gated_norm_1024;
  __shared__ float scratch[WARP];
  const Emit &e = p.emit;
  bool there = warp_id() < e.n / GROUP;
  u64 row = (u64)blockIdx.x * e.n;
  pdl_launch_dependents();
  pdl_wait();
  float v[VALUES] = {}, peak = 0.0f;
  if (there) {
    float z[VALUES], squares = 0.0f;
    load(p.x + row, v);
    load(p.z + row, z);
#pragma unroll
    for (u32 i = 0; i < VALUES; i++) v[i] *= silu(z[i]), squares = fmaf(v[i], v[i], squares);
    float inverse = 1.0f / sqrtf(warp_sum(squares) / GROUP + p.eps);
#pragma unroll
    for (u32 i = 0; i < VALUES; i++) v[i] *= inverse;
    if (p.weight) {
      load(p.weight, z);
#pragma unroll
      for (u32 i = 0; i < VALUES; i++) v[i] *= z[i];
    }
    rotate_by(e.hadamard_block, v);
#pragma unroll
    for (u32 i = 0; i < VALUES; i++) peak = fmaxf(peak, fabsf(v[i]));
  }
  if (e.format == EMIT_FLOAT) {
#pragma unroll
    for (u32 i = 0; i < PIECES; i++)
      if (there)
        *(float4 *)((float *)e.out + row + column(i)) = make_float4(v[i * 4], v[i * 4 + 1], v[i * 4 + 2], v[i * 4 + 3]);
    return;
  }
  peak = block_max(peak, scratch);
  Quantizer quantizer(peak);
  if (threadIdx.x == 0) e.out_scale[blockIdx.x] = quantizer.scale();
#pragma unroll
  for (u32 i = 0; i < PIECES; i++)
    if (there)
      *(u32 *)((u8 *)e.out + row + column(i)) =
          quantizer.pack(make_float4(v[i * 4], v[i * 4 + 1], v[i * 4 + 2], v[i * 4 + 3]));
}
