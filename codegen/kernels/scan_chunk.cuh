// What the two kernels of the scan in chunks share: where the first leaves what the second reads, and f32 as pairs of f16.
//
// An f32 times a power of two that brings the largest of its row near 2^13 is the sum of two f16 to 2^-22 of itself, or to 2^-38 of
// the largest. Of the four products of two such sums that of the small halves is left out: 2^-22 of the product.
#pragma once
#include "attention_tile.cuh"
#include "scan_state.cuh"

namespace scan_chunk {

using attention_tile::load_matrices;
using attention_tile::load_transposed;

constexpr u32 THREADS = SCAN_CHUNK_WARPS * WARP;
constexpr u32 WARPS = SCAN_CHUNK_WARPS;
constexpr u32 COLUMNS = SCAN_CHUNK_COLUMNS;
// B and C of a token and group, each as two halves.
constexpr u32 PARTS = 4, OF_B = 0, OF_C = 2;

// What the first kernel leaves of a token.
struct Prepared {
  u8 *base;
  u64 rows;
  u32 heads, groups, chunk;

  DEVICE Prepared(const SsmScanParams &p, u32 chunk)
      : base(p.prepared), rows(p.rows), heads(p.heads), groups(p.groups), chunk(chunk) {}

  // B and C of a group: PARTS times COLUMNS.
  DEVICE u16 *split(u32 row, u32 group) const { return (u16 *)base + (row * (u64)groups + group) * (PARTS * COLUMNS); }
  // C times B of the tokens of its chunk, up to itself.
  DEVICE float *products(u32 row, u32 group) const {
    return (float *)(base + rows * groups * (PARTS * COLUMNS * 2)) + (row * (u64)groups + group) * chunk;
  }
  // log2 of what is left of the state since the chunk began, as a sum of two; dt; dt times what is left of it at the end of
  // the chunk, times the scale of B.
  DEVICE float4 *factors(u32 head, u32 row) const { return (float4 *)products((u32)rows, 0) + head * rows + row; }
  // What is left of the state since the chunk began, times the scale of C.
  DEVICE float *kept(u32 head, u32 row) const { return (float *)factors(heads, 0) + head * rows + row; }
};

struct Scale {
  float up, down;
};

// A power of two and its inverse.
DEVICE Scale scale_of(float peak) {
  int exponent = min(max((int)(__float_as_uint(peak) >> 23), 27), 254);
  return {__uint_as_float((u32)(267 - exponent) << 23), __uint_as_float((u32)(exponent - 13) << 23)};
}

DEVICE void split(float a, float b, u32 &high, u32 &low) { attention_tile::split<DTYPE_F16>(a, b, high, low); }

struct Fragment {
  u32 high[4], low[4];
};

// `b` has two registers of the high and two of the low halves.
DEVICE void multiply(float (&acc)[4], const Fragment &a, const u32 (&b)[4]) {
  attention_tile::mma<DTYPE_F16>(acc, a.high, b[0], b[1]);
  attention_tile::mma<DTYPE_F16>(acc, a.low, b[0], b[1]);
  attention_tile::mma<DTYPE_F16>(acc, a.high, b[2], b[3]);
}

// Eight f16 of a row; no two rows of a load share a bank.
DEVICE u16 *place(u16 (*rows)[COLUMNS], u32 row, u32 piece) { return rows[row] + (piece ^ row % 8) * 8; }

DEVICE void clear(float (&acc)[4]) { acc[0] = acc[1] = acc[2] = acc[3] = 0.0f; }

} // namespace scan_chunk
