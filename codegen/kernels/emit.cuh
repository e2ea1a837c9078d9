// How a float row leaves a kernel: `plan::Emit`. One block a row, the row in shared memory.
#pragma once
#include "common.cuh"

// Fast Walsh-Hadamard transform of every block of `block` columns, orthonormal, in place.
//
// Radix 2 between barriers: log2(block) passes over a row that is at most 86 KB. Ends with a barrier.
DEVICE void hadamard_row(float *row, u32 n, u32 block) {
  for (u32 half = 1; half < block; half *= 2) {
    for (u32 i = threadIdx.x; i < n / 2; i += blockDim.x) {
      u32 low = (i / half) * 2 * half + i % half;
      float a = row[low], b = row[low + half];
      row[low] = a + b;
      row[low + half] = a - b;
    }
    __syncthreads();
  }
  float norm = 1.0f / sqrtf((float)block);
  for (u32 i = threadIdx.x; i < n; i += blockDim.x) row[i] *= norm;
  __syncthreads();
}

// Rotates, then stores or quantizes row `t`. The caller has synchronized after writing `row`.
DEVICE void emit_row(float *row, u32 t, const Emit &e, float *scratch) {
  if (e.hadamard_block > 1) hadamard_row(row, e.n, e.hadamard_block);
  if (e.format == EMIT_FLOAT) {
    float *out = (float *)e.out + (u64)t * e.n;
    for (u32 i = threadIdx.x; i < e.n; i += blockDim.x) out[i] = row[i];
    return;
  }
  float peak = 0.0f;
  for (u32 i = threadIdx.x; i < e.n; i += blockDim.x) peak = fmaxf(peak, fabsf(row[i]));
  peak = block_max(peak, scratch);
  float limit = e.format == EMIT_U8 ? 255.0f : 127.0f;
  float low = e.format == EMIT_U8 ? 0.0f : -127.0f;
  float factor = peak > 0.0f ? limit / peak : 0.0f;
  if (threadIdx.x == 0) e.out_scale[t] = peak / limit;
  u8 *out = (u8 *)e.out + (u64)t * e.n_padded;
  for (u32 i = threadIdx.x * 4; i < e.n_padded; i += blockDim.x * 4) {
    u32 packed = 0;
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      float y = i + j < e.n ? row[i + j] : 0.0f;
      int q = (int)fminf(fmaxf(rintf(y * factor), low), limit);
      packed |= (u32)(q & 0xff) << (8 * j);
    }
    *(u32 *)(out + i) = packed;
  }
}
