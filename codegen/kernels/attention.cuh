// Plan kernel `attention`, in three steps: append to the cache, attend over a part of the context, combine and emit. The second
// is of any cache; attention_decode.cuh does it faster for those that it supports. For many tokens attention_tile.cuh and
// attention_warpgroup.cuh take the whole context, and a map emits what they make.
//
// Bound in decode by the cache: 16 KiB a token of 8B in bf16 over 4 layers, 0.47 ms at 128K tokens and 4.55 TB/s.
//
// - A block takes one token row, the HEADS query heads that share keys, and one part of the context: parts make a long
//   context of one sequence fill the GPU.
// - head_dim / 8 lanes (rounded up to a power of two) share a key: 16-byte loads, consecutive over the lanes. Four keys
//   and their values are in flight a lane.
// - Every such group of lanes keeps its own running maximum and sum; they meet once, at the end, in shared memory.
//
// Supports head_dim up to 256 in multiples of 8.
#pragma once
#include "emit.cuh"

namespace attention {

constexpr u32 THREADS = 128;
constexpr int UNROLL = 4;
constexpr float NEGATIVE = -1e30f;
// Least keys of a part: those of a short context are not worth a block each.
constexpr u32 PART_KEYS = 64;

// Keys of every part but the last: the same for the kernels that make parts and for the one that combines them.
DEVICE u32 part_keys(u32 length, u32 parts) {
  return max(ceil_div(ceil_div(length, parts), 16) * 16, PART_KEYS);
}

DEVICE u32 lanes_per_key(u32 head_dim) {
  u32 lanes = 1;
  while (lanes * 8 < head_dim) lanes *= 2;
  return lanes;
}

// Keys at the start of the sequence's cache, then in i8 their scales, after the room for all keys; then values in the same
// way. Elements of a token are consecutive.
template <u32 DTYPE> struct Cache {
  static constexpr bool SCALED = DTYPE == DTYPE_I8;
  typedef typename Element<DTYPE>::Type Type;
  Type *keys, *values;
  float *key_scales, *value_scales;
  u32 stride, heads;
  DEVICE Cache(const AttentionParams &p, u32 sequence) {
    stride = p.kv_heads * p.head_dim, heads = p.kv_heads;
    u64 capacity = p.batch.seq_capacity[sequence];
    keys = (Type *)(p.batch.seq_cache[sequence] + p.cache_offset * capacity);
    key_scales = (float *)(keys + capacity * stride);
    values = SCALED ? (Type *)(key_scales + capacity * heads) : keys + capacity * stride;
    value_scales = (float *)(values + capacity * stride);
  }
};

// A head of a token by a warp: to the nearest of 255 steps of its largest value.
DEVICE void append_head(const float *from, i8 *to, float *scale, u32 n) {
  float peak = 0.0f;
  for (u32 i = lane_id(); i < n; i += WARP) peak = fmaxf(peak, fabsf(from[i]));
  peak = warp_max(peak);
  Quantizer quantizer(peak);
  for (u32 i = lane_id(); i < n; i += WARP) to[i] = (i8)quantizer.round(from[i]);
  if (lane_id() == 0) *scale = quantizer.scale();
}

// Four elements.
template <u32 DTYPE> DEVICE void store4(typename Element<DTYPE>::Type *to, float4 v) {
  typedef Element<DTYPE> E;
  if constexpr (DTYPE == DTYPE_F32)
    *(float4 *)to = v;
  else
    *(uint2 *)to = make_uint2(E::from_f32(v.x) | (u32)E::from_f32(v.y) << 16, E::from_f32(v.z) | (u32)E::from_f32(v.w) << 16);
}

template <u32 DTYPE> DEVICE void append_row(const AttentionParams &p, u32 row, u32 sequence, u32 position, u32 first, u32 count) {
  Cache<DTYPE> cache(p, sequence);
  if constexpr (Cache<DTYPE>::SCALED) {
    u32 head0 = first / p.head_dim, heads = count / p.head_dim;
    for (u32 i = warp_id(); i < 2 * heads; i += blockDim.x / WARP) {
      u32 head = head0 + i / 2;
      u64 from = ((u64)row * cache.heads + head) * p.head_dim, to = (u64)position * cache.heads + head;
      if (i % 2)
        append_head(p.v + from, cache.values + to * p.head_dim, cache.value_scales + to, p.head_dim);
      else
        append_head(p.k + from, cache.keys + to * p.head_dim, cache.key_scales + to, p.head_dim);
    }
  } else {
    for (u32 i = first + threadIdx.x * 4; i < first + count; i += blockDim.x * 4) {
      u64 from = (u64)row * cache.stride + i, to = (u64)position * cache.stride + i;
      float4 key = *(const float4 *)(p.k + from), value = *(const float4 *)(p.v + from);
      store4<DTYPE>(cache.keys + to, key);
      store4<DTYPE>(cache.values + to, value);
    }
  }
}

// Softmax over keys seen so far, for HEADS heads and the 8 columns of this lane.
template <int HEADS> struct Running {
  float top[HEADS], sum[HEADS], acc[HEADS][8];

  DEVICE Running() {
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      top[h] = NEGATIVE, sum[h] = 0.0f;
#pragma unroll
      for (int i = 0; i < 8; i++) acc[h][i] = 0.0f;
    }
  }

  // Scores are in units of log2. Keys that are not there score below NEGATIVE and weigh nothing.
  DEVICE void take(const float (&score)[UNROLL][HEADS], const float (&v)[UNROLL][8]) {
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      float highest = top[h];
#pragma unroll
      for (int u = 0; u < UNROLL; u++) highest = fmaxf(highest, score[u][h]);
      float keep = exp2f(top[h] - highest);
      top[h] = highest;
      sum[h] *= keep;
#pragma unroll
      for (int i = 0; i < 8; i++) acc[h][i] *= keep;
#pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        float weight = score[u][h] <= NEGATIVE ? 0.0f : exp2f(score[u][h] - highest);
        sum[h] += weight;
#pragma unroll
        for (int i = 0; i < 8; i++) acc[h][i] = fmaf(weight, v[u][i], acc[h][i]);
      }
    }
  }
};

template <u32 DTYPE, int HEADS> struct Attend {
  float q[HEADS][8];
  u32 column, lanes;
  bool active;

  DEVICE Attend(const AttentionParams &p, u32 row, u32 head0, u32 head_end) {
    lanes = lanes_per_key(p.head_dim);
    column = threadIdx.x % lanes * 8;
    active = column < p.head_dim;
    // exp(x) = exp2(x log2 e): the factor goes into the query once.
    float scale = p.scale * 1.4426950408889634f;
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      bool there = active && head0 + h < head_end;
      if (there) load8<DTYPE_F32>(p.q, ((u64)row * p.heads + head0 + h) * p.head_dim + column, q[h]);
#pragma unroll
      for (int i = 0; i < 8; i++) q[h][i] = there ? q[h][i] * scale : 0.0f;
    }
  }

  DEVICE void keys(const AttentionParams &p, const Cache<DTYPE> &cache, u32 kv_head, u32 begin, u32 end,
                   Running<HEADS> &running) const {
    u32 groups = THREADS / lanes, group = threadIdx.x / lanes;
    u64 offset = kv_head * p.head_dim + column;
    for (u32 first = begin; first < end; first += groups * UNROLL) {
      float k[UNROLL][8], v[UNROLL][8], score[UNROLL][HEADS], key_scale[UNROLL], value_scale[UNROLL];
#pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        u32 key = first + u * groups + group;
        bool there = active && key < end;
        u64 at = (u64)key * cache.stride + offset;
        if (there) load8<DTYPE>(cache.keys, at, k[u]);
        if (there) load8<DTYPE>(cache.values, at, v[u]);
        if constexpr (Cache<DTYPE>::SCALED) {
          u64 scale = (u64)key * cache.heads + kv_head;
          key_scale[u] = there ? cache.key_scales[scale] : 0.0f;
          value_scale[u] = there ? cache.value_scales[scale] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < 8; i++) k[u][i] = there ? k[u][i] : 0.0f, v[u][i] = there ? v[u][i] : 0.0f;
      }
#pragma unroll
      for (int u = 0; u < UNROLL; u++)
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
          float dot = 0.0f;
#pragma unroll
          for (int i = 0; i < 8; i++) dot = fmaf(q[h][i], k[u][i], dot);
          if constexpr (Cache<DTYPE>::SCALED) dot *= key_scale[u];
          score[u][h] = dot;
        }
      // The number of rounds is not known to the compiler: all products take each together, or they would wait one by one.
      for (u32 o = lanes / 2; o; o >>= 1)
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
#pragma unroll
          for (int h = 0; h < HEADS; h++) score[u][h] += __shfl_xor_sync(FULL_MASK, score[u][h], o);
#pragma unroll
      for (int u = 0; u < UNROLL; u++)
        if (first + u * groups + group >= end)
#pragma unroll
          for (int h = 0; h < HEADS; h++) score[u][h] = 2.0f * NEGATIVE;
      if constexpr (Cache<DTYPE>::SCALED)
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
#pragma unroll
          for (int i = 0; i < 8; i++) v[u][i] *= value_scale[u];
      running.take(score, v);
    }
  }
};

template <int HEADS> struct Meeting {
  float top[THREADS][HEADS], sum[THREADS][HEADS];
  float acc[HEADS][THREADS * 8];
};

// Joins the groups of lanes and stores the part's unnormalized sum with its maximum and weight.
template <int HEADS>
DEVICE void join(const AttentionParams &p, u32 lanes, u32 column, const Running<HEADS> &running, Meeting<HEADS> &meeting,
                 u32 row, u32 head0, u32 head_end) {
  u32 groups = THREADS / lanes, group = threadIdx.x / lanes, width = lanes * 8;
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    if (threadIdx.x % lanes == 0) meeting.top[group][h] = running.top[h], meeting.sum[group][h] = running.sum[h];
#pragma unroll
    for (int i = 0; i < 8; i++) meeting.acc[h][group * width + column + i] = running.acc[h][i];
  }
  __syncthreads();
  for (u32 i = threadIdx.x; i < HEADS * p.head_dim; i += THREADS) {
    u32 h = i / p.head_dim, d = i % p.head_dim;
    if (head0 + h >= head_end) break;
    float top = NEGATIVE, sum = 0.0f, acc = 0.0f;
    for (u32 g = 0; g < groups; g++) top = fmaxf(top, meeting.top[g][h]);
    for (u32 g = 0; g < groups; g++) {
      float weight = exp2f(meeting.top[g][h] - top);
      sum += weight * meeting.sum[g][h];
      acc = fmaf(weight, meeting.acc[h][g * width + d], acc);
    }
    u64 part = ((u64)row * p.heads + head0 + h) * p.parts + blockIdx.z;
    p.part_acc[part * p.head_dim + d] = acc;
    if (d == 0) p.part_top[part] = top, p.part_sum[part] = sum;
  }
}

} // namespace attention

// Keys and values of every row of the step, ahead of rows that look at each other. One block a row.
template <u32 DTYPE> DEVICE void attention_append(const AttentionParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  u32 row = blockIdx.x, sequence = p.batch.row_seq[row];
  u32 position = p.batch.seq_pos[sequence] + row - p.batch.seq_start[sequence];
  attention::append_row<DTYPE>(p, row, sequence, position, 0, p.kv_heads * p.head_dim);
}

// Grid: rows, kv_heads x blocks of HEADS query heads, parts.
template <u32 DTYPE, int HEADS> DEVICE void attention_part(const AttentionParams &p) {
  using namespace attention;
  __shared__ Meeting<HEADS> meeting;
  pdl_launch_dependents();
  pdl_wait();
  u32 row = blockIdx.x, sequence = p.batch.row_seq[row];
  u32 position = p.batch.seq_pos[sequence] + row - p.batch.seq_start[sequence];
  u32 per_kv = p.heads / p.kv_heads, blocks = ceil_div(per_kv, HEADS);
  u32 kv_head = blockIdx.y / blocks, head0 = kv_head * per_kv + blockIdx.y % blocks * HEADS;
  u32 length = position + 1, part = part_keys(length, p.parts);
  u32 begin = min(blockIdx.z * part, length), end = min(begin + part, length);
  // A short context has fewer parts, which attention_combine knows.
  if (begin == end) return;
  if (p.append && begin <= position && position < end) {
    append_row<DTYPE>(p, row, sequence, position, kv_head * p.head_dim, p.head_dim);
    __syncthreads();
  }
  Cache<DTYPE> cache(p, sequence);
  Attend<DTYPE, HEADS> attend(p, row, head0, (kv_head + 1) * per_kv);
  Running<HEADS> running;
  attend.keys(p, cache, kv_head, begin, end, running);
  join(p, attend.lanes, attend.column, running, meeting, row, head0, (kv_head + 1) * per_kv);
}

namespace attention {

// Shares of the parts of `heads` heads from `first` on in their sums, a warp a head.
DEVICE void weigh_parts(const AttentionParams &p, u32 row, u32 first, u32 heads, u32 parts, float *weights) {
  for (u32 h = warp_id(); h < heads; h += blockDim.x / WARP) {
    u64 part0 = ((u64)row * p.heads + first + h) * p.parts;
    float top[ATTENTION_MAX_PARTS / WARP], sum[ATTENTION_MAX_PARTS / WARP], peak = NEGATIVE, total = 0.0f;
#pragma unroll
    for (u32 i = 0; i < ATTENTION_MAX_PARTS / WARP; i++) {
      u32 s = i * WARP + lane_id();
      top[i] = s < parts ? p.part_top[part0 + s] : 2.0f * NEGATIVE, sum[i] = s < parts ? p.part_sum[part0 + s] : 0.0f;
    }
#pragma unroll
    for (u32 i = 0; i < ATTENTION_MAX_PARTS / WARP; i++) peak = fmaxf(peak, top[i]);
    peak = warp_max(peak);
#pragma unroll
    for (u32 i = 0; i < ATTENTION_MAX_PARTS / WARP; i++) top[i] = exp2f(top[i] - peak), total = fmaf(top[i], sum[i], total);
    total = 1.0f / warp_sum(total);
#pragma unroll
    for (u32 i = 0; i < ATTENTION_MAX_PARTS / WARP; i++)
      if (i * WARP + lane_id() < parts) weights[h * p.parts + i * WARP + lane_id()] = top[i] * total;
  }
}

} // namespace attention

// A row: the parts of every head to one vector, then emit. Shared memory: the block's columns, and weights of the parts of
// every head that it has columns of.
DEVICE void attention_combine(const AttentionParams &p) {
  constexpr u32 BATCH = 16;
  extern __shared__ __align__(16) float combined[];
  __shared__ float scratch[WARP];
  RowPart part(p.emit.n);
  pdl_launch_dependents();
  u32 sequence = p.batch.row_seq[part.row];
  u32 length = p.batch.seq_pos[sequence] + part.row - p.batch.seq_start[sequence] + 1;
  u32 parts = ceil_div(length, attention::part_keys(length, p.parts));
  u32 first = part.begin / p.head_dim, last = (part.begin + part.n - 1) / p.head_dim;
  float *weights = combined + part.n;
  pdl_wait();
  attention::weigh_parts(p, part.row, first, last - first + 1, parts, weights);
  __syncthreads();
  for (u32 i = threadIdx.x; i < part.n; i += blockDim.x) {
    u32 head = (part.begin + i) / p.head_dim, column = (part.begin + i) % p.head_dim;
    const float *from = p.part_acc + ((u64)part.row * p.heads + head) * p.parts * p.head_dim + column;
    const float *weight = weights + (head - first) * p.parts;
    float acc = 0.0f;
    for (u32 s0 = 0; s0 < parts; s0 += BATCH) {
      float values[BATCH];
#pragma unroll
      for (u32 j = 0; j < BATCH; j++) values[j] = s0 + j < parts ? from[(u64)(s0 + j) * p.head_dim] : 0.0f;
#pragma unroll
      for (u32 j = 0; j < BATCH; j++)
        if (s0 + j < parts) acc = fmaf(weight[s0 + j], values[j], acc);
    }
    combined[i] = acc;
  }
  __syncthreads();
  emit_row(combined, part, p.emit, scratch);
}
