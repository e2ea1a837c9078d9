// Plan kernel `linear` for at most 4 rows, on Hopper and later: as linear_stream, with dot-product instructions.
//
// For one token a tensor core would multiply 15 rows of zeros, and its results come late; dp4a needs a quarter of the
// instructions. Half a warp takes the 256 bytes of one row, half those of the next: 16 lanes of 16 bytes. A lane keeps the
// activations of its columns in registers for the four pairs of rows of a stage.
#pragma once
#include "linear_stream.cuh"

#if __CUDA_ARCH__ >= 900

namespace stream {

template <bool X_UNSIGNED> DEVICE int dot4(u32 x, u32 w, int sum) {
  if constexpr (X_UNSIGNED)
    asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(w));
  else
    asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(w));
  return sum;
}

template <bool X_UNSIGNED> DEVICE int dot16(uint4 x, const u32 (&w)[4], int sum) {
  sum = dot4<X_UNSIGNED>(x.x, w[0], sum);
  sum = dot4<X_UNSIGNED>(x.y, w[1], sum);
  sum = dot4<X_UNSIGNED>(x.z, w[2], sum);
  return dot4<X_UNSIGNED>(x.w, w[3], sum);
}

template <int COUNT, bool X_UNSIGNED> struct DotProducts {
  static constexpr int TOKENS = COUNT;
  static constexpr u32 PAIRS = TILE_ROWS / 2;
  static_assert(WARP_BYTES == 16 * 16, "half a warp takes a row");

  const u8 *x;
  u32 rows, k_padded;
  int acc[PAIRS][COUNT];

  DEVICE DotProducts(const LinearParams &p) : x((const u8 *)p.x), rows(p.rows), k_padded(p.k_padded) {}

  DEVICE uint4 load_x(u32 token, u32 k) const {
    if (token >= rows || k >= k_padded) return make_uint4(0, 0, 0, 0);
    return *(const uint4 *)(x + (u64)token * k_padded + k);
  }

  template <u32 FORMAT> DEVICE void sum(const LinearSegment &s, const u8 *scales, Shared &shared, Turn &turn) {
#pragma unroll
    for (u32 pair = 0; pair < PAIRS; pair++)
#pragma unroll
      for (int t = 0; t < COUNT; t++) acc[pair][t] = 0;
    u32 row_bytes = s.row_bytes, groups = s.groups, pieces = s.group_size / 128;
    for (u32 at = 0; at < row_bytes; at += ROW_BYTES, release(shared, turn)) {
      u32 column = at + warp_id() * WARP_BYTES + lane_id() % 16 * 16;
      if constexpr (FORMAT == FORMAT_W8)
        stage_w8(shared, turn, column);
      else
        stage_w4<FORMAT>(shared, turn, column, scales, groups, pieces);
    }
  }

  DEVICE const uint4 *weights(Shared &shared, const Turn &turn, u32 column, u32 pair) const {
    return (const uint4 *)&shared.weights[turn.slot][pair * 2 + lane_id() / 16][column % ROW_BYTES];
  }

  DEVICE void stage_w8(Shared &shared, const Turn &turn, u32 column) {
    uint4 values[COUNT];
#pragma unroll
    for (int t = 0; t < COUNT; t++) values[t] = load_x(t, column);
    barrier_wait(&shared.full[turn.slot], turn.parity);
#pragma unroll
    for (u32 pair = 0; pair < PAIRS; pair++) {
      uint4 v = *weights(shared, turn, column, pair);
      u32 w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int t = 0; t < COUNT; t++) acc[pair][t] = dot16<X_UNSIGNED>(values[t], w, acc[pair][t]);
    }
  }

  template <u32 FORMAT>
  DEVICE void stage_w4(Shared &shared, const Turn &turn, u32 column, const u8 *scales, u32 groups, u32 pieces) {
    uint4 first[COUNT], second[COUNT];
#pragma unroll
    for (int t = 0; t < COUNT; t++) first[t] = load_x(t, 2 * column), second[t] = load_x(t, 2 * column + 16);
    u32 piece = column / 64, group = min(pieces == 1 ? piece : piece / pieces, groups - 1);
    u32 scale_at = lane_id() / 16 * groups + group;
    barrier_wait(&shared.full[turn.slot], turn.parity);
#pragma unroll
    for (u32 pair = 0; pair < PAIRS; pair++) {
      u32 low[4], high[4];
      unpack_int4_x16(*weights(shared, turn, column, pair), low, high);
      u32 from = scale_at + pair * 2 * groups;
#pragma unroll
      for (int t = 0; t < COUNT; t++) {
        int sum = dot16<X_UNSIGNED>(first[t], low, dot16<X_UNSIGNED>(second[t], high, 0)) >> 4;
        if constexpr (FORMAT == FORMAT_W4_TWO_LEVEL)
          acc[pair][t] += sum * (int)scales[from];
        else
          acc[pair][t] =
              __float_as_int(fmaf((float)sum, f16_to_f32(((const u16 *)scales)[from]), __int_as_float(acc[pair][t])));
      }
    }
  }

  // Sums over the 16 lanes of a row, then one lane of each half writes.
  DEVICE void share(int (*mine)[TILE_ROWS], bool is_float) const {
#pragma unroll
    for (u32 pair = 0; pair < PAIRS; pair++)
#pragma unroll
      for (int t = 0; t < COUNT; t++) {
        int sum = acc[pair][t];
#pragma unroll
        for (u32 o = 8; o; o >>= 1) {
          int other = __shfl_xor_sync(FULL_MASK, sum, o);
          sum = is_float ? __float_as_int(__int_as_float(sum) + __int_as_float(other)) : sum + other;
        }
        if (lane_id() % 16 == 0) mine[t][pair * 2 + lane_id() / 16] = sum;
      }
  }
};

} // namespace stream

#endif

template <int COUNT, bool X_UNSIGNED> DEVICE void linear_stream_dot(const LinearParams &p) {
#if __CUDA_ARCH__ >= 900
  stream::run<stream::DotProducts<COUNT, X_UNSIGNED>>(p);
#endif
}
