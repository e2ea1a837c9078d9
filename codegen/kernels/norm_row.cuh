// RMSNorm of a row in an order of additions that does not depend on the number of warps, so that a norm in front of a
// linear and a norm in a launch of its own agree to the bit.
//
// Pieces of 128 columns are summed by a warp each, four columns a lane; then the pieces, by one warp.
#pragma once
#include "common.cuh"

namespace norm_row {

constexpr u32 PIECE = 4 * WARP;

// Four columns from `at` on; zeros beyond `n`. Where n is a multiple of 4 every row is aligned to 16 bytes.
DEVICE float4 load(const float *x, u32 at, u32 n) {
  if (n % 4 == 0) return at < n ? *(const float4 *)(x + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  return make_float4(at < n ? x[at] : 0.0f, at + 1 < n ? x[at + 1] : 0.0f, at + 2 < n ? x[at + 2] : 0.0f,
                     at + 3 < n ? x[at + 3] : 0.0f);
}

DEVICE float4 load(const float *x, const float *delta, u32 at, u32 n) {
  float4 v = load(x, at, n);
  if (!delta) return v;
  float4 d = load(delta, at, n);
  return make_float4(v.x + d.x, v.y + d.y, v.z + d.z, v.w + d.w);
}

DEVICE void store(float *x, u32 at, u32 n, float4 v) {
  if (n % 4 == 0) {
    if (at < n) *(float4 *)(x + at) = v;
    return;
  }
  float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (u32 j = 0; j < 4; j++)
    if (at + j < n) x[at + j] = values[j];
}

// use(i, load(i)) for every piece of this warp: the loads of two turns are in flight together.
template <class Load, class Use> DEVICE void for_pieces(u32 count, Load load, Use use) {
  u32 warps = blockDim.x / WARP;
  for (u32 first = warp_id(); first < count; first += 2 * warps) {
    float4 values[2];
#pragma unroll
    for (u32 j = 0; j < 2; j++)
      if (first + j * warps < count) values[j] = load(first + j * warps);
#pragma unroll
    for (u32 j = 0; j < 2; j++)
      if (first + j * warps < count) use(first + j * warps, values[j]);
  }
}

DEVICE float squares(float4 v) { return fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, v.w * v.w))); }

// Sum of all pieces, for every lane of a warp.
DEVICE float total(const float *pieces, u32 count) {
  float sum = 0.0f;
  for (u32 i = lane_id(); i < count; i += WARP) sum += pieces[i];
  return warp_sum(sum);
}

DEVICE float inverse(float squares, u32 n, float eps) { return 1.0f / sqrtf(squares / n + eps); }

DEVICE float4 weighted(float4 v, float inverse, float4 weight) {
  return make_float4(v.x * inverse * weight.x, v.y * inverse * weight.y, v.z * inverse * weight.z, v.w * inverse * weight.w);
}

} // namespace norm_row
