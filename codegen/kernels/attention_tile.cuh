// Plan kernel `attention` for chunks of many tokens and caches of 16 or 8 bits: flash attention on tensor cores (mma.sync).
//
// Bound by arithmetic: 2048 tokens of 8B are 34 GFLOP a layer, done twice here, 0.1 ms at 700 TFLOPS.
//
// - A block has 64 queries of one head and sequence, a warp 16 of them; 32 keys and values a stage, copied while the stage
//   before is multiplied. Chunks of 16 bytes are permuted by the key, so that no two rows of a load share a bank.
// - Keys and values of 16 bits are multiplied as they are stored; 8-bit integers are exact in bf16, and their scales multiply
//   scores and weights. Queries and weights are f32: each is the sum of two 16-bit numbers,
//   and multiplied in two instructions, which leaves an error of 2^-17.
// - The result is of the whole context, so that a map emits it.
//
// Supports head_dim up to D in multiples of 8.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

namespace attention_tile {

constexpr u32 THREADS = 128;
constexpr u32 QUERIES = 64;
constexpr u32 KEYS = 32;

template <u32 D> struct Shared {
  u16 keys[2][KEYS][D], values[2][KEYS][D];
  float key_scale[2][KEYS], value_scale[2][KEYS]; // of 8-bit caches
  uint4 rest[D / 16][THREADS]; // second halves of the queries, where registers are short
};

template <u32 DTYPE> DEVICE u32 pack(float low, float high) {
  u32 out;
  if constexpr (DTYPE == DTYPE_BF16)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

// Two f32 as two pairs of 16-bit numbers: rounded, and what the rounding left.
template <u32 DTYPE> DEVICE void split(float a, float b, u32 &whole, u32 &rest) {
  whole = pack<DTYPE>(a, b);
  rest = pack<DTYPE>(a - Element<DTYPE>::to_f32((u16)(whole & 0xffff)), b - Element<DTYPE>::to_f32((u16)(whole >> 16)));
}

// acc[16 x 8] += a[16 x 16] * b[16 x 8].
template <u32 DTYPE> DEVICE void mma(float (&acc)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  if constexpr (DTYPE == DTYPE_BF16)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Every lane names one row.
DEVICE void load_matrices(u32 (&out)[4], const u16 *row) { ::load_matrices(out, smem_address(row)); }

DEVICE void load_transposed(u32 (&out)[4], const u16 *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(smem_address(row))
               : "memory");
}

template <u32 D> DEVICE u16 *place(u16 (*rows)[D], u32 key, u32 chunk) { return rows[key] + (chunk ^ key % 8) * 8; }

// Queries and keys of a block.
struct Block {
  u32 row0, length;   // first row of the sequence in the step, rows of it
  u32 query0;         // first query of the block
  u32 position0, end; // position of the sequence's first row; keys that the block's queries see
  u32 head, kv_head;

  // Block `at` of `blocks`: those that see most keys start first.
  DEVICE Block(const AttentionParams &p, u32 head, u32 at, u32 blocks, u32 queries) : head(head) {
    u32 sequence = blockIdx.z;
    row0 = p.batch.seq_start[sequence];
    length = p.batch.seq_start[sequence + 1] - row0;
    query0 = (blocks - 1 - at) * queries;
    position0 = p.batch.seq_pos[sequence];
    end = position0 + min(query0 + queries, length);
    kv_head = head / (p.heads / p.kv_heads);
  }
  DEVICE Block(const AttentionParams &p) : Block(p, blockIdx.y, blockIdx.x, gridDim.x, QUERIES) {}
};

template <u32 DTYPE, u32 D>
DEVICE void copy_tile(const AttentionParams &p, const attention::Cache<DTYPE> &cache, const Block &block, Shared<D> &shared,
                      u32 tile) {
  constexpr u32 CHUNKS = D / 8;
#pragma unroll 1
  for (u32 i = threadIdx.x; i < KEYS * CHUNKS; i += THREADS) {
    u32 key = i / CHUNKS, chunk = i % CHUNKS;
    bool valid = tile * KEYS + key < block.end && chunk * 8 < p.head_dim;
    u64 from = valid ? (u64)(tile * KEYS + key) * cache.stride + chunk * 8 : 0;
    copy_async16(smem_address(place<D>(shared.keys[tile % 2], key, chunk)), cache.keys + from, valid);
    copy_async16(smem_address(place<D>(shared.values[tile % 2], key, chunk)), cache.values + from, valid);
  }
}

// Keys and values of 16 bits, on their way to shared memory.
template <u32 DTYPE, u32 D> struct Incoming {
  static constexpr u32 MULTIPLIED = DTYPE;

  DEVICE void request(const AttentionParams &p, const attention::Cache<DTYPE> &cache, const Block &block, Shared<D> &shared,
                      u32 tile) {
    copy_tile<DTYPE, D>(p, cache, block, shared, tile);
    copy_async_commit();
  }
  DEVICE void none() { copy_async_commit(); }
  DEVICE void arrive() {
    copy_async_wait<1>();
    __syncthreads();
  }
  DEVICE void land(Shared<D> &shared, u32 tile) { __syncthreads(); }
};

// Keys and values of 8 bits, in registers until the stage before is multiplied.
template <u32 D> struct Incoming<DTYPE_I8, D> {
  static constexpr u32 MULTIPLIED = DTYPE_BF16;
  static constexpr u32 CHUNKS = D / 8, TURNS = KEYS * CHUNKS / THREADS;
  uint2 keys[TURNS], values[TURNS];
  float scale;

  DEVICE void request(const AttentionParams &p, const attention::Cache<DTYPE_I8> &cache, const Block &block, Shared<D> &shared,
                      u32 tile) {
#pragma unroll
    for (u32 n = 0; n < TURNS; n++) {
      u32 i = n * THREADS + threadIdx.x, key = tile * KEYS + i / CHUNKS, column = i % CHUNKS * 8;
      bool valid = key < block.end && column < p.head_dim;
      u64 from = (u64)key * cache.stride + column;
      keys[n] = valid ? *(const uint2 *)(cache.keys + from) : make_uint2(0, 0);
      values[n] = valid ? *(const uint2 *)(cache.values + from) : make_uint2(0, 0);
    }
    u32 key = tile * KEYS + threadIdx.x % KEYS;
    const float *scales = threadIdx.x < KEYS ? cache.key_scales : cache.value_scales;
    scale = threadIdx.x < 2 * KEYS && key < block.end ? scales[(u64)key * cache.heads] : 0.0f;
  }
  DEVICE void none() {}
  DEVICE void arrive() { __syncthreads(); }

  static DEVICE uint4 widen(uint2 packed) {
    float v[8];
    bytes_to_f32(packed.x, v);
    bytes_to_f32(packed.y, v + 4);
    return make_uint4(pack<DTYPE_BF16>(v[0], v[1]), pack<DTYPE_BF16>(v[2], v[3]), pack<DTYPE_BF16>(v[4], v[5]),
                      pack<DTYPE_BF16>(v[6], v[7]));
  }

  // Nobody reads this stage: all have arrived at the one before.
  DEVICE void land(Shared<D> &shared, u32 tile) {
#pragma unroll
    for (u32 n = 0; n < TURNS; n++) {
      u32 i = n * THREADS + threadIdx.x, key = i / CHUNKS, chunk = i % CHUNKS;
      *(uint4 *)place<D>(shared.keys[tile % 2], key, chunk) = widen(keys[n]);
      *(uint4 *)place<D>(shared.values[tile % 2], key, chunk) = widen(values[n]);
    }
    if (threadIdx.x < KEYS) shared.key_scale[tile % 2][threadIdx.x] = scale;
    else if (threadIdx.x < 2 * KEYS) shared.value_scale[tile % 2][threadIdx.x - KEYS] = scale;
  }
};

// Scores or weights of a lane times the scale of each key.
DEVICE void scale_keys(float (&values)[KEYS / 8][4], const float *scale) {
#pragma unroll
  for (u32 n = 0; n < KEYS / 8; n++) {
    float2 pair = *(const float2 *)(scale + n * 8 + lane_id() % 4 * 2);
#pragma unroll
    for (u32 c = 0; c < 4; c++) values[n][c] *= c % 2 ? pair.y : pair.x;
  }
}

// What a warp knows of its 16 queries. A lane has parts of queries lane / 4 and 8 more.
template <u32 DTYPE, u32 D> struct Queries {
  u32 whole[D / 16][4];
  float out[D / 8][4], top[2], sum[2];
  u32 first; // this lane's first query

  DEVICE void load(const AttentionParams &p, const Block &block, Shared<D> &shared) {
    float scale = p.scale * 1.4426950408889634f; // exp(x) = exp2(x log2 e)
    first = block.query0 + warp_id() * 16 + lane_id() / 4;
#pragma unroll
    for (u32 s = 0; s < D / 16; s++) {
      u32 rest[4];
#pragma unroll
      for (u32 r = 0; r < 4; r++) {
        u32 query = first + r % 2 * 8, column = s * 16 + r / 2 * 8 + lane_id() % 4 * 2;
        bool there = query < block.length && column < p.head_dim;
        u64 at = ((u64)(block.row0 + query) * p.heads + block.head) * p.head_dim + column;
        float2 q = there ? *(const float2 *)(p.q + at) : make_float2(0.0f, 0.0f);
        split<DTYPE>(q.x * scale, q.y * scale, whole[s][r], rest[r]);
      }
      shared.rest[s][threadIdx.x] = make_uint4(rest[0], rest[1], rest[2], rest[3]);
    }
#pragma unroll
    for (u32 i = 0; i < 2; i++) top[i] = attention::NEGATIVE, sum[i] = 0.0f;
#pragma unroll
    for (u32 d = 0; d < D / 8; d++)
#pragma unroll
      for (u32 c = 0; c < 4; c++) out[d][c] = 0.0f;
  }

  DEVICE void multiply_keys(const Shared<D> &shared, u16 (*keys)[D], float (&score)[KEYS / 8][4]) const {
#pragma unroll
    for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
      for (u32 c = 0; c < 4; c++) score[n][c] = 0.0f;
#pragma unroll
    for (u32 s = 0; s < D / 16; s += 2) {
      uint4 v = shared.rest[s][threadIdx.x], w = shared.rest[s + 1][threadIdx.x];
      u32 rest[4] = {v.x, v.y, v.z, v.w}, next[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (u32 n = 0; n < KEYS / 8; n++) {
        u32 b[4];
        load_matrices(b, place<D>(keys, n * 8 + lane_id() % 8, s * 2 + lane_id() / 8));
        mma<DTYPE>(score[n], whole[s], b[0], b[1]);
        mma<DTYPE>(score[n], rest, b[0], b[1]);
        mma<DTYPE>(score[n], whole[s + 1], b[2], b[3]);
        mma<DTYPE>(score[n], next, b[2], b[3]);
      }
    }
  }

  // Keys behind a query weigh nothing.
  DEVICE void mask(float (&score)[KEYS / 8][4], u32 key0, u32 position0) const {
#pragma unroll
    for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
      for (u32 c = 0; c < 4; c++)
        if (key0 + n * 8 + lane_id() % 4 * 2 + c % 2 > position0 + first + c / 2 * 8) score[n][c] = 2.0f * attention::NEGATIVE;
  }

  // Scores to weights relative to the highest score so far.
  DEVICE void weigh(float (&score)[KEYS / 8][4]) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      float highest = top[i];
#pragma unroll
      for (u32 n = 0; n < KEYS / 8; n++) highest = fmaxf(highest, fmaxf(score[n][i * 2], score[n][i * 2 + 1]));
      highest = fmaxf(highest, __shfl_xor_sync(FULL_MASK, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(FULL_MASK, highest, 2));
      float keep = exp2f(top[i] - highest);
      top[i] = highest;
      sum[i] *= keep;
#pragma unroll
      for (u32 d = 0; d < D / 8; d++) out[d][i * 2] *= keep, out[d][i * 2 + 1] *= keep;
#pragma unroll
      for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (u32 c = i * 2; c < i * 2 + 2; c++) {
          score[n][c] = exp2f(score[n][c] - highest);
          sum[i] += score[n][c];
        }
    }
  }

  DEVICE void add_values(u16 (*values)[D], const float (&weight)[KEYS / 8][4]) {
#pragma unroll
    for (u32 s = 0; s < KEYS / 16; s++) {
      u32 high[4], low[4];
#pragma unroll
      for (u32 r = 0; r < 4; r++)
        split<DTYPE>(weight[s * 2 + r / 2][r % 2 * 2], weight[s * 2 + r / 2][r % 2 * 2 + 1], high[r], low[r]);
#pragma unroll
      for (u32 d = 0; d < D / 8; d += 2) {
        u32 b[4];
        load_transposed(b, place<D>(values, s * 16 + lane_id() % 16, d + lane_id() / 16));
        mma<DTYPE>(out[d], high, b[0], b[1]);
        mma<DTYPE>(out[d], low, b[0], b[1]);
        mma<DTYPE>(out[d + 1], high, b[2], b[3]);
        mma<DTYPE>(out[d + 1], low, b[2], b[3]);
      }
    }
  }

  DEVICE void store(const AttentionParams &p, const Block &block) const {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      float all = sum[i] + __shfl_xor_sync(FULL_MASK, sum[i], 1);
      all += __shfl_xor_sync(FULL_MASK, all, 2);
      u32 query = first + i * 8;
      if (query >= block.length) continue;
      u64 part = (u64)(block.row0 + query) * p.heads + block.head;
      float share = 1.0f / all;
#pragma unroll
      for (u32 d = 0; d < D / 8; d++) {
        u32 column = d * 8 + lane_id() % 4 * 2;
        if (column < p.head_dim)
          *(float2 *)(p.part_acc + part * p.head_dim + column) = make_float2(out[d][i * 2] * share, out[d][i * 2 + 1] * share);
      }
    }
  }
};

} // namespace attention_tile

// Grid: blocks of 64 queries, heads, sequences.
template <u32 DTYPE, u32 D> DEVICE void attention_tiles(const AttentionParams &p) {
  using namespace attention_tile;
  extern __shared__ __align__(128) u8 attention_memory[];
  Shared<D> &shared = *(Shared<D> *)attention_memory;
  pdl_launch_dependents();
  pdl_wait();
  Block block(p);
  if (block.query0 >= block.length) return;
  attention::Cache<DTYPE> cache(p, blockIdx.z);
  cache.keys += block.kv_head * p.head_dim, cache.values += block.kv_head * p.head_dim;
  cache.key_scales += block.kv_head, cache.value_scales += block.kv_head;
  Incoming<DTYPE, D> incoming;
  incoming.request(p, cache, block, shared, 0);
  Queries<Incoming<DTYPE, D>::MULTIPLIED, D> queries;
  queries.load(p, block, shared);
  incoming.land(shared, 0);
  u32 tiles = ceil_div(block.end, KEYS);
  for (u32 tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) incoming.request(p, cache, block, shared, tile + 1);
    else incoming.none();
    incoming.arrive();
    float score[KEYS / 8][4];
    queries.multiply_keys(shared, shared.keys[tile % 2], score);
    if constexpr (attention::Cache<DTYPE>::SCALED) scale_keys(score, shared.key_scale[tile % 2]);
    if ((tile + 1) * KEYS > block.position0 + block.query0) queries.mask(score, tile * KEYS, block.position0);
    queries.weigh(score);
    if constexpr (attention::Cache<DTYPE>::SCALED) scale_keys(score, shared.value_scale[tile % 2]);
    queries.add_values(shared.values[tile % 2], score);
    incoming.land(shared, tile + 1);
  }
  // Made again, so that it takes no registers up to here.
  queries.store(p, Block(p));
}
