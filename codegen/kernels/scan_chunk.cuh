// What the two kernels of the scan in chunks share: where the first leaves what the second reads, and f32 as pairs of f16.
//
// An f32 times a power of two that brings the largest of its row near 2^13 is the sum of two f16 to 2^-22 of itself, or to 2^-38 of
// the largest. Of the four products of two such sums that of the small halves is left out: 2^-22 of the product.
#pragma once
#include "attention_tile.cuh"
#include "scan_state.cuh"

namespace scan_chunk {

constexpr u32 THREADS = SCAN_CHUNK_WARPS * WARP;
constexpr u32 WARPS = SCAN_CHUNK_WARPS;
constexpr u32 COLUMNS = SCAN_CHUNK_COLUMNS;
// B and C of a token and group, each as two halves.
constexpr u32 PARTS = 4, OF_B = 0, OF_C = 2;
constexpr u32 PART_BYTES = COLUMNS * 2, ROW_BYTES = PARTS * PART_BYTES;

struct Row {
  u16 parts[PARTS][COLUMNS];
};

// What the first kernel leaves of a token.
struct Prepared {
  u8 *base;
  u64 rows;
  u32 heads, groups, chunk;

  DEVICE Prepared(const SsmScanParams &p, u32 chunk)
      : base(p.prepared), rows(p.rows), heads(p.heads), groups(p.groups), chunk(chunk) {}

  // B and C of a group: a Row, its pieces already where they are in shared memory.
  DEVICE u8 *split(u32 group, u32 row) const { return base + (group * rows + row) * sizeof(Row); }
  // C times B of the tokens of its chunk, up to itself.
  DEVICE float *products(u32 group, u32 row) const { return (float *)split(groups, 0) + (group * rows + row) * chunk; }
  // log2 of what is left of the state since the chunk began, as a sum of two; dt.
  DEVICE float4 *factors(u32 head, u32 row) const { return (float4 *)products(groups, 0) + head * rows + row; }
  // What is left of the state since the chunk began, times the scale of C.
  DEVICE float *kept(u32 head, u32 row) const { return (float *)factors(heads, 0) + head * rows + row; }
  // dt times what is left of the token at the end of the chunk, times the scale of B.
  DEVICE float *at_end(u32 head, u32 row) const { return kept(heads, 0) + head * rows + row; }
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

DEVICE void load_transposed(u32 (&out)[4], u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(row)
               : "memory");
}

// Where eight f16 of a token's part are: no two of eight tokens share a bank.
DEVICE u32 piece_bytes(u32 t, u32 piece) { return (piece ^ t % 8) * 16; }

// As an operand: lanes 0 to 7 name rows of the first eight columns of the high halves, then of the next eight, then of the low
// halves. Bytes from a stage; the step of `k` is 32 bytes by exclusive or, since a part is aligned.
DEVICE u32 operand_bytes(u32 part, u32 first_piece) {
  return lane_id() % 8 * ROW_BYTES + (part + lane_id() / 16) * PART_BYTES + piece_bytes(lane_id(), first_piece + lane_id() / 8 % 2);
}

// 2^x; 0 in place of numbers too small to be normal.
DEVICE float power_of_two(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

DEVICE void clear(float (&acc)[4]) { acc[0] = acc[1] = acc[2] = acc[3] = 0.0f; }

} // namespace scan_chunk
