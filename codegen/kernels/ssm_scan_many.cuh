// Plan kernel `ssm_scan` for one token of each of several sequences, on Hopper and later: as ssm_scan, with the states
// brought in by the bulk copy engine.
//
// Bound by the states: 8B reads and writes 2 x 4 MB a layer and sequence in f32, 33 us for 16 sequences at the 4.05 TB/s that
// an H200 reaches where as much is written as read. In 16 bits it is half of that, and 280 instructions of a warp for four
// rows, 13 us at one a cycle, are nearly as much.
//
// - A piece is SCAN_MANY_ROWS rows of a head's state, which are consecutive bytes: one copy. A thread requests pieces
//   into a ring, from before the previous kernel of the stream has finished: only this kernel writes states. They stay in L2
//   until they are written: copies that leave it first take 1.3 us more.
// - A warp takes a piece, eight lanes a row as ssm_scan does, and stores it from registers. So B, C, decay and addresses
//   are for 16 rows, and other warps compute while one waits for them. Where every lane has whole float4s, nobody asks for the
//   end of a row.
// - Two blocks an SM take the pieces in turn, and leave registers for the norm behind them to be there when they end.
//
// Supports f32, f16 and bf16 states up to 32 J wide, in multiples of 4, of heads that are whole pieces.
#pragma once
#include "bulk.cuh"
#include "ssm_scan.cuh"

#if __CUDA_ARCH__ >= 900

namespace scan_many {

constexpr u32 ROWS = SCAN_MANY_ROWS;
constexpr int TURNS = ROWS / 4;
template <u32 DTYPE> constexpr u32 WIDTH = sizeof(typename Element<DTYPE>::Type);

// The pieces of a warp or of the thread that requests, in turn: every `step` from `first` on.
struct Pieces {
  u32 sequence, index; // of the piece within the sequence
  u32 sequences, rest, per_sequence;

  DEVICE Pieces(const SsmScanParams &p, u32 first, u32 step) {
    per_sequence = p.heads * (p.head_dim / ROWS);
    sequence = first / per_sequence, index = first % per_sequence;
    sequences = step / per_sequence, rest = step % per_sequence;
  }

  DEVICE void advance() {
    sequence += sequences, index += rest;
    if (index >= per_sequence) index -= per_sequence, sequence++;
  }
};

// What a lane has of a row in the ring.
template <u32 DTYPE, int J> DEVICE void load_row(const u8 *row, u32 n, float4 (&s)[J]) {
  if constexpr (DTYPE == DTYPE_F32) {
    scan::load_columns<J>((const float *)row, n, s);
  } else {
#pragma unroll
    for (int j = 0; j < J; j++) {
      u32 at = kept::column<8>(j);
      s[j] = kept::unpack4<DTYPE>(at < n ? *(const uint2 *)((const u16 *)row + at) : make_uint2(0, 0));
    }
  }
}

template <u32 DTYPE, u32 STAGES>
DEVICE void produce(const SsmScanParams &p, u8 *ring, u64 *full, u64 *empty) {
  u32 bytes = ROWS * p.state_size * WIDTH<DTYPE>;
  RingTurn<STAGES> turn;
  for (Pieces piece(p, blockIdx.x, gridDim.x); piece.sequence < p.sequences; piece.advance(), turn.advance()) {
    u64 from = p.batch.seq_base[piece.sequence] + p.state_offset + (u64)piece.index * bytes;
    barrier_wait(&empty[turn.slot], turn.parity ^ 1);
    barrier_arrive_expect(&full[turn.slot], bytes);
    copy_bulk(smem_address(ring + turn.slot * bytes), (const void *)from, bytes, &full[turn.slot]);
  }
  // What in_proj wrote is there when the next kernel starts.
  pdl_wait();
  pdl_launch_dependents();
}

template <int J, u32 DTYPE, u32 STAGES, u32 WARPS>
DEVICE void consume(const SsmScanParams &p, const u8 *ring, u64 *full, u64 *empty) {
  // A stage is always the same warp's: another could take the barrier's phase before last for the one it waits for.
  static_assert(STAGES % WARPS == 0, "a warp waits for its own stages");
  constexpr bool NARROW = DTYPE != DTYPE_F32;
  u32 row = lane_id() / 8 * TURNS, parts = p.head_dim / ROWS;
  RingTurn<STAGES> turn;
  turn.advance(warp_id());
  pdl_wait();
  for (Pieces piece(p, blockIdx.x + warp_id() * gridDim.x, WARPS * gridDim.x); piece.sequence < p.sequences;
       piece.advance(), turn.advance(WARPS)) {
    u32 head = piece.index / parts, first = piece.index * ROWS + row;
    scan::Token<J, TURNS> token;
    token.load(p, piece.sequence, head, first - head * p.head_dim);
    float a = -expf(p.a_log[head]), d = p.d[head];
    float dt = fminf(fmaxf(softplus(token.dt + p.dt_bias[head]), p.dt_min), p.dt_max);
    float decay = expf(dt * a);
    kept::State<NARROW> state(p, p.batch.seq_base[piece.sequence]);
    state.dtype = DTYPE;
    u32 key = !NARROW ? 0 : kept::step_key(p.state_seed, p.batch.seq_pos[piece.sequence] + 1);
    float *out = p.out + (u64)piece.sequence * p.heads * p.head_dim + first;
    barrier_wait(&full[turn.slot], turn.parity);
#pragma unroll
    for (int i = 0; i < TURNS; i++) {
      float4 s[J];
      load_row<DTYPE>(ring + (turn.slot * ROWS + row + i) * p.state_size * WIDTH<DTYPE>, p.state_size, s);
      float y = scan::update_row<J>(s, token.b, token.c, decay, dt * token.x[i]);
      kept::Noise<8, NARROW, J> noise(state, first + i, key);
      kept::store_row(state, first + i, true, s, noise, fabsf(y) < __uint_as_float(kept::INFINITE));
      if (lane_id() % 8 == 0) out[i] = fmaf(d, token.x[i], y);
    }
    barrier_arrive(&empty[turn.slot]);
  }
}

} // namespace scan_many

#endif

template <int J, u32 DTYPE, u32 STAGES, u32 WARPS> DEVICE void ssm_scan_many(const SsmScanParams &p) {
#if __CUDA_ARCH__ >= 900
  using namespace scan_many;
  extern __shared__ __align__(128) u8 ring[];
  __shared__ u64 full[STAGES], empty[STAGES];
  if (threadIdx.x == 0) {
    ring_init(full, empty, STAGES, 1, WARP); // every lane arrives: racecheck does not see that lanes met at __syncwarp
    barrier_init_fence();
  }
  __syncthreads();
  if (warp_id() == WARPS) {
    if (lane_id() == 0) produce<DTYPE, STAGES>(p, ring, full, empty);
    return;
  }
  SsmScanParams whole = p;
  whole.state_size = 32 * J;
  if (p.state_size == 32 * J)
    consume<J, DTYPE, STAGES, WARPS>(whole, ring, full, empty);
  else
    consume<J, DTYPE, STAGES, WARPS>(p, ring, full, empty);
#endif
}
