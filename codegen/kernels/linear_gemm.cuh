// Plan kernel `linear` for 8-bit activations and many rows (prefill): W8, W4 two-level and W4 group.
//
//   out[t, n] = epilogue(sum_k x[t, k] * w[n, k], scales)
//
// Bound by arithmetic: 2048 x 4096 x 21504 is 361 GOP, 0.36 ms at 1000 TOPS.
//
// - A block computes 128 tokens x BLOCK_N weight rows; eight warps as 2 x 4, each 64 tokens x BLOCK_N / 4.
// - 128 columns of k a stage, copied asynchronously STAGES - 1 ahead. A stage is kept as planes of 64 bytes a row, so
//   that the 16-byte reads of a quad touch 128 consecutive bytes for two rows: no bank conflicts without padding.
// - W4 stays packed in shared memory; a lane expands the 32 nibbles it multiplies. The first plane of x holds the first
//   16 of every 32 columns (low nibbles), the second the others.
// - mma.sync m16n8k32, so the same source serves every target.
#pragma once
#include "epilogue.cuh"
#include "mma.cuh"

namespace gemm {

constexpr u32 THREADS = 256;
constexpr u32 BLOCK_M = 128;
constexpr u32 WARP_M = 64;
constexpr u32 M_TILES = WARP_M / 16;
constexpr u32 STAGE_K = 128;
constexpr u32 PLANE_BYTES = 64;

template <bool W4, u32 BLOCK_N> struct Stage {
  uint4 x[2][BLOCK_M][4];
  uint4 w[W4 ? 1 : 2][BLOCK_N][4];
};

// Columns of k of this stage, from device memory to the planes. Zeros beyond the rows and beyond k.
template <bool W4, u32 BLOCK_N>
DEVICE void request(const LinearParams &p, const LinearSegment &s, Stage<W4, BLOCK_N> &stage, u32 token0, u32 row0,
                    u32 step) {
#pragma unroll
  for (u32 i = threadIdx.x; i < BLOCK_M * 8; i += THREADS) {
    u32 token = i / 8, chunk = i % 8, k = step * STAGE_K + chunk * 16;
    bool valid = token0 + token < p.rows && k < p.k_padded;
    const u8 *src = (const u8 *)p.x + (valid ? (u64)(token0 + token) * p.k_padded + k : 0);
    uint4 *dst = W4 ? &stage.x[chunk % 2][token][chunk / 2] : &stage.x[chunk / 4][token][chunk % 4];
    copy_async16(smem_address(dst), src, valid);
  }
  constexpr u32 CHUNKS = W4 ? 4 : 8;
#pragma unroll
  for (u32 i = threadIdx.x; i < BLOCK_N * CHUNKS; i += THREADS) {
    u32 row = i / CHUNKS, chunk = i % CHUNKS, at = step * CHUNKS * 16 + chunk * 16;
    bool valid = row0 + row < s.out_features && at < s.row_bytes;
    const u8 *src = (const u8 *)s.weight + (valid ? (u64)(row0 + row) * s.row_bytes + at : 0);
    copy_async16(smem_address(&stage.w[chunk / 4][row][chunk % 4]), src, valid);
  }
}

struct XFragment {
  uint4 top[M_TILES], bottom[M_TILES];
  DEVICE void load(const uint4 (*plane)[4], u32 warp_token) {
    u32 row = lane_id() / 4, quad = lane_id() % 4;
#pragma unroll
    for (u32 m = 0; m < M_TILES; m++) {
      top[m] = plane[warp_token + m * 16 + row][quad];
      bottom[m] = plane[warp_token + m * 16 + row + 8][quad];
    }
  }
};

template <bool X_UNSIGNED> DEVICE void multiply(int (&acc)[4], const XFragment &x, u32 m, const u32 (&b)[4]) {
  mma_int8<X_UNSIGNED>(acc, x.top[m].x, x.bottom[m].x, x.top[m].y, x.bottom[m].y, b[0], b[1]);
  mma_int8<X_UNSIGNED>(acc, x.top[m].z, x.bottom[m].z, x.top[m].w, x.bottom[m].w, b[2], b[3]);
}

template <bool X_UNSIGNED, u32 BLOCK_N, u32 N_TILES>
DEVICE void step_w8(const Stage<false, BLOCK_N> &stage, u32 warp_token, u32 warp_row, int (&acc)[M_TILES][N_TILES][4]) {
#pragma unroll
  for (u32 plane = 0; plane < 2; plane++) {
    XFragment x;
    x.load(stage.x[plane], warp_token);
#pragma unroll
    for (u32 n = 0; n < N_TILES; n++) {
      uint4 v = stage.w[plane][warp_row + n * 8 + lane_id() / 4][lane_id() % 4];
      u32 b[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (u32 m = 0; m < M_TILES; m++) multiply<X_UNSIGNED>(acc[m][n], x, m, b);
    }
  }
}

// Group scales of the rows that are this lane's columns of the result, read a step ahead of their use.
template <u32 FORMAT, u32 N_TILES> struct GroupScales {
  u32 values[N_TILES][2];

  DEVICE void load(const LinearSegment &s, u32 row0, u32 step) {
    u32 group = min(step * STAGE_K / s.group_size, s.groups - 1), last = s.out_features - 1;
#pragma unroll
    for (u32 n = 0; n < N_TILES; n++)
#pragma unroll
      for (u32 j = 0; j < 2; j++) {
        u64 at = (u64)min(row0 + n * 8 + lane_id() % 4 * 2 + j, last) * s.groups + group;
        values[n][j] = FORMAT == FORMAT_W4_TWO_LEVEL ? ((const u8 *)s.group_scale)[at] : ((const u16 *)s.group_scale)[at];
      }
  }
};

template <u32 FORMAT, bool X_UNSIGNED, u32 BLOCK_N, u32 N_TILES>
DEVICE void step_w4(const GroupScales<FORMAT, N_TILES> &scales, const Stage<true, BLOCK_N> &stage, u32 warp_token,
                    u32 warp_row, int (&acc)[M_TILES][N_TILES][4]) {
  XFragment first, second;
  first.load(stage.x[0], warp_token);
  second.load(stage.x[1], warp_token);
#pragma unroll
  for (u32 n = 0; n < N_TILES; n++) {
    u32 low[4], high[4];
    unpack_int4_x16(stage.w[0][warp_row + n * 8 + lane_id() / 4][lane_id() % 4], low, high);
#pragma unroll
    for (u32 m = 0; m < M_TILES; m++) {
      int sum[4] = {0, 0, 0, 0};
      multiply<X_UNSIGNED>(sum, first, m, low);
      multiply<X_UNSIGNED>(sum, second, m, high);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        u32 scale = scales.values[n][i % 2];
        if constexpr (FORMAT == FORMAT_W4_TWO_LEVEL)
          acc[m][n][i] += (sum[i] >> 4) * (int)scale;
        else
          acc[m][n][i] = __float_as_int(fmaf((float)(sum[i] >> 4), f16_to_f32((u16)scale), __int_as_float(acc[m][n][i])));
      }
    }
  }
}

template <u32 FORMAT, u32 N_TILES>
DEVICE void store(const LinearParams &p, const LinearSegment &s, u32 token0, u32 row0, int (&acc)[M_TILES][N_TILES][4]) {
#pragma unroll
  for (u32 m = 0; m < M_TILES; m++)
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      u32 token = token0 + m * 16 + half * 8 + lane_id() / 4;
      if (token >= p.rows) continue;
      float x_scale = p.x_scale[token];
#pragma unroll
      for (u32 n = 0; n < N_TILES; n++)
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
          u32 row = row0 + n * 8 + lane_id() % 4 * 2 + j;
          int sum = acc[m][n][half * 2 + j];
          if (row >= s.out_features) continue;
          if constexpr (FORMAT == FORMAT_W4_GROUP)
            store_float(s, (u64)token * s.out_features + row, __int_as_float(sum) * x_scale);
          else
            store_integer(s, token, row, sum, x_scale, s.scale[row]);
        }
    }
}

} // namespace gemm

// A launch covers one segment: p.segments[0].
template <u32 FORMAT, u32 BLOCK_N, u32 STAGES, bool X_UNSIGNED> DEVICE void linear_gemm(const LinearParams &p) {
  using namespace gemm;
  constexpr bool W4 = FORMAT != FORMAT_W8;
  constexpr u32 WARP_N = BLOCK_N / 4, N_TILES = WARP_N / 8;
  extern __shared__ __align__(16) u8 shared[];
  Stage<W4, BLOCK_N> *stages = (Stage<W4, BLOCK_N> *)shared;
  const LinearSegment &s = p.segments[0];
  u32 token0 = blockIdx.x * BLOCK_M, row0 = blockIdx.y * BLOCK_N;
  u32 warp_token = warp_id() / 4 * WARP_M, warp_row = warp_id() % 4 * WARP_N;
  u32 steps = ceil_div(p.k_padded, STAGE_K);
  pdl_launch_dependents();
  pdl_wait();
#pragma unroll
  for (u32 i = 0; i < STAGES - 1; i++) {
    if (i < steps) request<W4, BLOCK_N>(p, s, stages[i], token0, row0, i);
    copy_async_commit();
  }
  int acc[M_TILES][N_TILES][4] = {};
  GroupScales<FORMAT, N_TILES> scales, next_scales;
  if constexpr (W4) scales.load(s, row0 + warp_row, 0);
  for (u32 step = 0; step < steps; step++) {
    copy_async_wait<STAGES - 2>();
    __syncthreads();
    u32 next = step + STAGES - 1;
    if (next < steps) request<W4, BLOCK_N>(p, s, stages[next % STAGES], token0, row0, next);
    copy_async_commit();
    if constexpr (W4) {
      next_scales.load(s, row0 + warp_row, step + 1);
      step_w4<FORMAT, X_UNSIGNED>(scales, stages[step % STAGES], warp_token, warp_row, acc);
      scales = next_scales;
    } else
      step_w8<X_UNSIGNED>(stages[step % STAGES], warp_token, warp_row, acc);
  }
  store<FORMAT>(p, s, token0 + warp_token, row0 + warp_row, acc);
}
