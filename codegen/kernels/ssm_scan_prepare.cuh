// The first of two kernels of `ssm_scan` in chunks: what heads share, and what does not depend on a state.
//
// Bound by memory: of 2048 tokens of 8B it reads 18 MB and writes 26, most of which stays in L2: 10 us at 4.5 TB/s.
//
// - A block has L tokens of a sequence and a group. B and C become f16 halves once, not once a head; their products are made
//   on tensor cores, of those pieces that are not all behind the token.
// - The decays of a chunk are added in f64: their differences are small where the sums are not.
//
// Grid: groups, chunks, sequences.
#pragma once
#include "scan_chunk.cuh"

namespace scan_prepare {

using namespace scan_chunk;

template <u32 L> struct Shared {
  Row rows[L];
  float down[2][L]; // inverse scales of B and C
};

struct Chunk {
  u32 group, begin, count;
};

template <u32 L> DEVICE void split_rows(const SsmScanParams &p, const Prepared &prepared, const Chunk &chunk, Shared<L> &shared) {
  u32 inner = p.heads * p.head_dim, width = inner + 2 * p.groups * p.state_size, column = lane_id() * 4;
#pragma unroll 8
  for (u32 i = 0; i < 2 * L / WARPS; i++) {
    u32 t = i / 2 * WARPS + warp_id(), which = i % 2;
    const float *from = p.xbc + (u64)(chunk.begin + t) * width + inner + (which * p.groups + chunk.group) * p.state_size;
    bool there = t < chunk.count && column < p.state_size;
    float4 v = there ? *(const float4 *)(from + column) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    Scale scale = scale_of(warp_max(largest(v)));
    uint2 high, low;
    split(v.x * scale.up, v.y * scale.up, high.x, low.x);
    split(v.z * scale.up, v.w * scale.up, high.y, low.y);
    u32 at = which * 2 * PART_BYTES + piece_bytes(t, column / 8) + column % 8 * 2;
    u8 *here = (u8 *)&shared.rows[t] + at;
    *(uint2 *)here = high;
    *(uint2 *)(here + PART_BYTES) = low;
    if (lane_id() == 0) shared.down[which][t] = scale.down;
    if (t >= chunk.count) continue;
    u8 *to = prepared.split(chunk.group, chunk.begin + t) + at;
    *(uint2 *)to = high;
    *(uint2 *)(to + PART_BYTES) = low;
  }
}

// A lane has consecutive tokens of a head.
template <u32 L>
DEVICE void weigh_tokens(const SsmScanParams &p, const Prepared &prepared, const Chunk &chunk, const Shared<L> &shared, u32 head) {
  constexpr u32 EACH = L / WARP;
  float a = -expf(p.a_log[head]), bias = p.dt_bias[head], dt[EACH];
  double own[EACH], sum = 0.0;
#pragma unroll
  for (u32 i = 0; i < EACH; i++) {
    u32 t = lane_id() * EACH + i;
    float raw = t < chunk.count ? p.dt[(u64)(chunk.begin + t) * p.heads + head] : 0.0f;
    dt[i] = t < chunk.count ? fminf(fmaxf(softplus(raw + bias), p.dt_min), p.dt_max) : 0.0f;
    sum += (double)__fmul_rn(dt[i], a);
    own[i] = sum;
  }
#pragma unroll
  for (u32 o = 1; o < WARP; o *= 2) {
    double other = __shfl_up_sync(FULL_MASK, sum, o);
    if (lane_id() >= o) sum += other;
  }
  double total = __shfl_sync(FULL_MASK, sum, WARP - 1), before = __shfl_up_sync(FULL_MASK, sum, 1);
  if (lane_id() == 0) before = 0.0;
#pragma unroll
  for (u32 i = 0; i < EACH; i++) {
    u32 t = lane_id() * EACH + i;
    double since = (before + own[i]) * 1.4426950408889634, until = total * 1.4426950408889634 - since;
    float whole = (float)since;
    float rest = (float)(since - (double)whole);
    if (t >= chunk.count) continue;
    *prepared.factors(head, chunk.begin + t) = make_float4(whole, rest, dt[i], 0.0f);
    *prepared.kept(head, chunk.begin + t) = power_of_two(whole) * shared.down[1][t];
    *prepared.at_end(head, chunk.begin + t) = dt[i] * power_of_two((float)until) * shared.down[0][t];
  }
}

// A warp has 16 tokens, times a part of those that they may see.
template <u32 L> DEVICE void multiply_rows(const Prepared &prepared, const Chunk &chunk, Shared<L> &shared) {
  constexpr u32 SHARE = WARPS / (L / 16), TILES = L / 8 / SHARE;
  u32 t0 = warp_id() / SHARE * 16, s0 = warp_id() % SHARE * TILES * 8;
  if (s0 > t0 + 15) return;
  u32 rows = smem_address(shared.rows);
  float acc[TILES][4];
#pragma unroll
  for (u32 j = 0; j < TILES; j++) clear(acc[j]);
#pragma unroll
  for (u32 k = 0; k < COLUMNS / 16; k++) {
    Fragment c;
    u32 from = rows + (t0 + lane_id() % 16) * ROW_BYTES + OF_C * PART_BYTES + piece_bytes(lane_id(), k * 2 + lane_id() / 16);
    load_matrices(c.high, from);
    load_matrices(c.low, from + PART_BYTES);
#pragma unroll
    for (u32 j = 0; j < TILES; j++) {
      u32 b[4];
      load_matrices(b, rows + (s0 + j * 8) * ROW_BYTES + operand_bytes(OF_B, k * 2));
      multiply(acc[j], c, b);
    }
  }
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    u32 t = t0 + i * 8 + lane_id() / 4;
    if (t >= chunk.count) continue;
    float *to = prepared.products(chunk.group, chunk.begin + t);
    float down = shared.down[1][t];
#pragma unroll
    for (u32 j = 0; j < TILES; j++) {
      u32 s = s0 + j * 8 + lane_id() % 4 * 2;
      *(float2 *)(to + s) =
          make_float2(acc[j][i * 2] * down * shared.down[0][s], acc[j][i * 2 + 1] * down * shared.down[0][s + 1]);
    }
  }
}

} // namespace scan_prepare

template <u32 L> DEVICE void ssm_scan_prepare(const SsmScanParams &p) {
  using namespace scan_prepare;
  extern __shared__ __align__(128) u8 prepare_memory[];
  Shared<L> &shared = *(Shared<L> *)prepare_memory;
  pdl_launch_dependents();
  pdl_wait();
  u32 end = p.batch.seq_start[blockIdx.z + 1], begin = p.batch.seq_start[blockIdx.z] + blockIdx.y * L;
  if (begin >= end) return;
  Chunk chunk = {blockIdx.x, begin, min(end - begin, L)};
  Prepared prepared(p, L);
  split_rows<L>(p, prepared, chunk, shared);
  __syncthreads();
  u32 share = p.heads / p.groups;
  for (u32 i = warp_id(); i < share; i += WARPS) weigh_tokens<L>(p, prepared, chunk, shared, chunk.group * share + i);
  multiply_rows<L>(prepared, chunk, shared);
}
