// How a float row leaves a kernel: `plan::Emit`. A row belongs to one block, or to a cluster of blocks, each of which
// has an equal part of it in its shared memory.
#pragma once
#include "bulk.cuh"
#include "hadamard.cuh"

// The part of a row that this block has.
struct RowPart {
  u32 row, begin, n;

  DEVICE RowPart(u32 cols) {
    u32 size = cluster_size();
    row = blockIdx.x / size;
    n = cols / size;
    begin = cluster_rank() * n;
  }
  // Index of column i of the part in a matrix of `cols` columns.
  DEVICE u64 at(u32 cols, u32 i) const { return (u64)row * cols + begin + i; }
};

// Columns i to i + 3 of a row that is aligned to 16 bytes; i is a multiple of 4.
DEVICE u32 quantize_columns(const float *row, u32 i, u32 n, const Quantizer &quantizer) {
  if (i + 4 <= n) return quantizer.pack(*(const float4 *)(row + i));
  float values[4];
#pragma unroll
  for (u32 j = 0; j < 4; j++) values[j] = i + j < n ? row[i + j] : 0.0f;
  return quantizer.pack(make_float4(values[0], values[1], values[2], values[3]));
}

// Rotates, then stores or quantizes. The caller has synchronized after writing `row`.
DEVICE void emit_row(float *row, const RowPart &part, const Emit &e, float *scratch) {
  if (e.hadamard_block > 1) hadamard_row(row, part.n, e.hadamard_block);
  if (e.format == EMIT_FLOAT) {
    float *out = (float *)e.out + part.at(e.n, 0);
    for (u32 i = threadIdx.x; i < part.n; i += blockDim.x) out[i] = row[i];
    cluster_leave();
    return;
  }
  float peak = 0.0f;
  for (u32 i = threadIdx.x; i < part.n; i += blockDim.x) peak = fmaxf(peak, fabsf(row[i]));
  __shared__ float exchanged;
  peak = cluster_max(block_max(peak, scratch), &exchanged);
  Quantizer quantizer(peak, e.format == EMIT_U8);
  if (threadIdx.x == 0 && part.begin == 0) e.out_scale[part.row] = quantizer.scale();
  // Only a row in one block is padded.
  u32 end = part.n == e.n ? e.n_padded : part.n;
  u8 *out = (u8 *)e.out + part.at(e.n_padded, 0);
  for (u32 i = threadIdx.x * 4; i < end; i += blockDim.x * 4)
    *(u32 *)(out + i) = quantize_columns(row, i, part.n, quantizer);
  cluster_leave();
}
