// Plan kernels `rms_norm` and `linear` in one launch, for one row: as linear_stream_row, with a prologue in which every block
// makes the 8-bit row for itself.
//
// The row is 16 KB of 8B's residual, read from L2 by every block while its first weights are on their way; a launch of
// its own would take longer than that. The first block also stores the row, for whoever else reads it.
//
// Supports up to NORM_MAX_COLUMNS columns, in multiples of 4.
#pragma once
#include "linear_stream_row.cuh"
#include "norm_row.cuh"

#if __CUDA_ARCH__ >= 900

namespace stream {

struct alignas(16) NormShared {
  u8 x[NORM_MAX_COLUMNS];
  float pieces[NORM_MAX_COLUMNS / norm_row::PIECE];
  float peaks[WARPS];
  float x_scale;
};

struct Normed {
  static constexpr bool CLUSTERED = false;
  static constexpr u32 TURNS = NORM_MAX_COLUMNS / norm_row::PIECE / WARPS;
  const RmsNormParams &p;
  NormShared &shared;
  const u8 *x;
  const float *x_scale;
  float4 weight[TURNS];

  DEVICE Normed(const RmsNormParams &p, NormShared &shared) : p(p), shared(shared), x(shared.x), x_scale(&shared.x_scale) {}

  DEVICE u32 smem_bytes() const { return sizeof(NormShared); }
  DEVICE void init() {}
  DEVICE void end() {}

  DEVICE u32 column(u32 turn) const { return (turn * WARPS + warp_id()) * norm_row::PIECE + lane_id() * 4; }

  DEVICE void begin() {
#pragma unroll
    for (u32 i = 0; i < TURNS; i++) {
      bool there = p.weight && column(i) < p.emit.n;
      weight[i] = there ? *(const float4 *)(p.weight + column(i)) : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    }
  }

  DEVICE void finish() {
    float4 v[TURNS];
#pragma unroll
    for (u32 i = 0; i < TURNS; i++)
      v[i] = column(i) < p.emit.n ? *(const float4 *)(p.x + column(i)) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (u32 i = 0; i < TURNS; i++) {
      float squares = warp_sum(norm_row::squares(v[i]));
      if (lane_id() == 0) shared.pieces[i * WARPS + warp_id()] = squares;
    }
    consumers_barrier();
    float inverse = norm_row::inverse(norm_row::total(shared.pieces, ceil_div(p.emit.n, norm_row::PIECE)), p.emit.n, p.eps);
    float peak = 0.0f;
#pragma unroll
    for (u32 i = 0; i < TURNS; i++) {
      v[i] = norm_row::weighted(v[i], inverse, weight[i]);
      peak = fmaxf(peak, largest(v[i]));
    }
    peak = warp_max(peak);
    if (lane_id() == 0) shared.peaks[warp_id()] = peak;
    consumers_barrier();
    peak = warp_max(shared.peaks[lane_id() % WARPS]);
    Quantizer quantizer(peak);
    if (threadIdx.x == 0) {
      shared.x_scale = quantizer.scale();
      if (blockIdx.x == 0) *p.emit.out_scale = quantizer.scale();
    }
#pragma unroll
    for (u32 i = 0; i < TURNS; i++) {
      if (column(i) >= p.emit.n_padded) continue;
      u32 packed = quantizer.pack(v[i]);
      *(u32 *)(shared.x + column(i)) = packed;
      if (blockIdx.x == 0) *(u32 *)((u8 *)p.emit.out + column(i)) = packed;
    }
    consumers_barrier();
  }
};

} // namespace stream

#endif

DEVICE void linear_stream_norm(const NormLinearParams &p) {
#if __CUDA_ARCH__ >= 900
  using namespace stream;
  extern __shared__ __align__(128) u8 dynamic[];
  NormShared &normed = *(NormShared *)(dynamic + sizeof(Shared) + sizeof(Partials<1>));
  run<WarpRow>(p.linear, Normed(p.norm, normed));
#endif
}
