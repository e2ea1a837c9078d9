// Hopper's bulk copies and the barriers they complete on; clusters of blocks. Empty for older targets.
#pragma once
#include "common.cuh"

// Position in a ring of STAGES, and how often it went round.
template <u32 STAGES> struct RingTurn {
  u32 slot = 0, parity = 0;
  DEVICE void advance() {
    if (++slot == STAGES) slot = 0, parity ^= 1;
  }
  DEVICE void advance(u32 steps) {
    slot += steps;
    parity ^= slot / STAGES & 1;
    slot %= STAGES;
  }
  // The slot before this one.
  DEVICE u32 before() const { return slot == 0 ? STAGES - 1 : slot - 1; }
};

#if __CUDA_ARCH__ >= 900

DEVICE void barrier_init(u64 *barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_address(barrier)), "r"(arrivals) : "memory");
}

// Those of a ring: what has arrived in a stage, and that it has been read.
DEVICE void ring_init(u64 *full, u64 *empty, u32 stages, u32 full_arrivals, u32 empty_arrivals) {
  for (u32 i = 0; i < stages; i++) {
    barrier_init(full + i, full_arrivals);
    barrier_init(empty + i, empty_arrivals);
  }
}

// Makes initialized barriers visible to the copy engine.
DEVICE void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

DEVICE void barrier_arrive(u64 *barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_address(barrier)) : "memory");
}

DEVICE void barrier_arrive_expect(u64 *barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_address(barrier)), "r"(bytes)
               : "memory");
}

// Arrives when what this thread has requested by 16-byte copies is there.
DEVICE void barrier_arrive_copied(u64 *barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(smem_address(barrier)) : "memory");
}

// Until the phase of this parity is over; SEMANTICS say whose stores are seen then.
#define BARRIER_WAIT(SEMANTICS)                                                          \
  asm volatile("{\n"                                                                     \
               ".reg .pred done;\n"                                                      \
               "again:\n"                                                                \
               "mbarrier.try_wait.parity" SEMANTICS ".shared::cta.b64 done, [%0], %1;\n" \
               "@done bra.uni finished;\n"                                               \
               "bra.uni again;\n"                                                        \
               "finished:\n"                                                             \
               "}" ::"r"(smem_address(barrier)),                                         \
               "r"(parity)                                                               \
               : "memory")

DEVICE void barrier_wait(u64 *barrier, u32 parity) { BARRIER_WAIT(""); }

// For what other blocks of the cluster have stored.
DEVICE void barrier_wait_cluster(u64 *barrier, u32 parity) { BARRIER_WAIT(".acquire.cluster"); }

#undef BARRIER_WAIT

// Whether this is the one lane of a warp that is elected. Where a lane's number decides, ptxas makes each copy a loop over the
// lanes that may be there.
DEVICE bool elected() {
  u32 elected;
  asm volatile("{\n"
               ".reg .pred one;\n"
               "elect.sync _|one, 0xffffffff;\n"
               "selp.u32 %0, 1, 0, one;\n"
               "}" : "=r"(elected));
  return elected != 0;
}

// Multiples of 16 bytes, both sides aligned to 16.
DEVICE void copy_bulk(u32 dst, const void *src, u32 bytes, u64 *barrier, u64 policy) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
                   "r"(dst),
               "l"(src), "r"(bytes), "r"(smem_address(barrier)), "l"(policy)
               : "memory");
}

DEVICE void copy_bulk(u32 dst, const void *src, u32 bytes, u64 *barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(dst), "l"(src),
               "r"(bytes), "r"(smem_address(barrier))
               : "memory");
}

// Into L2 alone.
DEVICE void prefetch_bulk(const void *src, u32 bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(src), "r"(bytes) : "memory");
}

DEVICE u32 cluster_size() {
  u32 size;
  asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(size));
  return size;
}

DEVICE u32 cluster_rank() {
  u32 rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

DEVICE void cluster_barrier() {
  cluster_arrive();
  cluster_wait();
}

DEVICE u32 remote_address(const void *mine, u32 rank) {
  u32 address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(smem_address(mine)), "r"(rank));
  return address;
}

// Arrives at a barrier of block `rank` of the cluster. For who has only read: what was written before is not made visible
// to the others, which would make the memory of the whole GPU consistent first.
DEVICE void barrier_arrive_remote(const u64 *mine, u32 rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(remote_address(mine, rank)) : "memory");
}

// A float in the shared memory of another block of the cluster.
DEVICE float cluster_read(const float *mine, u32 rank) {
  float value;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(remote_address(mine, rank)) : "memory");
  return value;
}

// Stores to where block `rank` of the cluster has what `mine` is here, and counts the bytes at its barrier.
DEVICE void store_remote(u32 rank, const void *mine, u32 value, const u64 *barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(remote_address(mine, rank)),
               "r"(value), "r"(remote_address(barrier, rank))
               : "memory");
}

DEVICE void store_remote(u32 rank, const void *mine, uint2 value, const u64 *barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::
                   "r"(remote_address(mine, rank)),
               "r"(value.x), "r"(value.y), "r"(remote_address(barrier, rank))
               : "memory");
}

#else

DEVICE u32 cluster_size() { return 1; }
DEVICE u32 cluster_rank() { return 0; }
DEVICE void cluster_barrier() {}
DEVICE float cluster_read(const float *mine, u32) { return *mine; }

#endif

// Sum and largest of `v` over the blocks of a cluster, which must all call them. `mine` is one float of shared memory that
// nothing else writes afterwards; before a block ends it calls cluster_leave, so that others can still read.
DEVICE float cluster_sum(float v, float *mine) {
  u32 size = cluster_size();
  if (size == 1) return v;
  if (threadIdx.x == 0) *mine = v;
  cluster_barrier();
  float sum = 0.0f;
  for (u32 rank = 0; rank < size; rank++) sum += cluster_read(mine, rank);
  return sum;
}

DEVICE float cluster_max(float v, float *mine) {
  u32 size = cluster_size();
  if (size == 1) return v;
  if (threadIdx.x == 0) *mine = v;
  cluster_barrier();
  float most = 0.0f;
  for (u32 rank = 0; rank < size; rank++) most = fmaxf(most, cluster_read(mine, rank));
  return most;
}

DEVICE void cluster_leave() {
  if (cluster_size() > 1) cluster_barrier();
}
