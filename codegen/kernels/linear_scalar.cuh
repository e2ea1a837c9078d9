// Plan kernel `linear` for what the integer tensor cores cannot take: float weights with f32 activations, and 4-bit
// weights whose groups are not a multiple of 128. One warp a weight row, TOKENS rows of x at a time.
//
// Bound by the weights for one row of x (bf16 8B: 15 GB, 3.3 ms on an H200), by f32 multiply-adds beyond a few.
#pragma once
#include "embed.cuh"
#include "epilogue.cuh"

namespace scalar {

constexpr u32 WARPS = 8;

template <int TOKENS> DEVICE void store_row(const LinearParams &p, const LinearSegment &s, u32 row, u32 token0,
                                            float (&sum)[TOKENS]) {
#pragma unroll
  for (int t = 0; t < TOKENS; t++) {
    float y = warp_sum(sum[t]);
    if (lane_id() == t && token0 + t < p.rows) store_float(s, (u64)(token0 + t) * s.out_features + row, y);
  }
}

// Float weights: 8 elements a lane and step where rows are aligned, else one.
template <u32 DTYPE, int TOKENS>
DEVICE void float_row(const LinearParams &p, const LinearSegment &s, u32 row, u32 token0, float (&sum)[TOKENS]) {
  const float *x = (const float *)p.x + (u64)token0 * p.k;
  u64 base = (u64)row * p.k;
  if (p.k % 8 == 0) {
#pragma unroll 2
    for (u32 k = lane_id() * 8; k < p.k; k += WARP * 8) {
      float w[8];
      load8<DTYPE>(s.weight, base + k, w);
#pragma unroll
      for (int t = 0; t < TOKENS; t++) {
        if (token0 + t >= p.rows) break;
        float v[8];
        load8<DTYPE_F32>(x, (u64)t * p.k + k, v);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[t] = fmaf(w[i], v[i], sum[t]);
      }
    }
    return;
  }
  for (u32 k = lane_id(); k < p.k; k += WARP) {
    float w = Element<DTYPE>::to_f32(((const typename Element<DTYPE>::Type *)s.weight)[base + k]);
#pragma unroll
    for (int t = 0; t < TOKENS; t++)
      if (token0 + t < p.rows) sum[t] = fmaf(w, x[(u64)t * p.k + k], sum[t]);
  }
}

// Integer weights: exact sums within a group, whichever its size. Groups are dealt to lanes.
template <int TOKENS>
DEVICE void group_row(const LinearParams &p, const LinearSegment &s, u32 row, u32 token0, float (&sum)[TOKENS],
                      int (&acc)[TOKENS]) {
  const u8 *w = (const u8 *)s.weight + (u64)row * s.row_bytes;
  for (u32 group = lane_id(); group < s.groups; group += WARP) {
    u64 at = (u64)row * s.groups + group;
    u32 end = min((group + 1) * s.group_size, p.k);
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
      if (token0 + t >= p.rows) break;
      const u8 *x = (const u8 *)p.x + (u64)(token0 + t) * p.k_padded;
      int part = 0;
      for (u32 k = group * s.group_size; k < end; k++)
        part += unpack_int4(w, k) * (p.x_unsigned ? (int)x[k] : (int)(i8)x[k]);
      if (s.format == FORMAT_W4_TWO_LEVEL)
        acc[t] += part * ((const u8 *)s.group_scale)[at];
      else
        sum[t] += (float)part * f16_to_f32(((const u16 *)s.group_scale)[at]);
    }
  }
}

template <int TOKENS>
DEVICE void store_group_row(const LinearParams &p, const LinearSegment &s, u32 row, u32 token0, float (&sum)[TOKENS],
                            int (&acc)[TOKENS]) {
#pragma unroll
  for (int t = 0; t < TOKENS; t++) {
    float y = warp_sum(sum[t]);
    int total = acc[t];
#pragma unroll
    for (u32 o = WARP / 2; o; o >>= 1) total += __shfl_xor_sync(FULL_MASK, total, o);
    u32 token = token0 + t;
    if (lane_id() != t || token >= p.rows) continue;
    if (s.format == FORMAT_W4_TWO_LEVEL)
      store_integer(s, token, row, total, p.x_scale[token], s.scale[row]);
    else
      store_float(s, (u64)token * s.out_features + row, y * p.x_scale[token]);
  }
}

} // namespace scalar

// A launch covers one segment: p.segments[0].
template <int TOKENS> DEVICE void linear_scalar(const LinearParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  const LinearSegment &s = p.segments[0];
  u32 row = blockIdx.x * scalar::WARPS + warp_id(), token0 = blockIdx.y * TOKENS;
  if (row >= s.out_features) return;
  float sum[TOKENS] = {};
  int acc[TOKENS] = {};
  switch (s.format) {
  case FORMAT_F32: scalar::float_row<DTYPE_F32>(p, s, row, token0, sum); break;
  case FORMAT_F16: scalar::float_row<DTYPE_F16>(p, s, row, token0, sum); break;
  case FORMAT_BF16: scalar::float_row<DTYPE_BF16>(p, s, row, token0, sum); break;
  default: scalar::group_row(p, s, row, token0, sum, acc); scalar::store_group_row(p, s, row, token0, sum, acc); return;
  }
  scalar::store_row(p, s, row, token0, sum);
}
