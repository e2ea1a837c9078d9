// Plan kernel `conv1d`: causal depthwise convolution over time, SiLU, and the new window of every sequence.
//
// Bound by memory: 2048 tokens of 8B read and write 84 MB each, 38 us at 4.45 TB/s.
//
// A thread computes CONV_CHUNK steps of one channel, so neighbours read neighbouring columns. The block of the first
// chunk alone reads and replaces the window: chunks are longer than it, and later ones find all inputs in x.
#pragma once
#include "common.cuh"

DEVICE float conv_input(const Conv1dParams &p, const float *state, u32 start, int t, u32 c) {
  if (t >= 0) return p.x[(u64)(start + t) * p.channels + c];
  return state[(u64)c * (p.taps - 1) + (p.taps - 1) + t];
}

// Some steps of a channel; `taps` that are known at compile time take no time for those that are not there.
template <int MOST> struct Convolution {
  float w[MOST], seen[MOST]; // inputs of a step, oldest first
  float bias;

  DEVICE void load_weights(const Conv1dParams &p, u32 c) {
#pragma unroll
    for (u32 j = 0; j < MOST; j++) w[j] = j < p.taps ? p.weight[(u64)c * p.taps + j] : 0.0f;
    bias = p.bias ? p.bias[c] : 0.0f;
  }

  DEVICE void load_window(const Conv1dParams &p, const float *state, u32 start, u32 first, u32 c, int back) {
#pragma unroll
    for (int j = 1; j < MOST; j++)
      seen[j] = j <= back ? conv_input(p, state, start, (int)first - back + j - 1, c) : 0.0f;
  }

  DEVICE float step(float newest, int back) {
    float sum = bias;
#pragma unroll
    for (int j = 0; j + 1 < MOST; j++) seen[j] = seen[j + 1];
#pragma unroll
    for (int j = 0; j < MOST; j++) {
      if (j == back) seen[j] = newest;
      sum = fmaf(w[j], seen[j], sum);
    }
    return silu(sum);
  }

  // Each input is read once, CONV_BATCH of them in flight together.
  DEVICE void run(const Conv1dParams &p, u32 row, u32 count, u32 c, int back) {
    const float *x = p.x + (u64)row * p.channels + c;
    float *out = p.out + (u64)row * p.channels + c;
#pragma unroll 1
    for (u32 t = 0; t < count; t += CONV_BATCH) {
      float newest[CONV_BATCH];
#pragma unroll
      for (u32 i = 0; i < CONV_BATCH; i++, x += p.channels) newest[i] = t + i < count ? *x : 0.0f;
#pragma unroll
      for (u32 i = 0; i < CONV_BATCH; i++, out += p.channels) {
        float y = step(newest[i], back);
        if (t + i < count) *out = y;
      }
    }
  }
};

template <int MOST> DEVICE void conv1d_up_to(const Conv1dParams &p) {
  u32 c = blockIdx.x * blockDim.x + threadIdx.x;
  u32 sequence = blockIdx.z, first = blockIdx.y * CONV_CHUNK;
  int back = MOST == CONV_MAX_TAPS ? (int)p.taps - 1 : MOST - 1;
  Convolution<MOST> convolution;
  if (c < p.channels) convolution.load_weights(p, c);
  pdl_wait();
  u32 start = p.batch.seq_start[sequence], length = p.batch.seq_start[sequence + 1] - start;
  if (c >= p.channels || first >= length) return;
  float *state = (float *)(p.batch.seq_base[sequence] + p.state_offset);
  convolution.load_window(p, state, start, first, c, back);
  convolution.run(p, start + first, min(length - first, CONV_CHUNK), c, back);
  if (first != 0) return;
  float window[MOST - 1];
#pragma unroll
  for (int j = 0; j < MOST - 1; j++)
    if (j < back) window[j] = conv_input(p, state, start, (int)length - back + j, c);
#pragma unroll
  for (int j = 0; j < MOST - 1; j++)
    if (j < back) state[(u64)c * back + j] = window[j];
}

DEVICE void conv1d(const Conv1dParams &p) {
  pdl_launch_dependents();
  if (p.taps == 4)
    conv1d_up_to<4>(p);
  else
    conv1d_up_to<CONV_MAX_TAPS>(p);
}

// One token more in the window of a sequence, whose row it is: channels `first`, `first + step` and so on.
DEVICE void move_window(const Conv1dParams &p, u32 sequence, u32 first, u32 step) {
  u32 back = p.taps - 1;
  float *state = (float *)(p.batch.seq_base[sequence] + p.state_offset);
  for (u32 c = first; c < p.channels; c += step) {
    float newest = p.x[(u64)sequence * p.channels + c], window[CONV_MAX_TAPS];
#pragma unroll
    for (u32 j = 1; j < CONV_MAX_TAPS; j++) window[j] = j < back ? state[(u64)c * back + j] : newest;
#pragma unroll
    for (u32 j = 1; j < CONV_MAX_TAPS; j++)
      if (j <= back) state[(u64)c * back + j - 1] = window[j];
  }
}

// Four channels of a sequence, and convolutions of four taps: the window is 12 consecutive numbers, the oldest of a channel first.
struct ConvFour {
  static constexpr u32 TAPS = 4;
  float4 w[4], seen[3], bias;

  DEVICE static float4 *window(const Conv1dParams &p, u32 sequence, u32 c) {
    return (float4 *)((float *)(p.batch.seq_base[sequence] + p.state_offset) + c * (TAPS - 1));
  }

  DEVICE void load(const Conv1dParams &p, u32 sequence, u32 c) {
#pragma unroll
    for (u32 j = 0; j < 4; j++) w[j] = *(const float4 *)(p.weight + (c + j) * TAPS);
#pragma unroll
    for (u32 j = 0; j < 3; j++) seen[j] = window(p, sequence, c)[j];
    bias = p.bias ? *(const float4 *)(p.bias + c) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }

  // As conv1d adds.
  DEVICE static float convolve(float4 w, float bias, float a, float b, float c, float newest) {
    return silu(fmaf(w.w, newest, fmaf(w.z, c, fmaf(w.y, b, fmaf(w.x, a, bias)))));
  }

  // Convolves, and moves the window on.
  DEVICE void finish(const Conv1dParams &p, u32 sequence, u32 c, float4 x) const {
    float4 y = make_float4(convolve(w[0], bias.x, seen[0].x, seen[0].y, seen[0].z, x.x),
                           convolve(w[1], bias.y, seen[0].w, seen[1].x, seen[1].y, x.y),
                           convolve(w[2], bias.z, seen[1].z, seen[1].w, seen[2].x, x.z),
                           convolve(w[3], bias.w, seen[2].y, seen[2].z, seen[2].w, x.w));
    *(float4 *)(p.out + (u64)sequence * p.channels + c) = y;
    float4 *to = window(p, sequence, c);
    to[0] = make_float4(seen[0].y, seen[0].z, x.x, seen[1].x);
    to[1] = make_float4(seen[1].y, x.y, seen[1].w, seen[2].x);
    to[2] = make_float4(x.z, seen[2].z, seen[2].w, x.w);
  }
};

// The same as conv1d for one token a sequence, four channels a thread: windows and weights are there before the inputs are.
DEVICE void conv1d_step(const Conv1dParams &p) {
  pdl_launch_dependents();
  u32 c = (blockIdx.x * blockDim.x + threadIdx.x) * 4, sequence = blockIdx.y;
  if (c >= p.channels) return;
  ConvFour four;
  four.load(p, sequence, c);
  pdl_wait();
  four.finish(p, sequence, c, *(const float4 *)(p.x + (u64)sequence * p.channels + c));
}
