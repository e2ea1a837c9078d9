// Plan kernel `ssm_scan` for one token of each of several sequences, on Hopper and later: as ssm_scan, with the states
// brought in by the bulk copy engine.
//
// Bound by the states: 8B reads and writes 2 x 4 MB a layer and sequence, 30 us for 16 sequences at an H200's 4.47 TB/s.
//
// - A piece is SCAN_MANY_ROWS rows of a head's state, which are consecutive bytes: one copy. A thread requests pieces
//   into a ring, from before the previous kernel of the stream has finished: only this kernel writes states.
// - Eight warps take four rows each, as ssm_scan does, and store them from registers.
// - B, C, x and dt of the next piece are requested before the current one is computed.
// - Two blocks an SM take the pieces in turn.
//
// Supports f32 states 4 J to 32 J wide, in multiples of 4, of heads that are whole pieces.
#pragma once
#include "bulk.cuh"
#include "ssm_scan.cuh"

#if __CUDA_ARCH__ >= 900

namespace scan_many {

constexpr u32 STAGES = SCAN_MANY_STAGES;
constexpr u32 ROWS = SCAN_MANY_ROWS;
constexpr u32 WARPS = ROWS / 4;

// Where a piece is.
struct Piece {
  u32 sequence, head, row0;
  DEVICE Piece(const SsmScanParams &p, u32 index) {
    u32 parts = p.head_dim / ROWS;
    row0 = index % parts * ROWS;
    head = index / parts % p.heads, sequence = index / parts / p.heads;
  }
};

DEVICE void produce(const SsmScanParams &p, u32 pieces, u8 *ring, u64 *full, u64 *empty) {
  u64 policy = evict_first_policy();
  u32 bytes = ROWS * p.state_size * 4;
  RingTurn<STAGES> turn;
  for (u32 index = blockIdx.x; index < pieces; index += gridDim.x, turn.advance()) {
    Piece piece(p, index);
    const float *from = (const float *)(p.batch.seq_base[piece.sequence] + p.state_offset);
    barrier_wait(&empty[turn.slot], turn.parity ^ 1);
    barrier_arrive_expect(&full[turn.slot], bytes);
    copy_bulk(smem_address(ring + turn.slot * bytes), from + (u64)(piece.head * p.head_dim + piece.row0) * p.state_size, bytes,
              &full[turn.slot], policy);
  }
  pdl_launch_dependents();
}

// What a warp needs of a piece besides the state.
template <int J> struct Inputs {
  scan::Token<J, 1> token;
  float a_log, bias;
  DEVICE void load(const SsmScanParams &p, u32 index) {
    Piece piece(p, index);
    token.load(p, p.batch.seq_start[piece.sequence], piece.head, piece.row0 + threadIdx.x / 8);
    a_log = p.a_log[piece.head], bias = p.dt_bias[piece.head];
  }
};

template <int J> DEVICE void consume(const SsmScanParams &p, u32 pieces, const u8 *ring, u64 *full, u64 *empty) {
  u32 row = threadIdx.x / 8, lane = lane_id() % 8;
  RingTurn<STAGES> turn;
  pdl_wait();
  Inputs<J> here, next;
  if (blockIdx.x < pieces) here.load(p, blockIdx.x);
  for (u32 index = blockIdx.x; index < pieces; index += gridDim.x, turn.advance()) {
    next.load(p, min(index + gridDim.x, pieces - 1));
    Piece piece(p, index);
    float dt = fminf(fmaxf(softplus(here.token.dt + here.bias), p.dt_min), p.dt_max);
    float decay = expf(dt * -expf(here.a_log));
    const float *from = (const float *)ring + (turn.slot * ROWS + row) * p.state_size;
    float4 s[J];
    float d = p.d[piece.head];
    barrier_wait(&full[turn.slot], turn.parity);
#pragma unroll
    for (int j = 0; j < J; j++) {
      u32 at = (j * 8 + lane) * 4;
      s[j] = at < p.state_size ? *(const float4 *)(from + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    __syncwarp();
    if (lane_id() == 0) barrier_arrive(&empty[turn.slot]);
    float y = scan::update_row<J>(s, here.token.b, here.token.c, decay, dt * here.token.x[0]);
    u32 of_head = piece.head * p.head_dim + piece.row0 + row;
    kept::State<false> state(p, p.batch.seq_base[piece.sequence]);
    kept::store_row<8>(state, of_head, true, s, 0);
    u32 t = p.batch.seq_start[piece.sequence];
    if (lane == 0) p.out[(u64)t * p.heads * p.head_dim + of_head] = fmaf(d, here.token.x[0], y);
    here = next;
  }
}

} // namespace scan_many

#endif

template <int J> DEVICE void ssm_scan_many(const SsmScanParams &p) {
#if __CUDA_ARCH__ >= 900
  using namespace scan_many;
  extern __shared__ __align__(128) u8 ring[];
  __shared__ u64 full[STAGES], empty[STAGES];
  u32 pieces = p.sequences * p.heads * (p.head_dim / ROWS);
  if (threadIdx.x == 0) {
    ring_init(full, empty, STAGES, 1, WARPS);
    barrier_init_fence();
  }
  __syncthreads();
  if (warp_id() < WARPS)
    consume<J>(p, pieces, ring, full, empty);
  else if (lane_id() == 0)
    produce(p, pieces, ring, full, empty);
#endif
}
