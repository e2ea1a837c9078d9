// Plan kernel `linear` for W8 and many rows, with the warpgroup instructions of sm_90a.
//
//   out[t, n] = epilogue(sum_k x[t, k] * w[n, k], scales)
//
// Bound by arithmetic: 2048 x 4096 x 21504 is 361 GOP, 0.18 ms at an H200's 1979 TOPS; it stores 176 MB beside that, 41 us
// if nothing overlapped them. With random operands the power limit lowers the clock by a fifth.
//
// - Two warpgroups take turns: each has a tile of its own, 128 weight rows by 128 tokens, and while one scales and stores
//   its sums, the other multiplies. One more warp requests tiles by tensor maps, which fill in zeros beyond rows and k.
// - 128 columns of k a stage, in a ring of PINGPONG_STAGES that both read in turn.
// - Sums leave through shared memory, 32 tokens of 64 rows at a time, by the copy engine, which cuts off what is beyond the
//   matrix. Where rows of the result are no multiples of 16 bytes, each thread stores its own.
// - Clusters of two blocks have neighbouring weight rows and the same tokens, or, where there are few weight rows, the same
//   of these and neighbouring tokens: each requests half of what both need for both, which saves a quarter of what L2 is
//   asked for.
// - A cluster takes every so many-th pair of tiles: pairs of the same weight rows are neighbours, so that weights come from
//   device memory once. Pairs that would leave most clusters without work at the end are dealt out in halves.
//
// Not supported: W4 as it is stored (linear_expand makes W8 of it), and GPUs other than sm_90.
#pragma once
#include "linear_pingpong_store.cuh"

#ifdef WARPGROUP_MMA

namespace pingpong {

constexpr u32 STAGES = PINGPONG_STAGES, CLUSTER = PINGPONG_CLUSTER;
// Rows of a box of weights or x.
constexpr u32 PART = 64;
// So many stages before its last one a tile begins to bring what it is added to into L2, a box a stage.
constexpr u32 PREFETCH_STAGES = 24;

struct Shared {
  u8 weights[STAGES][ROWS][STAGE_K];
  u8 x[STAGES][TOKENS][STAGE_K];
  Leaving leaving[2];
  float x_scale[2][TOKENS];
  u64 full[STAGES], empty[STAGES];
};

// A block's tile of a pair, or the half of it that the cluster takes.
struct Work {
  Place place;
  u32 rows;
};

// Every cluster takes a pair a round; in the last one some take another pair, or half of one.
DEVICE u32 work_count(const WarpgroupParams &p) { return p.rounds + (blockIdx.x / CLUSTER < p.extra); }

DEVICE Work work(const WarpgroupParams &p, u32 i, u32 rank) {
  u32 cluster = blockIdx.x / CLUSTER;
  bool half = p.halved && i == p.rounds;
  u32 index = i * (gridDim.x / CLUSTER) + (half ? cluster / 2 : cluster);
  u32 rows = p.shares_weights ? ROWS : CLUSTER * ROWS, tokens = p.shares_weights ? CLUSTER * TOKENS : TOKENS;
  Place place(p.linear, index, p.columns, rows, tokens);
  if (p.shares_weights)
    place.token0 += rank * TOKENS;
  else
    place.row0 += rank * ROWS;
  if (half) place.row0 += cluster % 2 * PART;
  return {place, half ? PART : ROWS};
}

// A stage. What both blocks of the cluster need is requested by one of them, a part by each.
DEVICE void request(const WarpgroupParams &p, Shared &shared, u32 slot, u32 k, const Work &work, u32 rank) {
  constexpr u16 BOTH = (1 << CLUSTER) - 1;
  const Place &place = work.place;
  const TensorMap *weights = &p.weights[place.segment];
  bool lower = work.rows == ROWS;
  u64 *full = &shared.full[slot];
  auto weights_at = [&](u32 part) { return smem_address(shared.weights[slot][part * PART]); };
  auto x_at = [&](u32 part) { return smem_address(shared.x[slot][part * PART]); };
  barrier_arrive_expect(full, (work.rows + TOKENS) * STAGE_K);
  if (p.shares_weights) {
    if (lower || rank == 0) copy_tile_multicast(weights_at(rank), weights, k, place.row0 + rank * PART, full, BOTH);
    copy_tile(x_at(0), &p.x, k, place.token0, full);
    copy_tile(x_at(1), &p.x, k, place.token0 + PART, full);
  } else {
    copy_tile(weights_at(0), weights, k, place.row0, full);
    if (lower) copy_tile(weights_at(1), weights, k, place.row0 + PART, full);
    copy_tile_multicast(x_at(rank), &p.x, k, place.token0 + rank * PART, full, BOTH);
  }
}

// Box by box, what a tile is added to: it comes while the last stages do, and L2 need not wait for it then.
DEVICE void prefetch(const WarpgroupParams &p, const Work &work, u32 stages_left) {
  u32 box = PREFETCH_STAGES - stages_left;
  if (box >= work.rows / BOX * (TOKENS / BOX)) return;
  u32 row = work.place.row0 + box / (TOKENS / BOX) * BOX, token = work.place.token0 + box % (TOKENS / BOX) * BOX;
  prefetch_tile(&p.out[work.place.segment], row, token);
}

// By a whole warp, so that addresses are computed once a warp.
DEVICE void produce(const WarpgroupParams &p, Shared &shared, u32 rank) {
  RingTurn<STAGES> turn;
  u32 steps = ceil_div(p.linear.k_padded, STAGE_K);
  for (u32 i = 0; i < work_count(p); i++) {
    Work tile = work(p, i, rank);
    u32 segment = tile.place.segment;
    bool adds = (p.engine_stores >> segment & 1) != 0 && p.linear.segments[segment].epilogue == EPILOGUE_ACCUMULATE;
    // Where x is long, every other tile begins with what L2 still has of it.
    bool backward = p.shares_weights && i % 2 == 1;
    for (u32 step = 0; step < steps; step++, turn.advance()) {
      u32 k = (backward ? steps - 1 - step : step) * STAGE_K;
      barrier_wait(&shared.empty[turn.slot], turn.parity ^ 1);
      if (!elected()) continue;
      request(p, shared, turn.slot, k, tile, rank);
      if (adds) prefetch(p, tile, steps - step);
    }
  }
}

// Named barriers: 1 and 2 are those of the groups. A warpgroup's turn to multiply begins when the other one ends its own.
DEVICE void turn_wait(u32 group) { asm volatile("bar.sync %0, %1;" ::"r"(3 + group), "n"(2 * GROUP_THREADS) : "memory"); }

DEVICE void turn_end(u32 group) {
  asm volatile("bar.arrive %0, %1;" ::"r"(3 + (group ^ 1)), "n"(2 * GROUP_THREADS) : "memory");
}

// Both blocks of the cluster filled the stage, so both wait for it to be read.
DEVICE void release(const u64 *empty) {
  if (lane_id() < CLUSTER) barrier_arrive_remote(empty, lane_id());
}

// Requests the products of a stage when it has arrived.
template <u32 PARTS, bool X_UNSIGNED, bool FIRST>
DEVICE void multiply_stage(Shared &shared, const RingTurn<STAGES> &turn, int (&acc)[PARTS][TOKENS / 2]) {
  barrier_wait(&shared.full[turn.slot], turn.parity);
  u32 a = matrix(smem_address(shared.weights)) + turn.slot * (ROWS * STAGE_K / 16);
  u32 b = matrix(smem_address(shared.x)) + turn.slot * (TOKENS * STAGE_K / 16);
  fence();
#pragma unroll
  for (u32 i = 0; i < STAGE_K / 32; i++)
#pragma unroll
    for (u32 part = 0; part < PARTS; part++) {
      u32 rows = a + part * (PART * STAGE_K / 16) + i * 2;
      if (FIRST && i == 0)
        Multiply<TOKENS, X_UNSIGNED>::start(acc[part], rows, b + i * 2);
      else
        Multiply<TOKENS, X_UNSIGNED>::run(acc[part], rows, b + i * 2);
    }
  commit();
}

template <u32 PARTS, bool X_UNSIGNED>
DEVICE void multiply(Shared &shared, u32 steps, RingTurn<STAGES> &turn, int (&acc)[PARTS][TOKENS / 2]) {
  multiply_stage<PARTS, X_UNSIGNED, true>(shared, turn, acc);
  for (u32 step = 1; step < steps; step++) {
    u32 last = turn.slot;
    turn.advance();
    multiply_stage<PARTS, X_UNSIGNED, false>(shared, turn, acc);
    // The stage before this one has been read when at most this one's instructions are pending.
    wait<1>();
    release(&shared.empty[last]);
  }
  turn.advance();
}

// What a warpgroup does of a tile of PARTS * 64 weight rows; `first` and `last` of its cluster's.
template <u32 PARTS, bool X_UNSIGNED>
DEVICE void compute(const WarpgroupParams &p, Shared &shared, u32 group, const Place &place, RingTurn<STAGES> &turn, bool first,
                    bool last) {
  u32 steps = ceil_div(p.linear.k_padded, STAGE_K);
  float *x_scales = shared.x_scale[group];
  const LinearSegment &s = p.linear.segments[place.segment];
  u32 row = place.row0 + warp_id() % 4 * 16 + lane_id() / 4, token = place.token0 + threadIdx.x % GROUP_THREADS;
  // Requested before the products and needed behind them.
  float x_scale = token < p.linear.rows ? p.linear.x_scale[token] : 0.0f, scale[PARTS][2];
#pragma unroll
  for (u32 j = 0; j < PARTS * 2; j++) {
    u32 at = row + j / 2 * PART + j % 2 * 8;
    scale[j / 2][j % 2] = at < s.out_features ? s.scale[at] : 0.0f;
  }
  int acc[PARTS][TOKENS / 2];
  if (!first) turn_wait(group);
  multiply<PARTS, X_UNSIGNED>(shared, steps, turn, acc);
  if (!last) turn_end(group);
  x_scales[threadIdx.x % GROUP_THREADS] = x_scale;
  wait<0>();
  release(&shared.empty[turn.before()]);
  group_barrier(group);
  Tile tile{&p.out[place.segment], &shared.leaving[group], x_scales, place.row0, place.token0, p.linear.rows, group};
  bool by_engine = (p.engine_stores >> place.segment & 1) != 0;
#pragma unroll
  for (u32 part = 0; part < PARTS; part++, tile.row0 += PART) store(s, tile, by_engine, acc[part], scale[part]);
}

template <bool X_UNSIGNED> DEVICE void consume(const WarpgroupParams &p, Shared &shared, u32 rank) {
  // Lane 0's, so that ptxas knows: a warp has the same, and descriptors are computed once a warp.
  u32 group = __shfl_sync(FULL_MASK, threadIdx.x / GROUP_THREADS, 0);
  RingTurn<STAGES> turn;
  for (u32 i = 0; i < work_count(p); i++) {
    if (i % 2 != group) {
      turn.advance(ceil_div(p.linear.k_padded, STAGE_K));
      continue;
    }
    // Tiles of either size have registers of their own: where sums come from two places, ptxas waits for every instruction.
    auto [place, rows] = work(p, i, rank);
    bool first = i == 0, last = i + 1 == work_count(p);
    if (rows == ROWS)
      compute<2, X_UNSIGNED>(p, shared, group, place, turn, first, last);
    else
      compute<1, X_UNSIGNED>(p, shared, group, place, turn, first, last);
  }
  if (threadIdx.x % GROUP_THREADS == 0) store_wait();
}

} // namespace pingpong

#endif

template <bool X_UNSIGNED> DEVICE void linear_pingpong(const WarpgroupParams &p) {
#ifdef WARPGROUP_MMA
  using namespace pingpong;
  extern __shared__ __align__(1024) u8 dynamic[];
  Shared &shared = *(Shared *)dynamic;
  u32 rank = cluster_rank();
  pdl_launch_dependents();
  if (threadIdx.x == 0) {
    ring_init(shared.full, shared.empty, STAGES, 1, 4 * CLUSTER);
    barrier_init_fence();
  }
  cluster_barrier();
  pdl_wait();
  if (warp_id() < 2 * GROUP_THREADS / WARP)
    consume<X_UNSIGNED>(p, shared, rank);
  else
    produce(p, shared, rank);
  // The other block may still read and write what is here.
  __syncwarp();
  cluster_barrier();
#endif
}
