// The end of plan kernel `attention` for many rows of one part each: as attention_combine, with the row in registers.
//
// Bound by memory: 2048 rows of 4096 columns read 34 MB and write 8 MB, 9.4 us at 4.45 TB/s.
//
// A row is a block's, of so few threads that eight are under way on an SM.
//
// Supports a head_dim that is a multiple of 4, and quantized results without rotation.
#pragma once
#include "row_registers.cuh"

template <u32 WARPS, u32 TURNS> DEVICE void attention_rows(const AttentionParams &p) {
  RowRegisters<WARPS, TURNS> row;
  u32 n = p.emit.n;
  const float *from = p.part_acc + (u64)blockIdx.x * n, *sums = p.part_sum + (u64)blockIdx.x * p.heads;
  pdl_launch_dependents();
  pdl_wait();
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    u32 column = row.column(t);
    row.v[t] = column < n ? *(const float4 *)(from + column) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
#pragma unroll
  for (u32 t = 0; t < TURNS; t++) {
    u32 column = row.column(t);
    float weight = column < n ? 1.0f / sums[column / p.head_dim] : 0.0f;
    row.v[t] = make_float4(weight * row.v[t].x, weight * row.v[t].y, weight * row.v[t].z, weight * row.v[t].w);
  }
  row.quantize(p.emit, blockIdx.x);
}
