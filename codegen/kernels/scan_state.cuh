// A scan state as it is kept between steps: plan::StateKind says how it is rounded, and where the random bits come from.
//
// The kernels of an f32 state know its type; those of a narrow one ask once a sequence, for they read and write it once.
#pragma once
#include "common.cuh"

namespace kept {

// Scatters 32 bits but for the last step, which changes the low half alone.
DEVICE u32 scatter(u32 x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  return (x ^ (x >> 15)) * 0x846ca68bu;
}

DEVICE u32 mix(u32 x) {
  x = scatter(x);
  return x ^ (x >> 16);
}

// Sixteen random bits for each of two elements: the high half of a scattered number, and its halves combined.
DEVICE u32 high_noise(u32 x) { return x >> 16; }
DEVICE u32 low_noise(u32 x) { return high_noise(x) ^ (x & 0xffff); }

// The step ends with the sequence having taken `position` tokens.
DEVICE u32 step_key(u32 seed, u32 position) { return mix(position ^ mix(seed ^ 0x9e3779b9u)); }

constexpr u32 INFINITE = 0x7f800000u;

// Two values as f16, each rounded by 16 random bits r: up in r of 2^16 cases, where it lies so far above the number below.
//
// What r is added to is cut to the units in which r counts, 2^-16 of those that are kept; so the sum is exact until it is cut.
DEVICE u32 round_pair_f16(float a, float b, u32 noise) {
  auto with = [](float value, u32 eighth_and_r) {
    // Below 2^-32 there is nothing to round up: there it is no normal number for a moment.
    float magnitude = flush_multiply(fabsf(value), 0x1p-94f) * 0x1p94f;
    float power = fmaxf(__uint_as_float(__float_as_uint(magnitude) & INFINITE), 0x1p-14f);
    return __fmaf_rz(__uint_as_float(eighth_and_r), power, __fmaf_rd(power, -0.125f, magnitude));
  };
  u32 signs = __byte_perm(__float_as_uint(a), __float_as_uint(b), 0x7632) & 0x80008000u;
  // 1/8 + r 2^-26, r as high_noise and low_noise say.
  u32 high = __byte_perm(noise, 0x3e000000u, 0x7632), low = high ^ (noise & 0xffff);
  return signs | cut_pair_f16(with(a, low), with(b, high));
}

DEVICE u32 round_pair_bf16(float a, float b, u32 noise) {
  auto limited = [](float value) {
    float most = __uint_as_float(0x7f7f0000u);
    return __float_as_uint(fminf(fmaxf(value, -most), most));
  };
  return __byte_perm(limited(a) + low_noise(noise), limited(b) + high_noise(noise), 0x7632);
}

// `rounded`, or what is infinite or no number, which the above take for something else.
template <u32 DTYPE> DEVICE u32 keep_special(float value, u32 rounded) {
  u32 bits = __float_as_uint(value), magnitude = bits & 0x7fffffffu;
  u32 infinite = DTYPE == DTYPE_F16 ? 0x7c00 : 0x7f80, none = DTYPE == DTYPE_F16 ? 0x7e00 : 0x7fc0;
  return magnitude < INFINITE ? rounded : ((bits >> 16) & 0x8000u) | (magnitude == INFINITE ? infinite : none);
}

template <u32 DTYPE> DEVICE u32 keep_special(float a, float b, u32 pair) {
  return keep_special<DTYPE>(a, pair & 0xffff) | keep_special<DTYPE>(b, pair >> 16) << 16;
}

// No fused multiply-add: the CPU rounds the product.
DEVICE u32 round_i8(float value, float factor, u32 r) {
  float q = floorf(__fadd_rn(__fmul_rn(value, factor), (float)r * (1.0f / 65536.0f)));
  return (u32)(int)fminf(fmaxf(q, -127.0f), 127.0f) & 0xff;
}

// Four values of a 16-bit type.
template <u32 DTYPE> DEVICE float4 unpack4(uint2 w) {
  auto one = [](u32 bits) { return Element<DTYPE>::to_f32((u16)bits); };
  return make_float4(one(w.x & 0xffff), one(w.x >> 16), one(w.y & 0xffff), one(w.y >> 16));
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
};

// A row is shared by LANES lanes: lane l has columns (j * LANES + l) * 4 and three more.
template <u32 LANES> DEVICE u32 column(u32 j) { return (j * LANES + lane_id() % LANES) * 4; }

// What a lane has of a row, as it is kept: nobody waits for it before it is unpacked.
template <u32 LANES, bool NARROW, int J> struct Row;

template <u32 LANES, int J> struct Row<LANES, false, J> {
  float4 values[J];

  DEVICE Row(const State<false> &state, u32 row, bool there) {
#pragma unroll
    for (int j = 0; j < J; j++) {
      u32 at = column<LANES>(j);
      values[j] = there && at < state.size ? *(const float4 *)((const float *)state.base + (u64)row * state.size + at)
                                           : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
  }

  DEVICE void unpack(const State<false> &, float4 (&s)[J]) const {
#pragma unroll
    for (int j = 0; j < J; j++) s[j] = values[j];
  }
};

template <u32 LANES, int J> struct Row<LANES, true, J> {
  uint2 bits[J];
  float scale;

  DEVICE Row(const State<true> &state, u32 row, bool there) {
    bool bytes = state.dtype == DTYPE_I8;
#pragma unroll
    for (int j = 0; j < J; j++) {
      u32 at = column<LANES>(j), i = row * state.size + at;
      bits[j] = make_uint2(0, 0);
      if (!there || at >= state.size) continue;
      if (bytes)
        bits[j].x = *(const u32 *)(state.base + i);
      else
        bits[j] = *(const uint2 *)((const u16 *)state.base + i);
    }
    scale = bytes && there ? *((const float *)state.scales + row) : 0.0f;
  }

  DEVICE void unpack(const State<true> &state, float4 (&s)[J]) const {
#pragma unroll
    for (int j = 0; j < J; j++) {
      u32 w = bits[j].x;
      if (state.dtype == DTYPE_I8)
        s[j] = make_float4((float)(i8)w * scale, (float)(i8)(w >> 8) * scale, (float)(i8)(w >> 16) * scale,
                           (float)(i8)(w >> 24) * scale);
      else
        s[j] = state.dtype == DTYPE_F16 ? unpack4<DTYPE_F16>(bits[j]) : unpack4<DTYPE_BF16>(bits[j]);
    }
  }
};

template <u32 LANES, bool NARROW, int J> DEVICE void load_row(const State<NARROW> &state, u32 row, bool there, float4 (&s)[J]) {
  Row<LANES, NARROW, J>(state, row, there).unpack(state, s);
}

// Random bits of what a lane has of a row: those of a float4, which are two pairs, side by side. `key` is the step's.
template <u32 LANES, bool NARROW, int J> struct Noise {
  u32 bits[J][2];

  DEVICE Noise(const State<NARROW> &state, u32 row, u32 key) {
    if constexpr (!NARROW) return;
    u32 pair = (row * state.size + column<LANES>(0)) / 2;
#pragma unroll
    for (int j = 0; j < J; j++) {
      bits[j][0] = scatter(key ^ (pair + j * LANES * 2));
      bits[j][1] = scatter(key ^ (pair + j * LANES * 2) ^ 1);
    }
  }
};

template <u32 DTYPE, u32 LANES, int J>
DEVICE void store_halves(const State<true> &state, u32 row, bool there, const float4 (&s)[J],
                         const Noise<LANES, true, J> &noise, bool finite) {
  uint2 packed[J], *to = (uint2 *)((u16 *)state.base + (row * state.size + column<LANES>(0)));
  auto round = [](float a, float b, u32 bits) {
    return DTYPE == DTYPE_F16 ? round_pair_f16(a, b, bits) : round_pair_bf16(a, b, bits);
  };
#pragma unroll
  for (int j = 0; j < J; j++)
    packed[j] = make_uint2(round(s[j].x, s[j].y, noise.bits[j][0]), round(s[j].z, s[j].w, noise.bits[j][1]));
  if (__any_sync(FULL_MASK, !finite)) {
#pragma unroll
    for (int j = 0; j < J; j++) {
      packed[j].x = keep_special<DTYPE>(s[j].x, s[j].y, packed[j].x);
      packed[j].y = keep_special<DTYPE>(s[j].z, s[j].w, packed[j].y);
    }
  }
#pragma unroll
  for (int j = 0; j < J; j++)
    if (there && column<LANES>(j) < state.size) to[j * LANES] = packed[j];
}

template <u32 LANES, int J>
DEVICE void store_bytes(const State<true> &state, u32 row, bool there, const float4 (&s)[J],
                        const Noise<LANES, true, J> &noise) {
  float peak = 0.0f;
#pragma unroll
  for (int j = 0; j < J; j++) peak = fmaxf(peak, largest(s[j]));
#pragma unroll
  for (u32 o = LANES / 2; o; o >>= 1) peak = fmaxf(peak, __shfl_xor_sync(FULL_MASK, peak, o));
  if (!there) return;
  float factor = peak > 0.0f ? 127.0f / peak : 0.0f;
  if (lane_id() % LANES == 0) *((float *)state.scales + row) = peak / 127.0f;
  auto round = [=](float a, float b, u32 bits) {
    return round_i8(a, factor, low_noise(bits)) | round_i8(b, factor, high_noise(bits)) << 8;
  };
#pragma unroll
  for (int j = 0; j < J; j++) {
    u32 at = column<LANES>(j);
    u32 low = round(s[j].x, s[j].y, noise.bits[j][0]), high = round(s[j].z, s[j].w, noise.bits[j][1]);
    if (at < state.size) *(u32 *)(state.base + (row * state.size + at)) = peak > 0.0f ? low | high << 16 : 0;
  }
}

// Every lane of the warp takes part, whether its row is there or not. `finite` says that no value of the row is infinite or no
// number: then nobody looks for one.
template <u32 LANES, bool NARROW, int J>
DEVICE void store_row(const State<NARROW> &state, u32 row, bool there, const float4 (&s)[J],
                      const Noise<LANES, NARROW, J> &noise, bool finite = false) {
  if constexpr (!NARROW) {
#pragma unroll
    for (int j = 0; j < J; j++) {
      u32 at = column<LANES>(j);
      if (there && at < state.size) *(float4 *)((float *)state.base + (u64)row * state.size + at) = s[j];
    }
  } else if (state.dtype == DTYPE_I8) {
    store_bytes<LANES>(state, row, there, s, noise);
  } else if (state.dtype == DTYPE_F16) {
    store_halves<DTYPE_F16>(state, row, there, s, noise, finite);
  } else {
    store_halves<DTYPE_BF16>(state, row, there, s, noise, finite);
  }
}

// The same of a row whose random bits nobody has made before.
template <u32 LANES, bool NARROW, int J>
DEVICE void store_row(const State<NARROW> &state, u32 row, bool there, const float4 (&s)[J], u32 key) {
  store_row(state, row, there, s, Noise<LANES, NARROW, J>(state, row, key));
}

} // namespace kept
