// What every kernel shares: types, loads and copies with a cache policy, reductions, programmatic dependent launch.
//
// Compiled by NVRTC without any header of the toolkit, so the few types and conversions needed are defined here.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__

// Blocks that registers must leave room for. An SM of sm_120 has shared memory for two at most, which fit anyway.
#if __CUDA_ARCH__ >= 1200
#define RESIDENT(blocks) 1
#else
#define RESIDENT(blocks) (blocks)
#endif

constexpr u32 WARP = 32;
constexpr u32 FULL_MASK = 0xffffffffu;

DEVICE u32 ceil_div(u32 a, u32 b) { return (a + b - 1) / b; }
DEVICE u32 lane_id() { return threadIdx.x % WARP; }
DEVICE u32 warp_id() { return threadIdx.x / WARP; }

// ---- number formats ----

DEVICE float bf16_to_f32(u16 bits) { return __uint_as_float((u32)bits << 16); }

DEVICE float f16_to_f32(u16 bits) {
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits));
  return out;
}

DEVICE u16 f32_to_f16(float value) {
  u16 out;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(value));
  return out;
}

DEVICE u16 f32_to_bf16(float value) {
  u16 out;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(value));
  return out;
}

// Toward zero, `low` in the low half; what is too large becomes the largest.
DEVICE u32 cut_pair_f16(float low, float high) {
  u32 out;
  asm("cvt.rz.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

// A product that is 0 where it would be less than the smallest normal number.
DEVICE float flush_multiply(float a, float b) {
  float out;
  asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(b));
  return out;
}

// Element types of runtime-typed memory, as in `plan::DType`.
template <u32 DTYPE> struct Element;
template <> struct Element<DTYPE_F32> {
  typedef float Type;
  static DEVICE float to_f32(Type v) { return v; }
  static DEVICE Type from_f32(float v) { return v; }
};
template <> struct Element<DTYPE_F16> {
  typedef u16 Type;
  static DEVICE float to_f32(Type v) { return f16_to_f32(v); }
  static DEVICE Type from_f32(float v) { return f32_to_f16(v); }
};
template <> struct Element<DTYPE_BF16> {
  typedef u16 Type;
  static DEVICE float to_f32(Type v) { return bf16_to_f32(v); }
  static DEVICE Type from_f32(float v) { return f32_to_bf16(v); }
};

// Rows of these have f32 scales beside them.
template <> struct Element<DTYPE_I8> {
  typedef i8 Type;
};

// Four signed bytes as f32. Byte b + 128 in the last bits of 2^23 is 2^23 + 128 + b: cheaper than to convert.
DEVICE void bytes_to_f32(u32 packed, float *out) {
  packed ^= 0x80808080u;
#pragma unroll
  for (u32 i = 0; i < 4; i++) out[i] = __uint_as_float(__byte_perm(packed, 0x4b000000u, 0x7540 + i)) - 8388736.0f;
}

// Eight consecutive elements as f32, read with 16-byte loads; 8-bit ones as integers, with one of 8 bytes.
template <u32 DTYPE> DEVICE void load8(const void *base, u64 index, float (&out)[8]) {
  if constexpr (DTYPE == DTYPE_F32) {
    const float4 *p = (const float4 *)((const float *)base + index);
    float4 a = p[0], b = p[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  } else if constexpr (DTYPE == DTYPE_I8) {
    uint2 v = *(const uint2 *)((const i8 *)base + index);
    bytes_to_f32(v.x, out);
    bytes_to_f32(v.y, out + 4);
  } else {
    uint4 v = *(const uint4 *)((const u16 *)base + index);
    u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      out[2 * i] = Element<DTYPE>::to_f32((u16)(words[i] & 0xffff));
      out[2 * i + 1] = Element<DTYPE>::to_f32((u16)(words[i] >> 16));
    }
  }
}

// The largest magnitude.
DEVICE float largest(float4 v) { return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))); }

// A row as 8-bit numbers, rounded half to even: of its largest magnitude -127 to 127, or 0 to 255 where none is negative.
struct Quantizer {
  float peak, limit, low, factor;

  DEVICE Quantizer(float peak, bool positive = false)
      : peak(peak), limit(positive ? 255.0f : 127.0f), low(positive ? 0.0f : -127.0f),
        factor(peak > 0.0f ? limit / peak : 0.0f) {}
  DEVICE float scale() const { return peak / limit; }
  // In the lowest byte: added to 1.5 times 2^23 a float has no room for a fraction.
  DEVICE u32 round(float v) const { return __float_as_uint(fminf(fmaxf(v * factor, low), limit) + 12582912.0f); }
  DEVICE u32 pack(float4 v) const {
    u32 front = __byte_perm(round(v.x), round(v.y), 0x0040), back = __byte_perm(round(v.z), round(v.w), 0x0040);
    return __byte_perm(front, back, 0x5410);
  }
  DEVICE uint2 pack(const float (&v)[8]) const {
    return make_uint2(pack(make_float4(v[0], v[1], v[2], v[3])), pack(make_float4(v[4], v[5], v[6], v[7])));
  }
};

// The division is off by two units in the last place, and 0 where silu is below 2^-119.
DEVICE float silu(float x) { return __fdividef(x, 1.0f + expf(-x)); }

DEVICE float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// ---- programmatic dependent launch: the next kernel of the stream may start now; wait for the previous one ----

DEVICE void pdl_launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

DEVICE void pdl_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- asynchronous copies to shared memory ----

DEVICE u32 smem_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// Weights are read once a step: they must not push activations out of L2.
DEVICE u64 evict_first_policy() {
  u64 policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// 16 bytes; zeros where `valid` is false, and then `src` is not read.
DEVICE void copy_async16(u32 dst, const void *src, bool valid, u64 policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(dst), "l"(src),
               "r"(valid ? 16 : 0), "l"(policy)
               : "memory");
}

DEVICE void copy_async16(u32 dst, const void *src, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(valid ? 16 : 0) : "memory");
}

DEVICE void copy_async4(u32 dst, const void *src) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(dst), "l"(src) : "memory");
}

DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING> DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// ---- loops over a row ----

// store(i, load(i)) for every i < n, by all threads: the loads of BATCH turns are in flight together, which the compiler
// would not dare where a store might overwrite what a later load reads.
template <int BATCH = 8, class Load, class Store> DEVICE void for_each(u32 n, Load load, Store store) {
  for (u32 first = threadIdx.x; first < n; first += BATCH * blockDim.x) {
    decltype(load(0u)) values[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      u32 i = first + j * blockDim.x;
      if (i < n) values[j] = load(i);
    }
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      u32 i = first + j * blockDim.x;
      if (i < n) store(i, values[j]);
    }
  }
}

// ---- reductions ----

DEVICE float warp_sum(float v) {
#pragma unroll
  for (u32 o = WARP / 2; o; o >>= 1) v += __shfl_xor_sync(FULL_MASK, v, o);
  return v;
}

DEVICE float warp_max(float v) {
#pragma unroll
  for (u32 o = WARP / 2; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(FULL_MASK, v, o));
  return v;
}

// Sum and maximum over the block, returned to every thread. `scratch` holds one float a warp. Ends with a barrier, so
// `scratch` can be used again at once.
DEVICE float block_sum(float v, float *scratch) {
  v = warp_sum(v);
  if (lane_id() == 0) scratch[warp_id()] = v;
  __syncthreads();
  u32 warps = blockDim.x / WARP;
  v = warp_sum(lane_id() < warps ? scratch[lane_id()] : 0.0f);
  __syncthreads();
  return v;
}

DEVICE float block_max(float v, float *scratch) {
  v = warp_max(v);
  if (lane_id() == 0) scratch[warp_id()] = v;
  __syncthreads();
  u32 warps = blockDim.x / WARP;
  v = warp_max(lane_id() < warps ? scratch[lane_id()] : 0.0f);
  __syncthreads();
  return v;
}
