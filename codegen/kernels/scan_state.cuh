// A scan state as it is kept between steps: plan::StateKind says how it is rounded, and where the random bits come from.
//
// The kernels of an f32 state know its type; those of a narrow one ask once a sequence, for they read and write it once.
#pragma once
#include "common.cuh"

namespace kept {

DEVICE u32 mix(u32 x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// The step ends with the sequence having taken `position` tokens.
DEVICE u32 step_key(u32 seed, u32 position) { return mix(position ^ mix(seed ^ 0x9e3779b9u)); }

constexpr u32 INFINITE = 0x7f800000u;

DEVICE u32 round_bf16(float value, u32 r) {
  u32 bits = __float_as_uint(value), magnitude = bits & 0x7fffffffu;
  u32 rounded = min((magnitude + r) >> 16, 0x7f7fu), special = magnitude == INFINITE ? 0x7f80u : 0x7fc0u;
  return ((bits >> 16) & 0x8000u) | (magnitude < INFINITE ? rounded : special);
}

DEVICE u32 round_f16(float value, u32 r) {
  u32 bits = __float_as_uint(value), magnitude = bits & 0x7fffffffu, result;
  if (magnitude >= INFINITE) {
    result = magnitude == INFINITE ? 0x7c00u : 0x7e00u;
  } else if (magnitude >= 0x38800000u) {
    result = min((magnitude - 0x38000000u + (r >> 3)) >> 13, 0x7bffu);
  } else {
    u32 cut = 126 - (magnitude >> 23), significand = (magnitude & 0x7fffffu) | 0x800000u;
    u32 shifted = cut < 16 ? r >> (16 - cut) : r << ((cut - 16) & 15);
    result = cut > 31 ? 0 : (significand + shifted) >> cut;
  }
  return ((bits >> 16) & 0x8000u) | result;
}

// No fused multiply-add: the CPU rounds the product.
DEVICE u32 round_i8(float value, float factor, u32 r) {
  float q = floorf(__fadd_rn(__fmul_rn(value, factor), (float)r * (1.0f / 65536.0f)));
  return (u32)(int)fminf(fmaxf(q, -127.0f), 127.0f) & 0xff;
}

// The state of one sequence and layer: rows of `size` columns, a multiple of 4.
template <bool NARROW> struct State {
  u64 base, scales;
  u32 size, dtype;

  DEVICE State(const SsmScanParams &p, u64 sequence_base) {
    base = sequence_base + p.state_offset;
    size = p.state_size;
    dtype = p.state_dtype;
    scales = base + (u64)p.heads * p.head_dim * p.state_size;
  }

  // Four columns of a row from column `at` on.
  DEVICE float4 load(u32 row, u32 at) const {
    u64 i = (u64)row * size + at;
    if constexpr (!NARROW) return *(const float4 *)((const float *)base + i);
    if (dtype == DTYPE_I8) {
      u32 w = *(const u32 *)(base + i);
      float scale = *((const float *)scales + row);
      return make_float4((float)(i8)w * scale, (float)(i8)(w >> 8) * scale, (float)(i8)(w >> 16) * scale,
                         (float)(i8)(w >> 24) * scale);
    }
    uint2 w = *(const uint2 *)((const u16 *)base + i);
    u16 a = (u16)w.x, b = (u16)(w.x >> 16), c = (u16)w.y, d = (u16)(w.y >> 16);
    if (dtype == DTYPE_F16) return make_float4(f16_to_f32(a), f16_to_f32(b), f16_to_f32(c), f16_to_f32(d));
    return make_float4(bf16_to_f32(a), bf16_to_f32(b), bf16_to_f32(c), bf16_to_f32(d));
  }

  // `peak` is the largest magnitude of the row.
  DEVICE void store(u32 row, u32 at, float4 v, u32 key, float peak) const {
    u64 i = (u64)row * size + at;
    if constexpr (!NARROW) {
      *(float4 *)((float *)base + i) = v;
    } else {
      u32 pair = (u32)(i >> 1), first = mix(key ^ pair), second = mix(key ^ (pair + 1));
      u32 r0 = first & 0xffff, r1 = first >> 16, r2 = second & 0xffff, r3 = second >> 16;
      if (dtype == DTYPE_I8) {
        float factor = peak > 0.0f ? 127.0f / peak : 0.0f;
        *(u32 *)(base + i) = peak > 0.0f ? round_i8(v.x, factor, r0) | round_i8(v.y, factor, r1) << 8 |
                                               round_i8(v.z, factor, r2) << 16 | round_i8(v.w, factor, r3) << 24
                                         : 0;
        if (at == 0) *((float *)scales + row) = peak / 127.0f;
      } else if (dtype == DTYPE_F16) {
        *(uint2 *)((u16 *)base + i) = make_uint2(round_f16(v.x, r0) | round_f16(v.y, r1) << 16,
                                                 round_f16(v.z, r2) | round_f16(v.w, r3) << 16);
      } else {
        *(uint2 *)((u16 *)base + i) = make_uint2(round_bf16(v.x, r0) | round_bf16(v.y, r1) << 16,
                                                 round_bf16(v.z, r2) | round_bf16(v.w, r3) << 16);
      }
    }
  }
};

// A row is shared by LANES lanes: lane l has columns (j * LANES + l) * 4 and three more.
template <u32 LANES> DEVICE u32 column(u32 j) { return (j * LANES + lane_id() % LANES) * 4; }

template <u32 LANES, bool NARROW, int J> DEVICE void load_row(const State<NARROW> &state, u32 row, bool there, float4 (&s)[J]) {
#pragma unroll
  for (int j = 0; j < J; j++) {
    u32 at = column<LANES>(j);
    s[j] = there && at < state.size ? state.load(row, at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
}

// Every lane of the warp takes part, whether its row is there or not.
template <u32 LANES, bool NARROW, int J>
DEVICE void store_row(const State<NARROW> &state, u32 row, bool there, const float4 (&s)[J], u32 key) {
  float peak = 0.0f;
  if constexpr (NARROW) {
#pragma unroll
    for (int j = 0; j < J; j++)
      peak = fmaxf(peak, fmaxf(fmaxf(fabsf(s[j].x), fabsf(s[j].y)), fmaxf(fabsf(s[j].z), fabsf(s[j].w))));
#pragma unroll
    for (u32 o = LANES / 2; o; o >>= 1) peak = fmaxf(peak, __shfl_xor_sync(FULL_MASK, peak, o));
  }
#pragma unroll
  for (int j = 0; j < J; j++) {
    u32 at = column<LANES>(j);
    if (there && at < state.size) state.store(row, at, s[j], key, peak);
  }
}

} // namespace kept
