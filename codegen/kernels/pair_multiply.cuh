// The products of a stage of linear_pair.cuh, for a warp that has 16 rows of a box of weights.
//
// - Up to 16 tokens: mma.sync, tokens are the 8 columns of an instruction, and ldmatrix reads both from boxes that the copy engine
//   swizzled. A W4 word of ldmatrix has in its low and high halves what the instruction wants of two pieces of k. The sums of a
//   group are scaled and added to the total, in integers.
// - More: wgmma, where a warpgroup has the 64 rows of a box in registers, and tokens are read from shared memory by the tensor
//   cores themselves: what a warp spends does not grow with them. Nibbles are multiplied by their group's scale, which fits 8 bits
//   and is the same integer.
#pragma once
#include "mma.cuh"
#include "nibbles.cuh"
#include "warpgroup.cuh"

#ifdef WARPGROUP_MMA

namespace pair {

constexpr u32 BOX_BYTES = 128; // of a row
constexpr u32 FEW_TOKENS = 16, FEW_TILES = FEW_TOKENS / 8;
constexpr u32 FEW_X_BOX_BYTES = FEW_TOKENS * BOX_BYTES;

// Where this lane's rows of a box start. Columns from 32 i on are at that address, of which 32 i flips bits: swizzled
// boxes have 16-byte piece c of row r at c ^ r % 8.
struct Lane {
  u32 weights, x;
  DEVICE Lane() {
    u32 lane = lane_id(), swizzle = lane % 8;
    weights = lane % 16 * BOX_BYTES + (lane / 16 ^ swizzle) * 16;
    x = (lane % 8 + lane / 16 * 8) * BOX_BYTES + (lane / 8 % 2 ^ swizzle) * 16;
  }
};

// The sums of eight tokens.
template <u32 COUNT> DEVICE int (&tokens_of(int (&acc)[COUNT], u32 n))[4] { return *(int (*)[4])(acc + n * 4); }

// 32 columns of 16 tokens.
DEVICE void load_x(u32 (&b)[FEW_TILES][2], u32 address) {
#pragma unroll
  for (u32 pair = 0; pair < FEW_TILES / 2; pair++) {
    u32 r[4];
    load_matrices(r, address + pair * 16 * BOX_BYTES);
    b[2 * pair][0] = r[0], b[2 * pair][1] = r[1];
    b[2 * pair + 1][0] = r[2], b[2 * pair + 1][1] = r[3];
  }
}

template <bool X_UNSIGNED> DEVICE void chunk_w8(u32 weights, u32 x, int (&acc)[FEW_TILES * 4]) {
#pragma unroll
  for (u32 i = 0; i < BOX_BYTES / 32; i++) {
    u32 a[4], b[FEW_TILES][2];
    load_matrices(a, weights ^ i * 32);
    load_x(b, x ^ i * 32);
#pragma unroll
    for (u32 n = 0; n < FEW_TILES; n++) mma_int8<false, X_UNSIGNED>(tokens_of(acc, n), a[0], a[1], a[2], a[3], b[n][0], b[n][1]);
  }
}

// The group scales of a tile.
struct GroupScales {
  const u8 *first; // of row lane / 4
  u32 groups, pieces;
  // `group` is that of columns from 128 `piece` on.
  DEVICE u32 group(u32 piece) const { return min(pieces == 1 ? piece : piece / pieces, groups - 1); }
  DEVICE int at(u32 row, u32 group) const { return first[row * groups + group]; }
};

// Two boxes of x, with the pieces of 128 columns from `piece` on.
template <bool X_UNSIGNED>
DEVICE void chunk_w4(u32 weights, u32 x, const GroupScales &scales, u32 piece, int (&acc)[FEW_TILES * 4]) {
  int sum[2][FEW_TILES][4] = {}, top[2], bottom[2];
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    u32 group = scales.group(piece + half);
    top[half] = scales.at(0, group), bottom[half] = scales.at(8, group);
  }
#pragma unroll
  for (u32 i = 0; i < BOX_BYTES / 32; i++) {
    u32 packed[4];
    load_matrices(packed, weights ^ i * 32);
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      u32 low[2], high[2], b[FEW_TILES][2];
      load_x(b, x + i / 2 * FEW_X_BOX_BYTES ^ (i % 2 * 64 + j * 32));
      low[0] = high_nibbles(packed[2 * j] << 4), high[0] = high_nibbles(packed[2 * j]);
      low[1] = high_nibbles(packed[2 * j + 1] << 4), high[1] = high_nibbles(packed[2 * j + 1]);
#pragma unroll
      for (u32 n = 0; n < FEW_TILES; n++)
        mma_int8<false, X_UNSIGNED>(sum[i / 2][n], low[0], low[1], high[0], high[1], b[n][0], b[n][1]);
    }
  }
#pragma unroll
  for (u32 half = 0; half < 2; half++)
#pragma unroll
    for (u32 n = 0; n < FEW_TILES; n++)
#pragma unroll
      for (int c = 0; c < 4; c++) acc[n * 4 + c] += (sum[half][n][c] >> 4) * (c < 2 ? top[half] : bottom[half]);
}

// Both for N tokens, by the four warps of a box: `x` is that of all of them.
template <u32 N, bool X_UNSIGNED> DEVICE void chunk_w8_many(u32 weights, u32 x, int (&acc)[N / 2]) {
  u32 a[BOX_BYTES / 32][4], b = warpgroup::matrix(x);
#pragma unroll
  for (u32 i = 0; i < BOX_BYTES / 32; i++) load_matrices(a[i], weights ^ i * 32);
  warpgroup::fence();
#pragma unroll
  for (u32 i = 0; i < BOX_BYTES / 32; i++) warpgroup::MultiplyRegisters<N, X_UNSIGNED>::run(acc, a[i], b + i * 2);
  warpgroup::commit();
  warpgroup::wait<0>();
}

template <u32 N, bool X_UNSIGNED>
DEVICE void chunk_w4_many(u32 weights, u32 x, const GroupScales &scales, u32 piece, int (&acc)[N / 2]) {
  u32 packed[BOX_BYTES / 32][4], a[BOX_BYTES / 16][4], scale[2][2];
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    u32 group = scales.group(piece + half);
    scale[half][0] = scales.at(0, group), scale[half][1] = scales.at(8, group);
  }
#pragma unroll
  for (u32 i = 0; i < BOX_BYTES / 32; i++) load_matrices(packed[i], weights ^ i * 32);
#pragma unroll
  for (u32 i = 0; i < BOX_BYTES / 16; i++)
#pragma unroll
    for (u32 row = 0; row < 2; row++)
      scale_nibbles(packed[i / 2][i % 2 * 2 + row], scale[i / 4][row], a[i][row], a[i][row + 2]);
  u32 b = warpgroup::matrix(x);
  warpgroup::fence();
#pragma unroll
  for (u32 i = 0; i < BOX_BYTES / 16; i++)
    warpgroup::MultiplyRegisters<N, X_UNSIGNED>::run(acc, a[i], b + (i / 4 * N * BOX_BYTES >> 4) + i % 4 * 2);
  warpgroup::commit();
  warpgroup::wait<0>();
}

} // namespace pair

#endif
