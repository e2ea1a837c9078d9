// Plan kernel `conv1d`: causal depthwise convolution over time, SiLU, and the new window of every sequence.
//
// A thread computes CONV_CHUNK steps of one channel, so neighbours read neighbouring columns. The block of the first
// chunk alone reads and replaces the window: chunks are longer than it, and later ones find all inputs in x.
#pragma once
#include "common.cuh"

DEVICE float conv_input(const Conv1dParams &p, const float *state, u32 start, int t, u32 c) {
  if (t >= 0) return p.x[(u64)(start + t) * p.channels + c];
  return state[(u64)c * (p.taps - 1) + (p.taps - 1) + t];
}

DEVICE void conv1d(const Conv1dParams &p) {
  pdl_launch_dependents();
  u32 c = blockIdx.x * blockDim.x + threadIdx.x;
  u32 sequence = blockIdx.z, first = blockIdx.y * CONV_CHUNK;
  float w[CONV_MAX_TAPS];
  float bias = 0.0f;
  if (c < p.channels) {
#pragma unroll
    for (u32 j = 0; j < CONV_MAX_TAPS; j++) w[j] = j < p.taps ? p.weight[(u64)c * p.taps + j] : 0.0f;
    if (p.bias) bias = p.bias[c];
  }
  pdl_wait();
  u32 start = p.batch.seq_start[sequence], length = p.batch.seq_start[sequence + 1] - start;
  if (c >= p.channels || first >= length) return;
  float *state = (float *)(p.batch.seq_base[sequence] + p.state_offset);
  int back = (int)p.taps - 1;
  // The inputs of a step, oldest first; each is read once.
  float seen[CONV_MAX_TAPS];
#pragma unroll
  for (int j = 1; j < (int)CONV_MAX_TAPS; j++)
    seen[j] = j <= back ? conv_input(p, state, start, (int)first - back + j - 1, c) : 0.0f;
#pragma unroll 4
  for (u32 t = first; t < min(first + CONV_CHUNK, length); t++) {
#pragma unroll
    for (u32 j = 0; j + 1 < CONV_MAX_TAPS; j++) seen[j] = seen[j + 1];
    float newest = p.x[(u64)(start + t) * p.channels + c];
    float sum = bias;
#pragma unroll
    for (int j = 0; j < (int)CONV_MAX_TAPS; j++) {
      if (j == back) seen[j] = newest;
      sum = fmaf(w[j], seen[j], sum);
    }
    p.out[(u64)(start + t) * p.channels + c] = silu(sum);
  }
  if (first != 0) return;
  float window[CONV_MAX_TAPS - 1];
#pragma unroll
  for (int j = 0; j < (int)CONV_MAX_TAPS - 1; j++)
    if (j < back) window[j] = conv_input(p, state, start, (int)length - back + j, c);
#pragma unroll
  for (int j = 0; j < (int)CONV_MAX_TAPS - 1; j++)
    if (j < back) state[(u64)c * back + j] = window[j];
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
