// How a row of few columns leaves the blocks of a cluster: as emit_row, where waiting is all that takes time.
//
// The peak of every warp goes to every block at once, and counts its bytes there. A barrier of the cluster would also wait for
// all that was stored to device memory, twice, a microsecond each.
#pragma once
#include "emit.cuh"

template <u32 WARPS> struct EmitCluster {
  static constexpr u32 BLOCKS = 8;
  static_assert(WARPS * BLOCKS <= WARP, "a lane a peak");
  float scratch[WARP];
#if __CUDA_ARCH__ >= 900
  float peaks[WARPS * BLOCKS];
  u64 arrived;

  static DEVICE bool together(const Emit &e) { return e.format != EMIT_FLOAT && cluster_size() > 1; }

  // By all threads, early.
  DEVICE void init(const Emit &e) {
    if (!together(e)) return;
    if (threadIdx.x == 0) {
      barrier_init(&arrived, 1);
      barrier_init_fence();
    }
    cluster_arrive();
  }

  // Up to four columns a thread.
  DEVICE void emit_together(float *row, const RowPart &part, const Emit &e) {
    if (e.hadamard_block > 1) hadamard_row(row, part.n, e.hadamard_block);
    u32 i = threadIdx.x * 4, lane = lane_id();
    float4 v = i < part.n ? *(const float4 *)(row + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float peak = warp_max(fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
    cluster_wait();
    if (threadIdx.x == 0) barrier_arrive_expect(&arrived, cluster_size() * WARPS * 4);
    float *mine = &peaks[cluster_rank() * WARPS + warp_id()];
    if (lane < cluster_size()) store_remote(lane, mine, __float_as_uint(peak), &arrived);
    barrier_wait_cluster(&arrived, 0);
    peak = warp_max(lane < cluster_size() * WARPS ? peaks[lane] : 0.0f);
    float limit = e.format == EMIT_U8 ? 255.0f : 127.0f, low = e.format == EMIT_U8 ? 0.0f : -127.0f;
    float factor = peak > 0.0f ? limit / peak : 0.0f;
    if (i < part.n) *(u32 *)((u8 *)e.out + part.at(e.n_padded, i)) = quantize4(v, factor, low, limit);
    if (threadIdx.x == 0 && part.begin == 0) e.out_scale[part.row] = peak / limit;
  }
#else
  static DEVICE bool together(const Emit &) { return false; }
  DEVICE void init(const Emit &) {}
  DEVICE void emit_together(float *, const RowPart &, const Emit &) {}
#endif

  // The caller has synchronized after writing `row`. A part that is not the whole row has multiples of four columns and no padding.
  DEVICE void emit(float *row, const Emit &e) {
    RowPart part(e.n);
    if (together(e))
      emit_together(row, part, e);
    else
      emit_row(row, part, e, scratch);
  }
};
