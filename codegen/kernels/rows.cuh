// Kernels that make one row from one row: norms, activations, and their rotation and quantization.
//
// One block a row; the row lives in shared memory between the passes, so device memory is read and written once.
// Rows of up to 227 KB / 4 columns on Hopper.
#pragma once
#include "conv1d.cuh"
#include "emit.cuh"
#include "norm_row.cuh"

// Plan kernel `rms_norm`: `x += delta` if there is one; `y = x / sqrt(mean(x^2) + eps) * weight`; emit.
DEVICE void rms_norm(const RmsNormParams &p) {
  extern __shared__ __align__(16) float row[];
  __shared__ float scratch[WARP];
  RowPart part(p.emit.n);
  pdl_launch_dependents();
  pdl_wait();
  float *x = p.x + part.at(p.emit.n, 0);
  const float *delta = p.delta ? p.delta + part.at(p.emit.n, 0) : nullptr;
  const float *weight = p.weight ? p.weight + part.begin : nullptr;
  __shared__ float pieces[NORM_MAX_PIECES];
  u32 count = ceil_div(part.n, norm_row::PIECE), n = part.n, column = lane_id() * 4;
  norm_row::for_pieces(
      count, [=](u32 piece) { return norm_row::load(x, delta, piece * norm_row::PIECE + column, n); },
      [=](u32 piece, float4 v) {
        if (delta) norm_row::store(x, piece * norm_row::PIECE + column, n, v);
        norm_row::store(row, piece * norm_row::PIECE + column, n, v);
        float squares = warp_sum(norm_row::squares(v));
        if (lane_id() == 0) pieces[piece] = squares;
      });
  __syncthreads();
  __shared__ float exchanged;
  float inverse = norm_row::inverse(cluster_sum(norm_row::total(pieces, count), &exchanged), p.emit.n, p.eps);
  for_each<4>(
      n, [=](u32 i) { return weight ? weight[i] : 1.0f; },
      [=](u32 i, float w) { row[i] = row[i] * inverse * w; });
  __syncthreads();
  emit_row(row, part, p.emit, scratch);
}

// Plan kernel `map`: `y = relu(x)^2` or `x`; emit.
DEVICE void map(const MapParams &p) {
  extern __shared__ __align__(16) float row[];
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
  extern __shared__ __align__(16) float row[];
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

// The same after ssm_scan_step, whose blocks all read the window of B and C: it moves on here, once they have.
DEVICE void gated_rms_norm_step(const GatedStepParams &p) {
  gated_rms_norm(p.norm);
  u32 size = cluster_size();
  move_window(p.conv, blockIdx.x / size, cluster_rank() * blockDim.x + threadIdx.x, size * blockDim.x);
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
