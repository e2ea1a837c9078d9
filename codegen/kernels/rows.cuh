// Kernels that make one row from one row: norms, activations, and their rotation and quantization.
//
// One block a row; the row lives in shared memory between the passes, so device memory is read and written once.
// Rows of up to 227 KB / 4 columns on Hopper.
#pragma once
#include "emit.cuh"

// Plan kernel `rms_norm`: `x += delta` if there is one; `y = x / sqrt(mean(x^2) + eps) * weight`; emit.
DEVICE void rms_norm(const RmsNormParams &p) {
  extern __shared__ float row[];
  __shared__ float scratch[WARP];
  RowPart part(p.emit.n);
  pdl_launch_dependents();
  pdl_wait();
  float *x = p.x + part.at(p.emit.n, 0);
  const float *delta = p.delta ? p.delta + part.at(p.emit.n, 0) : nullptr;
  float squares = 0.0f;
  for_each(
      part.n, [=](u32 i) { return delta ? x[i] + delta[i] : x[i]; },
      [&](u32 i, float v) {
        if (delta) x[i] = v;
        row[i] = v;
        squares += v * v;
      });
  __shared__ float exchanged;
  squares = cluster_sum(block_sum(squares, scratch), &exchanged);
  float inverse = 1.0f / sqrtf(squares / p.emit.n + p.eps);
  const float *weight = p.weight ? p.weight + part.begin : nullptr;
  for_each(
      part.n, [=](u32 i) { return weight ? weight[i] : 1.0f; },
      [=](u32 i, float w) { row[i] = row[i] * inverse * w; });
  __syncthreads();
  emit_row(row, part, p.emit, scratch);
}

// Plan kernel `map`: `y = relu(x)^2` or `x`; emit.
DEVICE void map(const MapParams &p) {
  extern __shared__ float row[];
  __shared__ float scratch[WARP];
  RowPart part(p.emit.n);
  pdl_launch_dependents();
  pdl_wait();
  const float *x = p.x + part.at(p.emit.n, 0);
  bool relu2 = p.relu2;
  for_each<12>(
      part.n, [=](u32 i) { return x[i]; },
      [=](u32 i, float v) {
        float positive = fmaxf(v, 0.0f);
        row[i] = relu2 ? positive * positive : v;
      });
  __syncthreads();
  emit_row(row, part, p.emit, scratch);
}

// Plan kernel `gated_rms_norm`: `y = x * silu(z)`, RMS-normalized in groups, times the weight; emit.
DEVICE void gated_rms_norm(const GatedNormParams &p) {
  extern __shared__ float row[];
  __shared__ float scratch[WARP];
  __shared__ float inverse[GATED_MAX_GROUPS];
  RowPart part(p.emit.n);
  pdl_launch_dependents();
  pdl_wait();
  const float *x = p.x + part.at(p.emit.n, 0), *z = p.z + part.at(p.emit.n, 0);
  for_each<4>(
      part.n, [=](u32 i) { return make_float2(x[i], z[i]); },
      [=](u32 i, float2 v) { row[i] = v.x * silu(v.y); });
  __syncthreads();
  // One warp a group: a block has a few groups, each of about a thousand columns.
  u32 warps = blockDim.x / WARP, groups = part.n / p.group_size;
  for (u32 group = warp_id(); group < groups; group += warps) {
    const float *mine = row + group * p.group_size;
    float squares = 0.0f;
#pragma unroll 4
    for (u32 i = lane_id(); i < p.group_size; i += WARP) squares += mine[i] * mine[i];
    squares = warp_sum(squares);
    if (lane_id() == 0) inverse[group] = 1.0f / sqrtf(squares / p.group_size + p.eps);
  }
  __syncthreads();
  const float *weight = p.weight ? p.weight + part.begin : nullptr;
  u32 group_size = p.group_size;
  for_each<4>(
      part.n, [=](u32 i) { return weight ? weight[i] : 1.0f; },
      [=](u32 i, float w) { row[i] = row[i] * inverse[i / group_size] * w; });
  __syncthreads();
  emit_row(row, part, p.emit, scratch);
}

// Plan kernel `add`: `out = a + b`, element by element.
DEVICE void add(const AddParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < p.count) p.out[i] = p.a[i] + p.b[i];
}

// Plan kernel `select_outputs`: the rows whose logits were asked for.
DEVICE void select_outputs(const SelectParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  u32 from = p.out_rows[blockIdx.x];
  for (u32 i = threadIdx.x; i < p.n; i += blockDim.x) p.out[(u64)blockIdx.x * p.n + i] = p.x[(u64)from * p.n + i];
}

// Plan kernel `dequantize`: raw sums of a linear to floats.
DEVICE void dequantize(const DequantizeParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= p.count) return;
  float y = (float)p.acc[i] * (p.x_scale[i / p.n] * p.weight_scale[i % p.n]);
  if (p.relu2) {
    y = fmaxf(y, 0.0f);
    y *= y;
  }
  p.out[i] = y;
}

// Reads memory and keeps nothing: the bandwidth that everything else is measured against.
DEVICE void read_memory(const AddParams &p) {
  const uint4 *from = (const uint4 *)p.a;
  u32 folded = 0;
  u64 stride = (u64)gridDim.x * blockDim.x, count = (u64)p.count * 64;
#pragma unroll 8
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint4 v = __ldcs(from + i);
    folded ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  // Never true for random weights, but the compiler cannot know.
  if (folded == 0x12345678u && p.out) p.out[0] = 1.0f;
}
