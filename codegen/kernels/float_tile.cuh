// Products of f32 matrices by multiply-adds: 128 x 128 values a block of 256 threads, 8 x 8 a thread.
//
// Bound by the multiply-adds: 67 TFLOP/s on an H200. What is multiplied goes through registers into one half of shared
// memory while the other half is multiplied. The sums of STEP products are added to those before: an error grows
// with the number of steps and not with that of the products.
#pragma once
#include "common.cuh"

namespace float_tile {

constexpr u32 STEP = 16;
// Rows of shared memory are shifted by four banks, so that a store down a column meets few of its kind.
constexpr u32 PITCH = FLOAT_TILE + 4;

typedef float Half[STEP][PITCH];
typedef float Sums[8][8];

// Operand [depth, width], the sum going down its columns: whole tiles from `column` on, aligned to 16 bytes.
struct Down {
  const float *base;
  u32 pitch, column;
  float4 held[2];

  DEVICE void fetch(u32 depth) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      u32 row = depth + threadIdx.x / 32 + 8 * i;
      held[i] = *(const float4 *)(base + (u64)row * pitch + column + threadIdx.x % 32 * 4);
    }
  }
  DEVICE void put(Half &half) const {
#pragma unroll
    for (u32 i = 0; i < 2; i++) *(float4 *)&half[threadIdx.x / 32 + 8 * i][threadIdx.x % 32 * 4] = held[i];
  }
};

// Operand [width, depth], the sum going along its rows, of which there are `rows`; zeros beyond.
template <u32 DTYPE> struct Along {
  typedef typename Element<DTYPE>::Type Type;
  const Type *base;
  u32 pitch, depth, first, rows;
  float held[2][4];

  DEVICE void fetch(u32 at) {
    at += threadIdx.x % 4 * 4;
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      u32 row = first + threadIdx.x / 4 + 64 * i;
      const Type *from = base + (u64)row * pitch + at;
      if (row < rows && at + 4 <= depth && pitch % 4 == 0) {
        load4(from, held[i]);
      } else {
#pragma unroll
        for (u32 j = 0; j < 4; j++) held[i][j] = row < rows && at + j < depth ? Element<DTYPE>::to_f32(from[j]) : 0.0f;
      }
    }
  }
  DEVICE void put(Half &half) const {
#pragma unroll
    for (u32 i = 0; i < 2; i++)
#pragma unroll
      for (u32 j = 0; j < 4; j++) half[threadIdx.x % 4 * 4 + j][threadIdx.x / 4 + 64 * i] = held[i][j];
  }
  static DEVICE void load4(const Type *from, float (&out)[4]) {
    if constexpr (DTYPE == DTYPE_F32) {
      float4 v = *(const float4 *)from;
      out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
    } else {
      uint2 v = *(const uint2 *)from;
      out[0] = Element<DTYPE>::to_f32((u16)(v.x & 0xffff)), out[1] = Element<DTYPE>::to_f32((u16)(v.x >> 16));
      out[2] = Element<DTYPE>::to_f32((u16)(v.y & 0xffff)), out[3] = Element<DTYPE>::to_f32((u16)(v.y >> 16));
    }
  }
};

// Row and column, within the tile, of a thread's value: two groups of four, 16 rows or 32 columns apart. Warps are dealt
// 32 x 64 values.
DEVICE u32 row_of(u32 i) { return warp_id() / 2 * 32 + lane_id() / 8 * 4 + i % 4 + i / 4 * 16; }
DEVICE u32 column_of(u32 j) { return warp_id() % 2 * 64 + lane_id() % 8 * 4 + j % 4 + j / 4 * 32; }

DEVICE void load8(const float (&row)[PITCH], u32 first, u32 apart, float (&out)[8]) {
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    float4 v = *(const float4 *)&row[first + apart * i];
    out[4 * i] = v.x, out[4 * i + 1] = v.y, out[4 * i + 2] = v.z, out[4 * i + 3] = v.w;
  }
}

// use(row, column, value) of this thread's values of a^T b, the sum over `depth`, behind which operands have zeros up to a
// multiple of STEP. Row and column are within the tile.
template <class A, class B, class Use> DEVICE void multiply(A a, B b, u32 depth, Use use) {
  __shared__ __align__(16) Half halves[2][2];
  a.fetch(0), b.fetch(0);
  a.put(halves[0][0]), b.put(halves[0][1]);
  __syncthreads();
  Sums sum = {};
  u32 turn = 0;
  for (u32 at = 0; at < depth; at += STEP) {
    bool more = at + STEP < depth;
    if (more) a.fetch(at + STEP), b.fetch(at + STEP);
    Sums part = {};
#pragma unroll
    for (u32 k = 0; k < STEP; k++) {
      float x[8], y[8];
      load8(halves[turn][0][k], row_of(0), 16, x);
      load8(halves[turn][1][k], column_of(0), 32, y);
#pragma unroll
      for (u32 i = 0; i < 8; i++)
#pragma unroll
        for (u32 j = 0; j < 8; j++) part[i][j] = fmaf(x[i], y[j], part[i][j]);
    }
#pragma unroll
    for (u32 i = 0; i < 8; i++)
#pragma unroll
      for (u32 j = 0; j < 8; j++) sum[i][j] += part[i][j];
    turn ^= 1;
    if (more) a.put(halves[turn][0]), b.put(halves[turn][1]);
    __syncthreads();
  }
#pragma unroll
  for (u32 i = 0; i < 8; i++)
#pragma unroll
    for (u32 j = 0; j < 8; j++) use(row_of(i), column_of(j), sum[i][j]);
}

} // namespace float_tile
