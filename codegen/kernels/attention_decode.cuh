// Plan kernel `attention` for one token a sequence and caches of 16 bits, head_dim of 64 or 128, on tensor cores (mma.sync).
//
// Bound by the cache: 16 KiB a token of 8B in bf16 over 4 layers, 0.48 ms at 128K tokens and 4.46 TB/s (0.50
// measured). A short context is bound by the time that dependent instructions, and cold ones, take.
//
// - A block has the query heads that share keys, up to four, and a part of the context, of which its warps take 16 keys at
//   a time in turn. Each warp has its own ring in shared memory, filled by 16-byte copies, and never waits for another.
// - What was in the cache before the step is requested before the kernels ahead of this one have finished.
// - Keys are the 16 rows of an instruction, the eight columns four query heads as sums of two 16-bit numbers: a lane then
//   has whole scores, of two keys and one head, weights return as columns by a transposing move, and nothing is multiplied in vain.
// - WHOLE: where a context is so short that a block takes all of it, a cluster of blocks makes a row and emits it. Fewer stages,
//   so that the clusters of 32 sequences are resident together.
//
// Chunks of 16 bytes are permuted by the key, as in attention_tile.cuh.
#pragma once
#include "attention_tile.cuh"
#include "emit_cluster.cuh"

namespace attention_decode {

using attention_tile::load_matrices;
using attention_tile::load_transposed;
using attention_tile::pack;
using attention_tile::place;
using attention_tile::split;

constexpr u32 WARPS = ATTENTION_DECODE_WARPS;
constexpr u32 HEADS = 4;
constexpr u32 KEYS = 16;

template <u32 D> struct Tile {
  u16 keys[KEYS][D], values[KEYS][D];
};

// A warp's sums take the place of its ring. Padded, so that the heads of a column are in different banks.
template <u32 D> struct Sums {
  float acc[HEADS][D + 8];
  float row[HEADS * D]; // of the first warp: the block's
};

template <u32 D, u32 STAGES> union Ring {
  Tile<D> tiles[STAGES];
  Sums<D> sums;
};

// The eight rows of an 8 x 8 matrix of 16-bit numbers as its columns.
DEVICE u32 transpose(u32 pair) {
  u32 out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}

// Keys of a block: those of `kv_head` from `begin` to `end`, of which the one at `position` is not in the cache yet.
struct Part {
  u32 row, kv_head, head0, head_end, position, begin, end;

  DEVICE Part(const AttentionParams &p, bool whole) {
    u32 per_kv = p.heads / p.kv_heads, blocks = whole ? 1 : ceil_div(per_kv, HEADS);
    u32 block = whole ? cluster_rank() : blockIdx.y;
    row = whole ? blockIdx.x / cluster_size() : blockIdx.x;
    kv_head = block / blocks, head0 = kv_head * per_kv + block % blocks * HEADS, head_end = (kv_head + 1) * per_kv;
    // A row a sequence: both have the same number.
    position = p.batch.seq_pos[row];
    u32 length = position + 1, keys = whole ? length : attention::part_keys(length, p.parts);
    begin = whole ? 0 : min(blockIdx.z * keys, length), end = min(begin + keys, length);
  }
  DEVICE u32 tiles() const { return ceil_div(end - begin, KEYS); }
};

template <u32 DTYPE, u32 D> struct Source {
  u16 *keys, *values;
  u32 stride, begin, taken;

  DEVICE Source(const attention::Cache<DTYPE> &cache, const Part &part) {
    keys = cache.keys + part.kv_head * D, values = cache.values + part.kv_head * D;
    stride = cache.stride, begin = part.begin, taken = min(part.position, part.end);
  }

  // Zeros for keys that are not there: their values are multiplied by 0.
  DEVICE void request(Tile<D> &to, u32 tile) const {
    constexpr u32 CHUNKS = D / 8, AT_ONCE = WARP / CHUNKS;
    u32 chunk = lane_id() % CHUNKS, first = begin + tile * KEYS;
#pragma unroll
    for (u32 n = 0; n < KEYS / AT_ONCE; n++) {
      u32 key = n * AT_ONCE + lane_id() / CHUNKS;
      bool valid = first + key < taken;
      u64 from = valid ? (u64)(first + key) * stride + chunk * 8 : 0;
      copy_async16(smem_address(place<D>(to.keys, key, chunk)), keys + from, valid);
      copy_async16(smem_address(place<D>(to.values, key, chunk)), values + from, valid);
    }
  }
};

// This step's key and value of a head: a lane has some columns of both.
template <u32 DTYPE, u32 D> struct Fresh {
  static constexpr u32 PAIRS = D / WARP / 2;
  float2 key[PAIRS], value[PAIRS];

  DEVICE void load(const AttentionParams &p, const Part &part) {
    u64 at = ((u64)part.row * p.kv_heads + part.kv_head) * D + lane_id() * 2;
#pragma unroll
    for (u32 i = 0; i < PAIRS; i++)
      key[i] = *(const float2 *)(p.k + at + i * 2 * WARP), value[i] = *(const float2 *)(p.v + at + i * 2 * WARP);
  }

  DEVICE void append(const Source<DTYPE, D> &to, Tile<D> &tile, u32 position) const {
    u32 row = (position - to.begin) % KEYS;
    u64 at = (u64)position * to.stride;
#pragma unroll
    for (u32 i = 0; i < PAIRS; i++) {
      u32 column = i * 2 * WARP + lane_id() * 2;
      u32 k = pack<DTYPE>(key[i].x, key[i].y), v = pack<DTYPE>(value[i].x, value[i].y);
      *(u32 *)(place<D>(tile.keys, row, column / 8) + column % 8) = k;
      *(u32 *)(place<D>(tile.values, row, column / 8) + column % 8) = v;
      *(u32 *)(to.keys + at + column) = k;
      *(u32 *)(to.values + at + column) = v;
    }
  }
};

// Four heads, each as a column of rounded values and one of what the rounding left, for all warps. A short context's kernel takes
// as long as its instructions take to arrive, so there are few of them. Padded, so that columns are in different banks.
template <u32 D> struct Queries {
  u16 columns[2 * HEADS][D + 8];

  template <u32 DTYPE> DEVICE void load(const AttentionParams &p, const Part &part) {
    float scale = p.scale * 1.4426950408889634f; // exp(x) = exp2(x log2 e)
    u32 i = threadIdx.x * 4, h = i / D, d = i % D;
    if (h >= HEADS) return;
    float4 q = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (part.head0 + h < part.head_end) q = *(const float4 *)(p.q + ((u64)part.row * p.heads + part.head0) * D + i);
    uint2 whole, rest;
    split<DTYPE>(q.x * scale, q.y * scale, whole.x, rest.x);
    split<DTYPE>(q.z * scale, q.w * scale, whole.y, rest.y);
    *(uint2 *)&columns[2 * h][d] = whole;
    *(uint2 *)&columns[2 * h + 1][d] = rest;
  }
};

// What a warp knows of four heads. A lane has scores of head lane % 4 and columns lane / 4 of every eight.
template <u32 DTYPE, u32 D> struct Heads {
  u32 q[D / 16][2];
  float out[D / 16][4], top, sum;

  DEVICE void load(const Queries<D> &queries) {
#pragma unroll
    for (u32 s = 0; s < D / 16; s += 2) {
      u32 b[4];
      load_matrices(b, &queries.columns[lane_id() % 8][s * 16 + lane_id() / 8 * 8]);
      q[s][0] = b[0], q[s][1] = b[1], q[s + 1][0] = b[2], q[s + 1][1] = b[3];
    }
    top = attention::NEGATIVE, sum = 0.0f;
#pragma unroll
    for (u32 m = 0; m < D / 16; m++)
#pragma unroll
      for (u32 c = 0; c < 4; c++) out[m][c] = 0.0f;
  }

  // Scores of keys lane / 4 and 8 more.
  DEVICE void multiply_keys(Tile<D> &tile, float (&score)[2]) const {
    float sums[2][4] = {};
#pragma unroll
    for (u32 s = 0; s < D / 16; s++) {
      u32 a[4];
      load_matrices(a, place<D>(tile.keys, lane_id() % 16, s * 2 + lane_id() / 16));
      attention_tile::mma<DTYPE>(sums[s % 2], a, q[s][0], q[s][1]);
    }
#pragma unroll
    for (u32 i = 0; i < 2; i++)
      score[i] = (sums[0][i * 2] + sums[1][i * 2]) + (sums[0][i * 2 + 1] + sums[1][i * 2 + 1]);
  }

  // Scores to weights relative to the highest score so far.
  DEVICE void weigh(float (&score)[2]) {
    float highest = fmaxf(top, fmaxf(score[0], score[1]));
#pragma unroll
    for (u32 o = 4; o < WARP; o *= 2) highest = fmaxf(highest, __shfl_xor_sync(FULL_MASK, highest, o));
    if (__any_sync(FULL_MASK, highest > top)) {
      float keep = exp2f(top - highest);
      top = highest, sum *= keep;
#pragma unroll
      for (u32 m = 0; m < D / 16; m++)
#pragma unroll
        for (u32 c = 0; c < 4; c++) out[m][c] *= keep;
    }
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      score[i] = exp2f(score[i] - top);
      sum += score[i];
    }
  }

  DEVICE void add_values(Tile<D> &tile, const float (&weight)[2]) {
    u32 b[2];
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      float rounded = Element<DTYPE>::to_f32(Element<DTYPE>::from_f32(weight[i]));
      b[i] = transpose(pack<DTYPE>(rounded, weight[i] - rounded));
    }
#pragma unroll
    for (u32 m = 0; m < D / 16; m++) {
      u32 a[4];
      load_transposed(a, place<D>(tile.values, lane_id() % 8 + lane_id() / 16 * 8, m * 2 + lane_id() / 8 % 2));
      attention_tile::mma<DTYPE>(out[m], a, b[0], b[1]);
    }
  }

  DEVICE void take(Tile<D> &tile, u32 keys) {
    float score[2];
    multiply_keys(tile, score);
#pragma unroll
    for (u32 i = 0; i < 2; i++)
      if (lane_id() / 4 + i * 8 >= keys) score[i] = 2.0f * attention::NEGATIVE;
    weigh(score);
    add_values(tile, score);
  }

  // For the block.
  DEVICE void give(Sums<D> &sums, float (&tops)[HEADS], float (&weights)[HEADS]) {
#pragma unroll
    for (u32 o = 4; o < WARP; o *= 2) sum += __shfl_xor_sync(FULL_MASK, sum, o);
    u32 head = lane_id() % 4, column = lane_id() / 4;
    if (lane_id() < HEADS) tops[head] = top, weights[head] = sum;
#pragma unroll
    for (u32 m = 0; m < D / 16; m++)
#pragma unroll
      for (u32 i = 0; i < 2; i++) sums.acc[head][m * 16 + i * 8 + column] = out[m][i * 2] + out[m][i * 2 + 1];
  }
};

template <u32 DTYPE, u32 D, u32 STAGES>
DEVICE void attend(const AttentionParams &p, const Part &part, const Source<DTYPE, D> &source, Queries<D> &queries,
                   Ring<D, STAGES> &ring, Heads<DTYPE, D> &heads) {
  u32 tiles = part.tiles();
#pragma unroll 1
  for (u32 i = 0; i < STAGES; i++) {
    u32 tile = warp_id() + i * WARPS;
    if (tile < tiles) source.request(ring.tiles[i], tile);
    copy_async_commit();
  }
  bool appends = part.position < part.end && (part.position - part.begin) / KEYS % WARPS == warp_id();
  pdl_wait();
  Fresh<DTYPE, D> fresh;
  if (appends) fresh.load(p, part);
  queries.template load<DTYPE>(p, part);
  __syncthreads();
  heads.load(queries);
  u32 slot = 0;
#pragma unroll 1
  for (u32 tile = warp_id(); tile < tiles; tile += WARPS) {
    copy_async_wait<STAGES - 1>();
    __syncwarp();
    if (appends && tile + 1 == tiles) {
      fresh.append(source, ring.tiles[slot], part.position);
      __syncwarp();
    }
    heads.take(ring.tiles[slot], part.end - part.begin - tile * KEYS);
    __syncwarp();
    if (tile + STAGES * WARPS < tiles) source.request(ring.tiles[slot], tile + STAGES * WARPS);
    copy_async_commit();
    slot = slot + 1 == STAGES ? 0 : slot + 1;
  }
}

DEVICE void add_weighted(float4 &to, float weight, float4 v) {
  to.x = fmaf(weight, v.x, to.x), to.y = fmaf(weight, v.y, to.y);
  to.z = fmaf(weight, v.z, to.z), to.w = fmaf(weight, v.w, to.w);
}

// Of head h and columns d to d + 3 over the warps of a block.
struct Joined {
  float top, sum;
  float4 acc;

  template <u32 D, u32 STAGES>
  DEVICE Joined(const Ring<D, STAGES> (&rings)[WARPS], const float (&tops)[WARPS][HEADS],
                const float (&weights)[WARPS][HEADS], u32 h, u32 d) {
    top = attention::NEGATIVE, sum = 0.0f, acc = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) top = fmaxf(top, tops[w][h]);
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
      float weight = exp2f(tops[w][h] - top);
      sum = fmaf(weight, weights[w][h], sum);
      add_weighted(acc, weight, *(const float4 *)&rings[w].sums.acc[h][d]);
    }
  }
};

// A block's part for attention_combine.
DEVICE void store(const AttentionParams &p, const Part &part, u32 h, u32 d, const Joined &joined) {
  u64 at = ((u64)part.row * p.heads + part.head0 + h) * p.parts + blockIdx.z;
  *(float4 *)(p.part_acc + at * p.head_dim + d) = joined.acc;
  if (d == 0) p.part_top[at] = joined.top, p.part_sum[at] = joined.sum;
}

DEVICE float4 divided(float4 v, float by) { return make_float4(v.x / by, v.y / by, v.z / by, v.w / by); }

} // namespace attention_decode

// Grid: rows, kv_heads x blocks of four query heads, parts; or rows in clusters of a block a kv_head, where one is WHOLE.
template <u32 DTYPE, u32 D, bool WHOLE> DEVICE void attention_decode_part(const AttentionParams &p) {
  using namespace attention_decode;
  constexpr u32 STAGES = WHOLE ? ATTENTION_WHOLE_STAGES : ATTENTION_DECODE_STAGES;
  extern __shared__ __align__(128) u8 attention_memory[];
  Ring<D, STAGES>(&rings)[WARPS] = *(Ring<D, STAGES>(*)[WARPS])attention_memory;
  __shared__ float tops[WARPS][HEADS], weights[WARPS][HEADS];
  __shared__ __align__(16) Queries<D> queries;
  __shared__ EmitCluster<WARPS> end;
  pdl_launch_dependents();
  if (WHOLE) end.init(p.emit);
  // Addresses and position are requested together.
  attention::Cache<DTYPE> cache(p, WHOLE ? blockIdx.x / cluster_size() : blockIdx.x);
  Part part(p, WHOLE);
  if (part.begin >= part.end) return;
  {
    Heads<DTYPE, D> heads;
    attend(p, part, Source<DTYPE, D>(cache, part), queries, rings[warp_id()], heads);
    heads.give(rings[warp_id()].sums, tops[warp_id()], weights[warp_id()]);
  }
  __syncthreads();
  // Four heads have four columns a thread.
  u32 i = threadIdx.x * 4, h = i / D, d = i % D;
  float *row = rings[0].sums.row;
  if (h < min(HEADS, part.head_end - part.head0)) {
    Joined joined(rings, tops, weights, h, d);
    if (WHOLE)
      *(float4 *)(row + i) = divided(joined.acc, joined.sum);
    else
      store(p, part, h, d, joined);
  }
  if (!WHOLE) return;
  __syncthreads();
  end.emit(row, p.emit);
}
