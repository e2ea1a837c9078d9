// Calibration: what a linear reads, measured, or made ready for the sums of gram.cuh.
//
// All are bound by memory: each value is read once.
#pragma once
#include "common.cuh"

namespace observe {

// f64: sums of squares of whole rows and columns. Added in a fixed order.
DEVICE double block_sum(double v) {
  __shared__ double scratch[256];
  scratch[threadIdx.x] = v;
  for (u32 half = 128; half; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
  }
  __syncthreads();
  return scratch[0];
}

DEVICE float value(const ObserveParams &p, u64 at, float scale) {
  if (p.format == EMIT_FLOAT) return ((const float *)p.x)[at];
  return (p.format == EMIT_U8 ? (float)((const u8 *)p.x)[at] : (float)((const i8 *)p.x)[at]) * scale;
}

} // namespace observe

// One block a row: the input of the quantized model as floats, what it lacks of that of the float model, both padded with
// zeros; and the squares of what it lacks and of what there should be.
DEVICE void observe_rows(const ObserveParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  u32 row = blockIdx.x;
  double lost = 0.0, whole = 0.0;
  float scale = p.format != EMIT_FLOAT && row < p.rows ? p.x_scale[row] : 1.0f;
  for (u32 i = threadIdx.x; i < p.pitch; i += blockDim.x) {
    float x = 0.0f, missing = 0.0f;
    if (row < p.rows && i < p.n) {
      x = observe::value(p, (u64)row * p.x_pitch + i, scale);
      if (p.exact) {
        float exact = p.exact[(u64)row * p.n + i];
        missing = exact - x;
        lost += (double)missing * missing;
        whole += (double)exact * exact;
      }
    }
    p.values[(u64)row * p.pitch + i] = x;
    if (p.missing) p.missing[(u64)row * p.pitch + i] = missing;
  }
  if (!p.exact) return;
  lost = observe::block_sum(lost);
  whole = observe::block_sum(whole);
  if (threadIdx.x == 0 && row < p.rows) p.squares[2 * row] = lost, p.squares[2 * row + 1] = whole;
}

// One block a row: what the outputs lack, and the residual stream with them; padded with zeros.
DEVICE void observe_residual(const LackParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  u32 row = blockIdx.x;
  for (u32 i = threadIdx.x; i < p.pitch; i += blockDim.x) {
    u64 at = (u64)row * p.n + i;
    bool inside = row < p.rows && i < p.n;
    p.out[(u64)row * p.pitch + i] = inside ? p.outputs[at] + (p.exact[at] - p.found[at]) : 0.0f;
  }
}

// One thread a channel of CHANNEL_ROWS tokens: the largest magnitude, and the sum of squares.
DEVICE void observe_channels(const ChannelParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  u32 channel = blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * CHANNEL_ROWS;
  if (channel >= p.n) return;
  float absmax = 0.0f;
  double squares = 0.0;
#pragma unroll 4
  for (u32 row = first; row < min(first + CHANNEL_ROWS, p.rows); row++) {
    float v = p.x[(u64)row * p.n + channel];
    absmax = fmaxf(absmax, fabsf(v));
    squares += (double)(v * v);
  }
  u64 at = (u64)blockIdx.y * p.n + channel;
  p.absmax[at] = absmax;
  p.squares[at] = squares;
}
