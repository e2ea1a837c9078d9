// The largest value of the blocks of a cluster, or of the one block, where waiting is all that takes time.
//
// The peak of every warp goes to every block at once, and counts its bytes there. A barrier of the cluster would also wait for
// all that was stored to device memory, twice, a microsecond each.
#pragma once
#include "bulk.cuh"

// In shared memory.
template <u32 WARPS> struct ClusterPeaks {
#if __CUDA_ARCH__ >= 900
  static constexpr u32 MAX_BLOCKS = 8;
  float of[MAX_BLOCKS * WARPS];
  u64 arrived;

  // By all threads of a cluster of more than one block, early.
  DEVICE void init() {
    if (threadIdx.x == 0) {
      barrier_init(&arrived, 1);
      barrier_init_fence();
    }
    cluster_arrive();
  }

  // By the same, once, of values that are not negative.
  DEVICE float most_of_cluster(float mine) {
    mine = warp_max(mine);
    cluster_wait();
    return exchange(mine);
  }

  // The same of each warp's peak, where all blocks have met since they began.
  DEVICE float exchange(float mine) {
    u32 lane = lane_id(), count = cluster_size() * WARPS;
    if (threadIdx.x == 0) barrier_arrive_expect(&arrived, count * sizeof(float));
    if (lane < cluster_size())
      store_remote(lane, &of[cluster_rank() * WARPS + warp_id()], __float_as_uint(mine), &arrived);
    barrier_wait_cluster(&arrived, 0);
    float most = lane < count ? of[lane] : 0.0f;
#pragma unroll
    for (u32 i = WARP; i < MAX_BLOCKS * WARPS; i += WARP)
      if (i + lane < count) most = fmaxf(most, of[i + lane]);
    return warp_max(most);
  }
#else
  float of[WARPS];

  DEVICE void init() {}
  DEVICE float most_of_cluster(float mine) { return mine; }
#endif

  DEVICE float most(float mine) { return cluster_size() == 1 ? block_max(mine, of) : most_of_cluster(mine); }
};
