// Plan kernel `ssm_scan` for one token of each of several sequences, on Hopper and later: as ssm_scan, with the states
// brought in by the bulk copy engine.
//
// Bound by the states: 8B reads and writes 2 x 4 MB a layer and sequence, 33 us for 16 sequences at the 4.05 TB/s that an H200
// reaches where as much is written as read.
//
// - A piece is SCAN_MANY_ROWS rows of a head's state, which are consecutive bytes: one copy. A thread requests pieces
//   into a ring, from before the previous kernel of the stream has finished: only this kernel writes states. They stay in L2
//   until they are written: copies that leave it first take 1.3 us more.
// - A warp takes a piece, eight lanes a row as ssm_scan does, and stores it from registers. So B, C, decay and addresses
//   are for 16 rows, and other warps compute while one waits for them.
// - Two blocks an SM take the pieces in turn, and leave registers for the norm behind them to be there when they end.
//
// Supports f32 states 4 J to 32 J wide, in multiples of 4, of heads that are whole pieces.
#pragma once
#include "bulk.cuh"
#include "ssm_scan.cuh"

#if __CUDA_ARCH__ >= 900

namespace scan_many {

constexpr u32 STAGES = SCAN_MANY_STAGES;
constexpr u32 ROWS = SCAN_MANY_ROWS;
constexpr u32 WARPS = SCAN_MANY_WARPS;
constexpr int TURNS = ROWS / 4;
// A stage is always the same warp's: another could take the barrier's phase before last for the one it waits for.
static_assert(STAGES % WARPS == 0, "a warp waits for its own stages");

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
  u32 bytes = ROWS * p.state_size * 4;
  RingTurn<STAGES> turn;
  for (u32 index = blockIdx.x; index < pieces; index += gridDim.x, turn.advance()) {
    Piece piece(p, index);
    const float *from = (const float *)(p.batch.seq_base[piece.sequence] + p.state_offset);
    barrier_wait(&empty[turn.slot], turn.parity ^ 1);
    barrier_arrive_expect(&full[turn.slot], bytes);
    copy_bulk(smem_address(ring + turn.slot * bytes), from + (u64)(piece.head * p.head_dim + piece.row0) * p.state_size, bytes,
              &full[turn.slot]);
  }
  // What in_proj wrote is there when the next kernel starts.
  pdl_wait();
  pdl_launch_dependents();
}

template <int J> DEVICE void consume(const SsmScanParams &p, u32 pieces, const u8 *ring, u64 *full, u64 *empty) {
  u32 row = lane_id() / 8 * TURNS, lane = lane_id() % 8;
  RingTurn<STAGES> turn;
  turn.advance(warp_id());
  pdl_wait();
  for (u32 index = blockIdx.x + warp_id() * gridDim.x; index < pieces; index += WARPS * gridDim.x, turn.advance(WARPS)) {
    Piece piece(p, index);
    u32 of_head = piece.head * p.head_dim + piece.row0 + row;
    scan::Token<J, TURNS> token;
    token.load(p, piece.sequence, piece.head, piece.row0 + row);
    float a = -expf(p.a_log[piece.head]), d = p.d[piece.head];
    float dt = fminf(fmaxf(softplus(token.dt + p.dt_bias[piece.head]), p.dt_min), p.dt_max);
    float decay = expf(dt * a);
    kept::State<false> state(p, p.batch.seq_base[piece.sequence]);
    float *out = p.out + (u64)piece.sequence * p.heads * p.head_dim + of_head;
    barrier_wait(&full[turn.slot], turn.parity);
#pragma unroll
    for (int i = 0; i < TURNS; i++) {
      float4 s[J];
      scan::load_columns<J>((const float *)ring + (turn.slot * ROWS + row + i) * p.state_size, p.state_size, s);
      float y = scan::update_row<J>(s, token.b, token.c, decay, dt * token.x[i]);
      kept::store_row<8>(state, of_head + i, true, s, 0);
      if (lane == 0) out[i] = fmaf(d, token.x[i], y);
    }
    __syncwarp();
    if (lane_id() == 0) barrier_arrive(&empty[turn.slot]);
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
    ring_init(full, empty, STAGES, 1, 1);
    barrier_init_fence();
  }
  __syncthreads();
  if (warp_id() == WARPS) {
    if (lane_id() == 0) produce(p, pieces, ring, full, empty);
    return;
  }
  consume<J>(p, pieces, ring, full, empty);
#endif
}
