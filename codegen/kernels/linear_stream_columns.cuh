// Plan kernel `linear` for 3 or 4 rows, on Hopper and later: as linear_stream, with weights as the rows of the tensor
// cores and activations as the columns.
//
// For so many rows W4 is bound by the SM's issue slots, and dot products in lanes take several times the instructions: four
// sequences of 8B decode in 2287 us on an H200 in place of 2708 (phase 2), 2642 in place of 2865 (phase 3).
//
// - Of the 16 rows of an instruction eight are the first half of each row of a stage, eight the second. A column is a token's
//   activations for one of them; what the columns of the other half make is not used.
// - Nibbles are multiplied as they are stored, q + 8, the high ones where they are, 16 times as large. Sums start at minus eight
//   times that of the activations, which the tensor cores make, too.
// - Activations are in registers a stage ahead, for all tiles where a row is one stage.
#pragma once
#include "linear_stream.cuh"

#if __CUDA_ARCH__ >= 900

namespace stream {

constexpr u32 HALF_BYTES = ROW_BYTES / 2;
constexpr u32 HALF_PIECES = PIECES / 2; // of 64 bytes of both halves, a warp and stage

// Lane holds of acc: (row lane / 4, columns 2q, 2q + 1), then (row lane / 4 + 8, the same columns), q = lane % 4.
template <bool W4, bool X_UNSIGNED> DEVICE void mma_piece(int (&acc)[4], uint4 top, uint4 bottom, uint4 x) {
  mma_int8<W4, X_UNSIGNED>(acc, top.x, bottom.x, top.y, bottom.y, x.x, x.y);
  mma_int8<W4, X_UNSIGNED>(acc, top.z, bottom.z, top.w, bottom.w, x.z, x.w);
}

// As release, by one lane: four sequences of 8B take 1 % longer where every lane arrives (phase 3).
DEVICE void release_together(Shared &shared, Turn &turn) {
  __syncwarp();
  if (lane_id() == 0) barrier_arrive(&shared.empty[turn.slot]);
  turn.advance();
}

DEVICE uint4 masked(uint4 v, u32 mask) { return make_uint4(v.x & mask, v.y & mask, v.z & mask, v.w & mask); }

template <int COUNT, bool X_UNSIGNED> struct Columns {
  static constexpr int TOKENS = COUNT;
  static constexpr bool DRAWS = true, WHOLE_ROWS = false;
  static constexpr u32 DEALT = 1, ARRIVALS = 1;
  static constexpr u32 NOTHING = ~0u;

  const u8 *x; // of this lane's token
  u32 k_padded;
  u32 kept; // first tile of the segment whose activations are in registers
  uint4 first[HALF_PIECES], second[HALF_PIECES]; // of W4 those of the low and of the high nibbles
  int offsets[HALF_PIECES][2];                   // in the lanes that have the results, for either half
  int total;

  DEVICE Columns(const LinearParams &p, const u8 *rows) : x(rows), k_padded(p.k_padded), kept(NOTHING) {
    x += (u64)min(lane_id() / 8, p.rows - 1) * k_padded;
  }

  // The activations of this lane's column that belong to the stage at byte `at`.
  template <bool W4> DEVICE void load(u32 at) {
    u32 byte = at + lane_id() / 4 % 2 * HALF_BYTES + warp_id() * (WARP_BYTES / 2) + lane_id() % 4 * 16;
#pragma unroll
    for (u32 i = 0; i < HALF_PIECES; i++) {
      u32 column = (byte + i * 64) * (W4 ? 2 : 1);
      bool there = column < k_padded;
      first[i] = there ? *(const uint4 *)(x + column) : make_uint4(0, 0, 0, 0);
      if constexpr (!W4) continue;
      second[i] = there ? *(const uint4 *)(x + column + 16) : make_uint4(0, 0, 0, 0);
      int sums[4] = {};
      uint4 eights = make_uint4(0x08080808u, 0x08080808u, 0x08080808u, 0x08080808u);
      mma_piece<true, X_UNSIGNED>(sums, eights, eights, first[i]);
      mma_piece<true, X_UNSIGNED>(sums, eights, eights, second[i]);
      offsets[i][0] = -sums[0], offsets[i][1] = -sums[1];
    }
  }

  template <u32 FORMAT> DEVICE void sum(const LinearSegment &s, const u8 *scales, Shared &shared, Turn &turn) {
    constexpr bool W4 = FORMAT != FORMAT_W8;
    u32 row_bytes = s.row_bytes, row = lane_id() / 4, groups = s.groups, pieces = s.group_size / 128;
    total = 0;
    int acc[4] = {};
    if (kept != s.first_tile) load<W4>(0);
    kept = s.first_tile;
    for (u32 at = 0; at < row_bytes; at += ROW_BYTES) {
      u32 in_row = warp_id() * (WARP_BYTES / 2);
      const u8 *upper = &shared.weights[turn.slot][row][in_row + lane_id() % 4 * 16];
      barrier_wait(&shared.full[turn.slot], turn.parity);
#pragma unroll
      for (u32 i = 0; i < HALF_PIECES; i++) {
        uint4 a = *(const uint4 *)(upper + i * 64), b = *(const uint4 *)(upper + HALF_BYTES + i * 64);
        if constexpr (!W4) {
          mma_piece<false, X_UNSIGNED>(acc, a, b, first[i]);
        } else {
          int low[4] = {offsets[i][0], 0, 0, offsets[i][1]}, high[4] = {};
          mma_piece<true, X_UNSIGNED>(low, masked(a, 0x0f0f0f0fu), masked(b, 0x0f0f0f0fu), first[i]);
          mma_piece<true, X_UNSIGNED>(high, masked(a, 0xf0f0f0f0u), masked(b, 0xf0f0f0f0u), second[i]);
          u32 piece = (at + in_row) / 64 + i, below = piece + HALF_BYTES / 64;
          if (pieces > 1) piece /= pieces, below /= pieces;
          add<FORMAT>(low[0] + (high[0] >> 4), scales, row * groups + min(piece, groups - 1));
          add<FORMAT>(low[3] + (high[3] >> 4), scales, row * groups + min(below, groups - 1));
        }
      }
      release_together(shared, turn);
      u32 next = at + ROW_BYTES < row_bytes ? at + ROW_BYTES : 0;
      if (next != at) load<W4>(next);
    }
    if constexpr (!W4) total = acc[0] + acc[3];
  }

  template <u32 FORMAT> DEVICE void add(int sum, const u8 *scales, u32 from) {
    if constexpr (FORMAT == FORMAT_W4_TWO_LEVEL)
      total += sum * (int)scales[from];
    else
      total = __float_as_int(fmaf((float)sum, f16_to_f32(((const u16 *)scales)[from]), __int_as_float(total)));
  }

  // A token's lane of a row has both halves.
  DEVICE void share(int (*mine)[TILE_ROWS], bool) const {
    if (lane_id() % 4 < COUNT) mine[lane_id() % 4][lane_id() / 4] = total;
  }
};

} // namespace stream

#endif

template <int COUNT, bool X_UNSIGNED> DEVICE void linear_stream_columns(const LinearParams &p) {
#if __CUDA_ARCH__ >= 900
  stream::run<stream::Columns<COUNT, X_UNSIGNED>>(p, stream::Stored(p));
#endif
}
