// Plan kernel `linear` for W8 and a few more rows than linear_stream takes, with the warpgroup instructions of sm_90a.
//
//   out[t, n] = epilogue(sum_k x[t, k] * w[n, k], scales)
//
// Bound by reading the weights.
//
// - A tile is 64 weight rows (the 64 rows of the instruction) by N tokens (its columns). A warpgroup computes it; one
//   more warp only requests tiles by tensor maps, which fill in zeros beyond rows and k.
// - 128 columns of k a stage, in a ring of STAGES.
// - A block takes every gridDim-th tile, and requests the next one while it stores: tiles of the same weight rows are
//   neighbours, so that weights come from device memory once.
//
// Not supported: W4 as it is stored (linear_expand makes W8 of it), and GPUs other than sm_90.
#pragma once
#include "epilogue.cuh"
#include "warpgroup.cuh"

#ifdef WARPGROUP_MMA

namespace warpgroup {

template <u32 N, u32 STAGES> struct Shared {
  static constexpr u32 ROWS = 64;
  static constexpr u32 STAGE_BYTES = (ROWS + N) * STAGE_K;
  u8 weights[STAGES][ROWS][STAGE_K];
  u8 x[STAGES][N][STAGE_K];
  u64 full[STAGES], empty[STAGES];
};

template <u32 N, u32 STAGES>
DEVICE void produce(const WarpgroupParams &p, Shared<N, STAGES> &shared, u32 token_tiles) {
  RingTurn<STAGES> turn;
  for (u32 index = blockIdx.x; index < p.linear.tiles * token_tiles; index += gridDim.x) {
    Place place(p.linear, index, token_tiles, 64, N);
    for (u32 k = 0; k < p.linear.k_padded; k += STAGE_K, turn.advance()) {
      u64 *full = &shared.full[turn.slot];
      barrier_wait(&shared.empty[turn.slot], turn.parity ^ 1);
      barrier_arrive_expect(full, Shared<N, STAGES>::STAGE_BYTES);
      copy_tile(smem_address(shared.weights[turn.slot]), &p.weights[place.segment], k, place.row0, full);
      copy_tile(smem_address(shared.x[turn.slot]), &p.x, k, place.token0, full);
    }
  }
}

template <u32 N> DEVICE void store(const LinearParams &p, const LinearSegment &s, u32 row, u32 token0, const int (&acc)[N / 2]) {
  float scale[2];
#pragma unroll
  for (u32 half = 0; half < 2; half++) scale[half] = row + half * 8 < s.out_features ? s.scale[row + half * 8] : 0.0f;
#pragma unroll
  for (u32 j = 0; j < N / 8; j++)
#pragma unroll
    for (u32 c = 0; c < 2; c++) {
      u32 token = token0 + j * 8 + lane_id() % 4 * 2 + c;
      if (token >= p.rows) continue;
      float x_scale = p.x_scale[token];
#pragma unroll
      for (u32 half = 0; half < 2; half++)
        if (row + half * 8 < s.out_features) store_integer(s, token, row + half * 8, acc[j * 4 + half * 2 + c], x_scale, scale[half]);
    }
}

template <u32 N, u32 STAGES, bool X_UNSIGNED>
DEVICE void consume(const WarpgroupParams &p, Shared<N, STAGES> &shared, u32 token_tiles) {
  u32 steps = ceil_div(p.linear.k_padded, STAGE_K);
  RingTurn<STAGES> turn;
  for (u32 index = blockIdx.x; index < p.linear.tiles * token_tiles; index += gridDim.x) {
    Place place(p.linear, index, token_tiles, 64, N);
    int acc[N / 2];
#pragma unroll
    for (u32 i = 0; i < N / 2; i++) acc[i] = 0;
    u32 last = turn.slot;
    for (u32 step = 0; step < steps; step++) {
      barrier_wait(&shared.full[turn.slot], turn.parity);
      u32 a = matrix(smem_address(shared.weights[turn.slot])), b = matrix(smem_address(shared.x[turn.slot]));
      fence();
#pragma unroll
      for (u32 i = 0; i < STAGE_K / 32; i++) Multiply<N, X_UNSIGNED>::run(acc, a + i * 2, b + i * 2);
      commit();
      // The stage before this one has been read when at most this one's instructions are pending.
      wait<1>();
      if (step > 0 && lane_id() == 0) barrier_arrive(&shared.empty[last]);
      last = turn.slot;
      turn.advance();
    }
    wait<0>();
    if (lane_id() == 0) barrier_arrive(&shared.empty[last]);
    u32 row = place.row0 + warp_id() * 16 + lane_id() / 4;
    store<N>(p.linear, p.linear.segments[place.segment], row, place.token0, acc);
  }
}

} // namespace warpgroup

#endif

template <u32 N, u32 STAGES, bool X_UNSIGNED> DEVICE void linear_warpgroup(const WarpgroupParams &p) {
#ifdef WARPGROUP_MMA
  using namespace warpgroup;
  extern __shared__ __align__(1024) u8 dynamic[];
  Shared<N, STAGES> &shared = *(Shared<N, STAGES> *)dynamic;
  u32 token_tiles = ceil_div(p.linear.rows, N);
  pdl_launch_dependents();
  if (threadIdx.x == 0) {
    ring_init(shared.full, shared.empty, STAGES, 1, 4);
    barrier_init_fence();
  }
  __syncthreads();
  pdl_wait();
  if (warp_id() < 4)
    consume<N, STAGES, X_UNSIGNED>(p, shared, token_tiles);
  else if (lane_id() == 0)
    produce<N, STAGES>(p, shared, token_tiles);
#endif
}
