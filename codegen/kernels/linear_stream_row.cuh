// What linear_stream_norm multiplies with: dot-product instructions as in linear_stream_dot, and a warp for each weight row of a
// tile.
//
// A W4 tile that passes through all of a block's warps, with sums in shared memory and a barrier, takes 340 instructions of a
// warp and a microsecond, as long as memory takes to bring it. Here a warp takes 512 bytes of its row at a time, a lane
// 16 of them, and the sum of the lanes is one instruction; warps do not wait for each other. Each loads all of the
// activations, which pays where they are in shared memory.
//
// - The activations of a stage are in registers; where a weight row is one stage, for all tiles.
// - Nibbles are multiplied where they are, the high ones as signed numbers 16 times as large, the low ones as q + 8.
#pragma once
#include "linear_stream_dot.cuh"

#if __CUDA_ARCH__ >= 900

namespace stream {

DEVICE int warp_total(int v) {
  int sum;
  asm volatile("redux.sync.add.s32 %0, %1, 0xffffffff;" : "=r"(sum) : "r"(v));
  return sum;
}

struct WarpRow {
  static constexpr int TOKENS = 1;
  static constexpr bool DRAWS = true, WHOLE_ROWS = true;
  static constexpr u32 DEALT = STAGES; // with rows of one stage, as many as a ring holds
  static constexpr u32 ARRIVALS = WARP;
  static constexpr u32 WIDTH = WARP * 16, PIECES = ROW_BYTES / WIDTH, NOTHING = ~0u;
  static_assert(TILE_ROWS == WARPS, "a warp takes a row");

  const u8 *x;
  u32 k_padded;
  float x_scale;
  u32 kept = NOTHING; // the byte of a weight row from which on the following belongs to it
  uint4 first[PIECES], second[PIECES]; // activations, of W4 those of the low and of the high nibbles
  int offset[PIECES];                  // what the 8 in every low nibble adds, negated
  u32 scale_at[PIECES];                // from the first group scale of a tile

  DEVICE WarpRow(const LinearParams &p, const u8 *x, float x_scale) : x(x), k_padded(p.k_padded), x_scale(x_scale) {}

  template <u32 FORMAT> DEVICE void load(const LinearSegment &s, u32 at) {
    constexpr bool W4 = FORMAT != FORMAT_W8;
    if (kept == at) return;
    kept = at;
#pragma unroll
    for (u32 i = 0; i < PIECES; i++) {
      u32 column = (at + i * WIDTH + lane_id() * 16) * (W4 ? 2 : 1);
      bool there = column < k_padded;
      first[i] = there ? *(const uint4 *)(x + column) : make_uint4(0, 0, 0, 0);
      if constexpr (W4) second[i] = there ? *(const uint4 *)(x + column + 16) : make_uint4(0, 0, 0, 0);
    }
    if constexpr (!W4) return;
    u32 pieces = s.group_size / 128;
#pragma unroll
    for (u32 i = 0; i < PIECES; i++) {
      u32 group = (at + i * WIDTH) / 64 + lane_id() / 4;
      if (pieces > 1) group /= pieces;
      scale_at[i] = (warp_id() * s.groups + min(group, s.groups - 1)) * (FORMAT == FORMAT_W4_GROUP ? 2 : 1);
      offset[i] = -8 * dot16<false>(first[i], make_uint4(0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u), 0);
    }
  }

  DEVICE int dot_w4(u32 piece, uint4 v) const {
    u32 w[4] = {v.x, v.y, v.z, v.w}, a[4] = {first[piece].x, first[piece].y, first[piece].z, first[piece].w};
    u32 b[4] = {second[piece].x, second[piece].y, second[piece].z, second[piece].w};
    int low = offset[piece], high = 0;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      low = dot4_positive<false>(a[i], w[i] & 0x0f0f0f0fu, low);
      high = dot4<false>(b[i], high_nibbles(w[i]), high);
    }
    return low + (high >> 4);
  }

  // The dot product of this warp's row, in every lane; as the bits of a float for FORMAT_W4_GROUP. What is in shared memory
  // behind the end of a row meets activations of 0.
  template <u32 FORMAT> DEVICE int sum(const LinearSegment &s, const u8 *scales, Shared &shared, Turn &turn) {
    u32 row_bytes = s.row_bytes;
    int total = 0;
    for (u32 at = 0; at < row_bytes; at += ROW_BYTES, release(shared, turn)) {
      load<FORMAT>(s, at);
      const u8 *weights = &shared.weights[turn.slot][warp_id()][lane_id() * 16];
      barrier_wait(&shared.full[turn.slot], turn.parity);
      uint4 w[PIECES];
#pragma unroll
      for (u32 i = 0; i < PIECES; i++) w[i] = *(const uint4 *)(weights + i * WIDTH);
#pragma unroll
      for (u32 i = 0; i < PIECES; i++) {
        if constexpr (FORMAT == FORMAT_W8)
          total = dot16<false>(first[i], w[i], total);
        else if constexpr (FORMAT == FORMAT_W4_TWO_LEVEL)
          total += dot_w4(i, w[i]) * (int)scales[scale_at[i]];
        else
          total = __float_as_int(
              fmaf((float)dot_w4(i, w[i]), f16_to_f32(*(const u16 *)(scales + scale_at[i])), __int_as_float(total)));
      }
    }
    return FORMAT == FORMAT_W4_GROUP ? __float_as_int(warp_sum(__int_as_float(total))) : warp_total(total);
  }

  DEVICE void tile(const LinearSegment &s, u32 row0, const u8 *scales, const float *row_scales, Shared &shared, Turn &turn) {
    int total;
    if (s.format == FORMAT_W8)
      total = sum<FORMAT_W8>(s, scales, shared, turn);
    else if (s.format == FORMAT_W4_TWO_LEVEL)
      total = sum<FORMAT_W4_TWO_LEVEL>(s, scales, shared, turn);
    else
      total = sum<FORMAT_W4_GROUP>(s, scales, shared, turn);
    u32 row = row0 + warp_id();
    if (lane_id() > 0 || row >= s.out_features) return;
    if (s.format == FORMAT_W4_GROUP)
      store_float(s, row, __int_as_float(total) * x_scale);
    else
      store_integer(s, 0, row, total, x_scale, row_scales[warp_id()]);
  }
};

// As consume, with warps that each finish a row. The scales of a tile stay as long as a warp has not left its last stage.
template <class Math, class Input>
DEVICE void consume_rows(const LinearParams &p, Input &input, Shared &shared, const u8 *group_scales) {
  input.begin();
  pdl_wait();
  input.finish();
  Turn turn;
  Math math(p, input.x, *input.x_scale);
  LinearSegment s = p.segments[0];
  u32 segment = 0, end = 0; // parameters that are indexed at run time are slow to read
  for (TileTurn place;; place.advance()) {
    barrier_wait(&shared.drawn[place.slot], place.parity);
    u32 tile = shared.tiles[place.slot];
    if (tile >= p.tiles) break;
    if (tile >= end) {
      segment = segment_of(p, tile, segment);
      s = p.segments[segment];
      math.kept = Math::NOTHING;
      end = segment + 1 < p.segment_count ? p.segments[segment + 1].first_tile : p.tiles;
    }
    u32 row0 = (tile - s.first_tile) * TILE_ROWS;
    const u8 *scales = group_scales + place.slot * p.scale_bytes + GroupBytes(s, row0, TILE_ROWS).shift;
    math.tile(s, row0, scales, shared.row_scales[place.slot], shared, turn);
  }
  input.end();
}

} // namespace stream

#endif
