// The end of plan kernel `mixer` and the `linear` behind it in one launch, for one row: as linear_stream_dot, with a prologue
// in which a cluster of GATED_CLUSTER blocks gates, normalizes, rotates and quantizes the row.
//
// The launch of its own took 8 us of a layer of 8B on an H200, from the end of the scan; the prologue takes half of that.
//
// - A block makes an equal part of the row, in registers: a warp takes 256 columns, a lane eight consecutive ones, so that
//   three steps of a rotation are in the lane and five across lanes. Wider rotations exchange columns in shared memory.
// - Peaks of warps, then 8-bit columns, are stored into the shared memory of the other blocks (st.async), each of which waits for
//   the whole row to arrive.
// - The first cluster also stores the row, for whoever else reads it. A linear of no tiles is the prologue alone.
// - The windows of the convolution move on behind the last tile.
//
// Supports parts of whole groups of the norm, which are whole pieces of 256 columns; up to TURNS * WARPS pieces a part.
#pragma once
#include "conv1d.cuh"
#include "hadamard.cuh"
#include "linear_stream_dot.cuh"

#if __CUDA_ARCH__ >= 900

namespace stream {

struct alignas(16) GatedShared {
  u64 peaks_there, row_there;
  float peaks[GATED_CLUSTER * WARPS];
  float sums[GATED_TURNS * WARPS];
  float x_scale;
};
static_assert(sizeof(GatedShared) == GATED_SHARED_BYTES, "the host reserves as much");

template <u32 TURNS> struct Gated {
  static constexpr bool CLUSTERED = true;
  static constexpr u32 PIECE = 256;
  static_assert(TURNS <= GATED_TURNS, "sums have room for as many");
  const GatedStepParams &p;
  GatedShared &shared;
  u8 *x;
  const float *x_scale;
  u32 part, first; // columns of this block
  float weight[TURNS][8];

  DEVICE Gated(const GatedStepParams &p, u8 *memory)
      : p(p), shared(*(GatedShared *)memory), x(memory + sizeof(GatedShared)), x_scale(&shared.x_scale) {
    part = p.norm.emit.n / GATED_CLUSTER;
    first = cluster_rank() * part;
  }

  // The eight columns of this lane in a turn, counted from the block's first.
  DEVICE u32 column(u32 turn) const { return (turn * WARPS + warp_id()) * PIECE + lane_id() * 8; }
  DEVICE bool there(u32 turn) const { return column(turn) < part; }

  // The 8-bit row, and the part as floats where a rotation needs it.
  DEVICE u32 smem_bytes() const {
    const Emit &e = p.norm.emit;
    return sizeof(GatedShared) + e.n + (e.hadamard_block > PIECE ? part * 4 : 0);
  }

  DEVICE void init() {
    barrier_init(&shared.peaks_there, 1);
    barrier_init(&shared.row_there, 1);
    barrier_arrive_expect(&shared.peaks_there, sizeof(shared.peaks));
    barrier_arrive_expect(&shared.row_there, p.norm.emit.n);
  }

  // Ends when all blocks of the cluster have begun, as what they store into each other asks for.
  DEVICE void begin() {
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
#pragma unroll
      for (u32 r = 0; r < 8; r++) weight[t][r] = 1.0f;
      if (p.norm.weight && there(t)) load8<DTYPE_F32>(p.norm.weight, first + column(t), weight[t]);
    }
    cluster_wait();
  }

  // `x * silu(z)`, and the sums of squares of its pieces.
  DEVICE void gate(float (&v)[TURNS][8]) const {
    float z[TURNS][8];
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
      if (!there(t)) continue;
      load8<DTYPE_F32>(p.norm.x, first + column(t), v[t]);
      load8<DTYPE_F32>(p.norm.z, first + column(t), z[t]);
    }
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
      if (!there(t)) continue;
      float squares = 0.0f;
#pragma unroll
      for (u32 r = 0; r < 8; r++) {
        v[t][r] *= silu(z[t][r]);
        squares = fmaf(v[t][r], v[t][r], squares);
      }
      squares = warp_sum(squares);
      if (lane_id() == 0) shared.sums[t * WARPS + warp_id()] = squares;
    }
    consumers_barrier();
  }

  DEVICE void normalize(float (&v)[TURNS][8]) const {
    u32 pieces = p.norm.group_size / PIECE;
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
      if (!there(t)) continue;
      u32 group = (t * WARPS + warp_id()) / pieces * pieces;
      float squares = 0.0f;
      for (u32 i = 0; i < pieces; i++) squares += shared.sums[group + i];
      float inverse = 1.0f / sqrtf(squares / p.norm.group_size + p.norm.eps);
#pragma unroll
      for (u32 r = 0; r < 8; r++) v[t][r] = v[t][r] * inverse * weight[t][r];
    }
  }

  DEVICE void rotate(float (&v)[TURNS][8]) const {
    u32 block = p.norm.emit.hadamard_block;
    if (block <= 1) return;
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) hadamard::butterflies<8>(v[t]);
    for (u32 half = PIECE; half < block; half *= 4) exchange(v, (float *)(x + p.norm.emit.n), half, block);
    float norm = 1.0f / sqrtf((float)block);
#pragma unroll
    for (u32 t = 0; t < TURNS; t++)
#pragma unroll
      for (u32 r = 0; r < 8; r++) v[t][r] *= norm;
  }

  // One step of a rotation whose pairs are in different pieces, or two: then the other half of the second step's pair is
  // made here as well.
  DEVICE void exchange(float (&v)[TURNS][8], float *row, u32 half, u32 block) const {
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
      if (!there(t)) continue;
      float4 *mine = (float4 *)(row + column(t));
      mine[0] = make_float4(v[t][0], v[t][1], v[t][2], v[t][3]);
      mine[1] = make_float4(v[t][4], v[t][5], v[t][6], v[t][7]);
    }
    consumers_barrier();
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
      if (!there(t)) continue;
      float other[8], far[8], sign = column(t) & half ? -1.0f : 1.0f, far_sign = column(t) & 2 * half ? -1.0f : 1.0f;
      load8<DTYPE_F32>(row, column(t) ^ half, other);
#pragma unroll
      for (u32 r = 0; r < 8; r++) v[t][r] = fmaf(sign, v[t][r], other[r]);
      if (2 * half >= block) continue;
      load8<DTYPE_F32>(row, column(t) ^ 2 * half, far);
      load8<DTYPE_F32>(row, column(t) ^ 3 * half, other);
#pragma unroll
      for (u32 r = 0; r < 8; r++) v[t][r] = fmaf(far_sign, v[t][r], fmaf(sign, far[r], other[r]));
    }
    if (4 * half < block) consumers_barrier();
  }

  // Largest magnitude of the whole row.
  DEVICE float peak(const float (&v)[TURNS][8]) const {
    float most = 0.0f;
#pragma unroll
    for (u32 t = 0; t < TURNS; t++)
#pragma unroll
      for (u32 r = 0; r < 8; r++)
        if (there(t)) most = fmaxf(most, fabsf(v[t][r]));
    most = warp_max(most);
    if (lane_id() < GATED_CLUSTER)
      store_remote(lane_id(), &shared.peaks[cluster_rank() * WARPS + warp_id()], __float_as_uint(most), &shared.peaks_there);
    barrier_wait_cluster(&shared.peaks_there, 0);
    static_assert(GATED_CLUSTER * WARPS == WARP, "a lane takes one");
    return warp_max(shared.peaks[lane_id()]);
  }

  DEVICE void finish() {
    float v[TURNS][8] = {};
    gate(v);
    normalize(v);
    rotate(v);
    const Emit &e = p.norm.emit;
    Quantizer quantizer(peak(v));
    bool keep = blockIdx.x < GATED_CLUSTER;
    if (threadIdx.x == 0) {
      shared.x_scale = quantizer.scale();
      if (blockIdx.x == 0) *e.out_scale = quantizer.scale();
    }
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
      if (!there(t)) continue;
      u32 at = first + column(t);
      uint2 packed = quantizer.pack(v[t]);
#pragma unroll
      for (u32 rank = 0; rank < GATED_CLUSTER; rank++) store_remote(rank, x + at, packed, &shared.row_there);
      if (keep) *(uint2 *)((u8 *)e.out + at) = packed;
    }
    barrier_wait_cluster(&shared.row_there, 0);
  }

  DEVICE void end() { move_window(p.conv, 0, blockIdx.x * THREADS + threadIdx.x, gridDim.x * THREADS); }
};

} // namespace stream

#endif

template <u32 TURNS> DEVICE void linear_stream_gated(const GatedLinearParams &p) {
#if __CUDA_ARCH__ >= 900
  using namespace stream;
  typedef DotProducts<1, false> Math;
  extern __shared__ __align__(128) u8 dynamic[];
  run<Math>(p.linear, Gated<TURNS>(p.gated, dynamic + sizeof(Shared) + sizeof(Partials<1>)));
#endif
}
