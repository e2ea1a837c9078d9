// A row that a block keeps in registers and quantizes: a warp has up to TURNS pieces of 128 columns, four a lane.
#pragma once
#include "emit.cuh"

template <u32 WARPS, u32 TURNS> struct RowRegisters {
  float4 v[TURNS];

  static DEVICE u32 column(u32 t) { return (warp_id() + t * WARPS) * 4 * WARP + lane_id() * 4; }

  // Without rotation.
  DEVICE void quantize(const Emit &e, u64 row) const {
    __shared__ float peaks[WARPS];
    float most = 0.0f;
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) most = fmaxf(most, largest(v[t]));
    Quantizer quantizer(block_max(most, peaks), e.format == EMIT_U8);
    if (threadIdx.x == 0) e.out_scale[row] = quantizer.scale();
#pragma unroll
    for (u32 t = 0; t < TURNS; t++)
      if (column(t) < e.n) *(u32 *)((u8 *)e.out + row * e.n_padded + column(t)) = quantizer.pack(v[t]);
  }
};
