// Plan kernel `linear` for one or two rows, on Hopper and later: as linear_stream, with dot-product instructions.
//
// The results of tensor cores come late, which a step of one token pays for at every launch: linear_stream_columns is 9 % slower
// there. Half a warp takes the 256 bytes of one row, half those of the next: 16 lanes of 16 bytes. A lane keeps the activations of
// its columns in registers for the four pairs of rows of a stage.
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

// Weights of 0..=255.
template <bool X_UNSIGNED> DEVICE int dot4_positive(u32 x, u32 w, int sum) {
  if constexpr (X_UNSIGNED)
    asm("dp4a.u32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(w));
  else
    asm("dp4a.s32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(w));
  return sum;
}

template <bool X_UNSIGNED> DEVICE int dot16(uint4 x, uint4 w, int sum) {
  sum = dot4<X_UNSIGNED>(x.x, w.x, sum);
  sum = dot4<X_UNSIGNED>(x.y, w.y, sum);
  sum = dot4<X_UNSIGNED>(x.z, w.z, sum);
  return dot4<X_UNSIGNED>(x.w, w.w, sum);
}

// Activations of a lane's 16 bytes of weights, for W4 the 32 of the low and of the high nibbles.
template <bool W4, bool X_UNSIGNED> struct Activations {
  uint4 first, second;
  int offset; // what the 8 in every stored nibble adds, negated

  DEVICE void load(const u8 *x, bool there, u32 column) {
    first = second = make_uint4(0, 0, 0, 0);
    if (there) first = *(const uint4 *)(x + (W4 ? 2 * column : column));
    if (W4 && there) second = *(const uint4 *)(x + 2 * column + 16);
  }

  DEVICE void sum_up() {
    if constexpr (W4) {
      uint4 ones = make_uint4(0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u);
      offset = -8 * dot16<X_UNSIGNED>(first, ones, dot16<X_UNSIGNED>(second, ones, 0));
    }
  }

  // With nibbles as they are stored, q + 8: the high ones stay where they are, 16 times as large.
  DEVICE int dot(uint4 w) const {
    if constexpr (!W4) return dot16<X_UNSIGNED>(first, w, 0);
    u32 words[4] = {w.x, w.y, w.z, w.w}, a[4] = {first.x, first.y, first.z, first.w};
    u32 b[4] = {second.x, second.y, second.z, second.w};
    int low = offset, high = 0;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      low = dot4_positive<X_UNSIGNED>(a[i], words[i] & 0x0f0f0f0fu, low);
      high = dot4_positive<X_UNSIGNED>(b[i], words[i] & 0xf0f0f0f0u, high);
    }
    return low + (high >> 4);
  }
};

template <int COUNT, bool X_UNSIGNED> struct DotProducts {
  static constexpr int TOKENS = COUNT;
  static constexpr bool DRAWS = true, WHOLE_ROWS = false;
  static constexpr u32 DEALT = 1, ARRIVALS = WARP;
  static constexpr u32 PAIRS = TILE_ROWS / 2;
  static_assert(WARP_BYTES == 16 * 16, "half a warp takes a row");
  static_assert(PAIRS == 4, "sums are exchanged four at a time");

  const u8 *x;
  u32 rows, k_padded;
  int acc[COUNT][PAIRS];

  DEVICE DotProducts(const LinearParams &p, const u8 *x) : x(x), rows(p.rows), k_padded(p.k_padded) {}

  template <bool W4> DEVICE void load(Activations<W4, X_UNSIGNED> (&values)[COUNT], u32 column) const {
    bool there = (W4 ? 2 * column : column) < k_padded;
#pragma unroll
    for (int t = 0; t < COUNT; t++) values[t].load(x + (u64)t * k_padded, there && t < rows, column);
  }

  template <u32 FORMAT> DEVICE void sum(const LinearSegment &s, const u8 *scales, Shared &shared, Turn &turn) {
    constexpr bool W4 = FORMAT != FORMAT_W8;
#pragma unroll
    for (int t = 0; t < COUNT; t++)
#pragma unroll
      for (u32 pair = 0; pair < PAIRS; pair++) acc[t][pair] = 0;
    u32 row_bytes = s.row_bytes, groups = s.groups, pieces = s.group_size / 128;
    u32 first = warp_id() * WARP_BYTES + lane_id() % 16 * 16;
    // Those of the next stage are on their way while one is waited for and multiplied.
    Activations<W4, X_UNSIGNED> values[COUNT], next[COUNT];
    load(next, first);
    for (u32 at = 0; at < row_bytes; at += ROW_BYTES, release(shared, turn)) {
#pragma unroll
      for (int t = 0; t < COUNT; t++) {
        values[t] = next[t];
        values[t].sum_up();
      }
      if (at + ROW_BYTES < row_bytes) load(next, first + at + ROW_BYTES);
      u32 scale_at = 0;
      if constexpr (W4) {
        u32 piece = (first + at) / 64, group = min(pieces == 1 ? piece : piece / pieces, groups - 1);
        scale_at = lane_id() / 16 * groups + group;
      }
      const u8 *weights = &shared.weights[turn.slot][lane_id() / 16][first];
      barrier_wait(&shared.full[turn.slot], turn.parity);
#pragma unroll
      for (u32 pair = 0; pair < PAIRS; pair++) {
        uint4 w = *(const uint4 *)(weights + pair * 2 * ROW_BYTES);
        u32 from = scale_at + pair * 2 * groups;
#pragma unroll
        for (int t = 0; t < COUNT; t++) add<FORMAT>(acc[t][pair], values[t].dot(w), scales, from);
      }
    }
  }

  template <u32 FORMAT> DEVICE void add(int &acc, int sum, const u8 *scales, u32 from) const {
    if constexpr (FORMAT == FORMAT_W8)
      acc += sum;
    else if constexpr (FORMAT == FORMAT_W4_TWO_LEVEL)
      acc += sum * (int)scales[from];
    else
      acc = __float_as_int(fmaf((float)sum, f16_to_f32(((const u16 *)scales)[from]), __int_as_float(acc)));
  }

  template <bool FLOAT> static DEVICE int plus(int a, int b) {
    return FLOAT ? __float_as_int(__int_as_float(a) + __int_as_float(b)) : a + b;
  }

  // Sums over the 16 lanes of a row: lane l ends with that of pair l / 4.
  template <bool FLOAT> DEVICE void share_as(int (*mine)[TILE_ROWS]) const {
    bool far = lane_id() & 8, odd = lane_id() & 4;
#pragma unroll
    for (int t = 0; t < COUNT; t++) {
      const int (&y)[PAIRS] = acc[t];
      int a = plus<FLOAT>(far ? y[2] : y[0], __shfl_xor_sync(FULL_MASK, far ? y[0] : y[2], 8));
      int b = plus<FLOAT>(far ? y[3] : y[1], __shfl_xor_sync(FULL_MASK, far ? y[1] : y[3], 8));
      int sum = plus<FLOAT>(odd ? b : a, __shfl_xor_sync(FULL_MASK, odd ? a : b, 4));
      sum = plus<FLOAT>(sum, __shfl_xor_sync(FULL_MASK, sum, 2));
      sum = plus<FLOAT>(sum, __shfl_xor_sync(FULL_MASK, sum, 1));
      if (lane_id() % 4 == 0) mine[t][lane_id() % 16 / 4 * 2 + lane_id() / 16] = sum;
    }
  }

  DEVICE void share(int (*mine)[TILE_ROWS], bool is_float) const {
    if (is_float)
      share_as<true>(mine);
    else
      share_as<false>(mine);
  }
};

} // namespace stream

#endif

template <int COUNT, bool X_UNSIGNED> DEVICE void linear_stream_dot(const LinearParams &p) {
#if __CUDA_ARCH__ >= 900
  stream::run<stream::DotProducts<COUNT, X_UNSIGNED>>(p, stream::Stored(p));
#endif
}
