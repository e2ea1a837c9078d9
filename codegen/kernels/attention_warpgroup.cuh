// Plan kernel `attention` for chunks of many tokens and caches of 16 bits, with the warpgroup instructions of sm_90a.
//
// Bound by arithmetic: 2048 tokens of 8B are 34 GFLOP a layer, done twice here, 0.1 ms at 700 TFLOPS.
//
// - A block has 128 queries of one head and sequence, a warpgroup 64 of them; one more warpgroup only requests keys and values,
//   128 of each a stage, two stages, by 16-byte copies that swizzle them, and leaves its registers to the others.
// - Warpgroups take turns: one requests the products of its next keys and of the values before them, and while they are
//   computed and the other one's behind them, it makes weights of its scores.
// - Queries and weights are f32: each is the sum of two 16-bit numbers and multiplied in two instructions, as in
//   attention_tile.cuh. Those of queries are in shared memory, those of weights in registers.
// - Blocks that see most keys start first, of all heads; those of heads that share keys side by side. Tiles are taken from the last one
//   on, which alone is masked, or the one before it as well.
// - The result is of the whole context, so that a map emits it.
//
// Not supported: caches of 8 bits, a head_dim other than 64 and 128, and GPUs other than sm_90.
#pragma once
#include "attention_tile.cuh"
#include "warpgroup_float.cuh"

#ifdef WARPGROUP_MMA

namespace attention_warpgroup {

using namespace warpgroup;

constexpr u32 GROUPS = 2, GROUP_THREADS = 128;
constexpr u32 GROUP_QUERIES = 64;
constexpr u32 KEYS = 128;
constexpr u32 STAGES = 2;
// Of a thread: together no more than three threads have when they start.
constexpr u32 COMPUTING_REGISTERS = 232, REQUESTING_REGISTERS = 40;

template <u32 D> struct Shared {
  static constexpr u32 BOXES = D / BOX_COLUMNS;
  u16 queries[GROUPS][2][BOXES][GROUP_QUERIES][BOX_COLUMNS]; // rounded, and what the rounding left
  u16 keys[STAGES][BOXES][KEYS][BOX_COLUMNS];
  u16 values[STAGES][BOXES][KEYS][BOX_COLUMNS];
  u64 keys_full[STAGES], keys_empty[STAGES], values_full[STAGES], values_empty[STAGES];
};

// The queries of all warpgroups, and their keys.
struct Block : attention_tile::Block {
  DEVICE Block(const AttentionParams &p)
      : attention_tile::Block(p, blockIdx.x, blockIdx.y, gridDim.y, GROUPS * GROUP_QUERIES) {}
  DEVICE u32 tiles() const { return ceil_div(end, KEYS); }
  // Warpgroups that have queries.
  DEVICE u32 groups() const { return query0 + GROUP_QUERIES < length ? GROUPS : 1; }
};

// A warpgroup's copies of a tile's keys or values: a thread has one 16-byte piece of every so many-th.
template <u32 D> struct Copy {
  static constexpr u32 PIECES = D / 8, AT_ONCE = GROUP_THREADS / PIECES;
  const u16 *from;
  u32 stride, row, piece;

  DEVICE Copy(const u16 *cache, u32 stride) : stride(stride) {
    row = threadIdx.x % GROUP_THREADS / PIECES, piece = threadIdx.x % PIECES;
    from = cache + row * stride + piece * 8;
  }

  // Zeros for keys that are not there: their values are multiplied by 0.
  template <bool WHOLE> DEVICE void request(u32 to, u32 key0, u32 end) const {
    const u16 *at = from + (u64)key0 * stride;
    to += piece / 8 * (KEYS * BOX_COLUMNS * 2) + row * (BOX_COLUMNS * 2);
#pragma unroll 8
    for (u32 n = 0; n < KEYS; n += AT_ONCE) {
      bool there = WHOLE || key0 + n + row < end;
      copy_async16(to + n * (BOX_COLUMNS * 2) + ((piece ^ (n + row)) % 8) * 16, there ? at : from, there);
      at += AT_ONCE * stride;
    }
  }

  template <u32 BOXES>
  DEVICE void request(u16 (&to)[BOXES][KEYS][BOX_COLUMNS], u32 tile, u32 end, u64 *full) const {
    u32 key0 = tile * KEYS;
    if (key0 + KEYS <= end) request<true>(smem_address(to), key0, end);
    else request<false>(smem_address(to), key0, end);
    barrier_arrive_copied(full);
  }
};

template <u32 DTYPE, u32 D>
DEVICE void produce(Shared<D> &shared, const attention::Cache<DTYPE> &cache, const Block &block) {
  Copy<D> keys(cache.keys + block.kv_head * D, cache.stride), values(cache.values + block.kv_head * D, cache.stride);
  RingTurn<STAGES> turn;
  for (u32 tile = block.tiles(); tile-- > 0; turn.advance()) {
    barrier_wait(&shared.keys_empty[turn.slot], turn.parity ^ 1);
    keys.request(shared.keys[turn.slot], tile, block.end, &shared.keys_full[turn.slot]);
    barrier_wait(&shared.values_empty[turn.slot], turn.parity ^ 1);
    values.request(shared.values[turn.slot], tile, block.end, &shared.values_full[turn.slot]);
  }
  copy_async_wait<0>();
}

// Named barriers: 1 and 2 are those of the groups, 3 and 4 of their turns.
DEVICE void group_barrier(u32 group) { asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(GROUP_THREADS) : "memory"); }

// Who may request products: the other one may when this one has.
struct Turns {
  u32 group;
  bool alone;

  DEVICE void wait() const {
    if (!alone) asm volatile("bar.sync %0, %1;" ::"r"(3 + group), "n"(GROUPS * GROUP_THREADS) : "memory");
  }
  DEVICE void end() const {
    if (!alone) asm volatile("bar.arrive %0, %1;" ::"r"(3 + (group ^ 1)), "n"(GROUPS * GROUP_THREADS) : "memory");
  }
};

// Copies have been made by another proxy than the one that products read by.
DEVICE void arrive(u64 *full, u32 parity) {
  barrier_wait(full, parity);
  store_fence();
}

DEVICE void release(u64 *empty) {
  if (lane_id() == 0) barrier_arrive(empty);
}

// 0 where it would be less than the smallest normal number.
DEVICE float exp2_flushed(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

template <u32 DTYPE, u32 D>
DEVICE void load_queries(const AttentionParams &p, const Block &block, Shared<D> &shared, u32 group) {
  constexpr u32 LANES = D / 4, AT_ONCE = WARP / LANES, ROWS = GROUP_QUERIES / 4;
  float scale = p.scale * 1.4426950408889634f; // exp(x) = exp2(x log2 e)
  u32 column = lane_id() % LANES * 4, row0 = warp_id() % 4 * ROWS + lane_id() / LANES;
  float4 q[ROWS / AT_ONCE];
#pragma unroll
  for (u32 n = 0; n < ROWS / AT_ONCE; n++) {
    u32 query = block.query0 + group * GROUP_QUERIES + row0 + n * AT_ONCE;
    u64 at = ((u64)(block.row0 + query) * p.heads + block.head) * D + column;
    q[n] = query < block.length ? *(const float4 *)(p.q + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
#pragma unroll
  for (u32 n = 0; n < ROWS / AT_ONCE; n++) {
    u32 row = row0 + n * AT_ONCE, place = (column % BOX_COLUMNS / 8 ^ row % 8) * 8 + column % 8;
    uint2 whole, rest;
    attention_tile::split<DTYPE>(q[n].x * scale, q[n].y * scale, whole.x, rest.x);
    attention_tile::split<DTYPE>(q[n].z * scale, q[n].w * scale, whole.y, rest.y);
    *(uint2 *)&shared.queries[group][0][column / BOX_COLUMNS][row][place] = whole;
    *(uint2 *)&shared.queries[group][1][column / BOX_COLUMNS][row][place] = rest;
  }
  store_fence();
  group_barrier(group);
}

// What a warpgroup knows of its 64 queries. A lane has parts of queries lane / 4 of its warp's 16, and 8 more.
template <u32 DTYPE, u32 D> struct Queries {
  float score[KEYS / 2], out[D / 2], top[2], sum[2], keep[2];
  u32 whole[KEYS / 16][4], rest[KEYS / 16][4]; // of the weights
  u32 matrices, first;                         // of the queries; this lane's first query

  DEVICE Queries(const Block &block, Shared<D> &shared, u32 group) {
    matrices = matrix(smem_address(shared.queries[group]));
    first = block.query0 + group * GROUP_QUERIES + warp_id() % 4 * 16 + lane_id() / 4;
#pragma unroll
    for (u32 i = 0; i < 2; i++) top[i] = attention::NEGATIVE, sum[i] = 0.0f;
#pragma unroll
    for (u32 i = 0; i < D / 2; i++) out[i] = 0.0f;
  }

  // Requests scores.
  DEVICE void multiply_keys(const Shared<D> &shared, u32 slot) {
    constexpr u32 QUERY_BOX = GROUP_QUERIES * BOX_COLUMNS * 2 / 16, KEY_BOX = KEYS * BOX_COLUMNS * 2 / 16;
    constexpr u32 BOXES = Shared<D>::BOXES;
    u32 keys = matrix(smem_address(shared.keys)) + slot * (BOXES * KEY_BOX);
#pragma unroll
    for (u32 s = 0; s < D / 16; s++) {
      u32 a = matrices + s / 4 * QUERY_BOX + s % 4 * 2, b = keys + s / 4 * KEY_BOX + s % 4 * 2;
      if (s == 0)
        MultiplyFloats<DTYPE, KEYS>::start(score, a, b);
      else
        MultiplyFloats<DTYPE, KEYS>::run(score, a, b);
      MultiplyFloats<DTYPE, KEYS>::run(score, a + BOXES * QUERY_BOX, b);
    }
    commit();
  }

  // Requests the sums of weighted values.
  DEVICE void add_values(const Shared<D> &shared, u32 slot) {
    constexpr u32 BOX_BYTES = KEYS * BOX_COLUMNS * 2;
    u32 values = transposed_matrix(smem_address(shared.values), BOX_BYTES) + slot * (Shared<D>::BOXES * BOX_BYTES / 16);
#pragma unroll
    for (u32 s = 0; s < KEYS / 16; s++) {
      u32 b = values + s * (16 * BOX_COLUMNS * 2 / 16);
      MultiplyFloats<DTYPE, D>::run_transposed(out, whole[s], b);
      MultiplyFloats<DTYPE, D>::run_transposed(out, rest[s], b);
    }
    commit();
  }

  // Keys behind a query weigh nothing.
  DEVICE void mask(u32 key0, u32 position0) {
    int last = (int)(position0 + first) - (int)(key0 + lane_id() % 4 * 2);
#pragma unroll
    for (u32 i = 0; i < KEYS / 2; i++)
      if ((int)(i / 4 * 8 + i % 2) > last + (int)(i / 2 % 2 * 8)) score[i] = 2.0f * attention::NEGATIVE;
  }

  // Scores to weights relative to the highest score so far.
  DEVICE void weigh() {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      float highest[2] = {top[i], top[i]};
#pragma unroll
      for (u32 n = i * 2; n < KEYS / 2; n += 4)
        highest[0] = fmaxf(highest[0], score[n]), highest[1] = fmaxf(highest[1], score[n + 1]);
      highest[0] = fmaxf(highest[0], highest[1]);
      highest[0] = fmaxf(highest[0], __shfl_xor_sync(FULL_MASK, highest[0], 1));
      highest[0] = fmaxf(highest[0], __shfl_xor_sync(FULL_MASK, highest[0], 2));
      keep[i] = exp2_flushed(top[i] - highest[0]);
      top[i] = highest[0];
      sum[i] *= keep[i];
#pragma unroll
      for (u32 n = i * 2; n < KEYS / 2; n += 4)
#pragma unroll
        for (u32 c = n; c < n + 2; c++) {
          score[c] = exp2_flushed(score[c] - top[i]);
          sum[i] += score[c];
        }
    }
  }

  // Weights in two numbers of 16 bits; sums relative to the highest score.
  DEVICE void round() {
#pragma unroll
    for (u32 i = 0; i < D / 2; i++) out[i] *= keep[i / 2 % 2];
#pragma unroll
    for (u32 i = 0; i < KEYS / 4; i++)
      attention_tile::split<DTYPE>(score[i * 2], score[i * 2 + 1], whole[i / 4][i % 4], rest[i / 4][i % 4]);
  }

  DEVICE void store(const AttentionParams &p, const Block &block) const {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      float all = sum[i] + __shfl_xor_sync(FULL_MASK, sum[i], 1);
      all += __shfl_xor_sync(FULL_MASK, all, 2);
      u32 query = first + i * 8;
      if (query >= block.length) continue;
      float share = 1.0f / all;
      float *to = p.part_acc + ((u64)(block.row0 + query) * p.heads + block.head) * D + lane_id() % 4 * 2;
#pragma unroll
      for (u32 d = 0; d < D / 8; d++)
        *(float2 *)(to + d * 8) = make_float2(out[d * 4 + i * 2] * share, out[d * 4 + i * 2 + 1] * share);
    }
  }
};

template <u32 DTYPE, u32 D>
DEVICE void consume(const AttentionParams &p, Shared<D> &shared, const Block &block, u32 group) {
  Turns turns{group, block.groups() == 1};
  load_queries<DTYPE, D>(p, block, shared, group);
  Queries<DTYPE, D> queries(block, shared, group);
  // The first key that this group's first query does not see.
  u32 masked = block.position0 + block.query0 + group * GROUP_QUERIES + 1;
  RingTurn<STAGES> keys, values;
  u32 tile = block.tiles() - 1;
  arrive(&shared.keys_full[keys.slot], keys.parity);
  if (group == 1) turns.wait();
  fence();
  queries.multiply_keys(shared, keys.slot);
  turns.end();
  wait<0>(queries.score);
  release(&shared.keys_empty[keys.slot]);
  queries.mask(tile * KEYS, block.position0);
  queries.weigh();
  arrive(&shared.values_full[values.slot], values.parity);
  queries.round();
#pragma unroll 1
  while (tile-- > 0) {
    keys.advance();
    arrive(&shared.keys_full[keys.slot], keys.parity);
    turns.wait();
    fence();
    queries.multiply_keys(shared, keys.slot);
    queries.add_values(shared, values.slot);
    turns.end();
    wait<1>(queries.score);
    release(&shared.keys_empty[keys.slot]);
    if ((tile + 1) * KEYS > masked) queries.mask(tile * KEYS, block.position0);
    queries.weigh();
    u32 read = values.slot;
    values.advance();
    // They have long arrived; but where nothing branches ptxas waits for the sums before it makes weights.
    arrive(&shared.values_full[values.slot], values.parity);
    wait<0>(queries.out);
    release(&shared.values_empty[read]);
    queries.round();
  }
  turns.wait();
  fence();
  queries.add_values(shared, values.slot);
  if (group == 0) turns.end();
  wait<0>(queries.out);
  // Made again, so that it takes no registers up to here.
  queries.store(p, Block(p));
}

} // namespace attention_warpgroup

#endif

// Grid: heads, blocks of 128 queries, sequences.
template <u32 DTYPE, u32 D> DEVICE void attention_warpgroups(const AttentionParams &p) {
#ifdef WARPGROUP_MMA
  using namespace attention_warpgroup;
  extern __shared__ __align__(1024) u8 dynamic[];
  Shared<D> &shared = *(Shared<D> *)dynamic;
  pdl_launch_dependents();
  // Requested together, ahead of the barriers.
  Block block(p);
  attention::Cache<DTYPE> cache(p, blockIdx.z);
  if (block.query0 >= block.length) return;
  if (threadIdx.x == 0) {
    u32 warps = block.groups() * (GROUP_THREADS / WARP);
    ring_init(shared.keys_full, shared.keys_empty, STAGES, GROUP_THREADS, warps);
    ring_init(shared.values_full, shared.values_empty, STAGES, GROUP_THREADS, warps);
    barrier_init_fence();
  }
  __syncthreads();
  pdl_wait();
  // Lane 0's, so that ptxas knows: a warp has the same, and descriptors are computed once a warp.
  u32 group = __shfl_sync(FULL_MASK, threadIdx.x / GROUP_THREADS, 0);
  if (group == GROUPS) {
    lower_registers<REQUESTING_REGISTERS>();
    produce<DTYPE, D>(shared, cache, block);
  } else {
    raise_registers<COMPUTING_REGISTERS>();
    if (group < block.groups()) consume<DTYPE, D>(p, shared, block, group);
  }
#endif
}
