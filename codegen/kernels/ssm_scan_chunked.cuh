// Plan kernel `ssm_scan` for many tokens: the recurrence in chunks of L tokens, on tensor cores (Dao and Gu 2024, Transformers are
// SSMs, section 6). Within a chunk, with what is left of the state since it began, `kept`, and G = C B^T of ssm_scan_prepare:
//
//   y_t = kept_t h C_t + sum over s <= t of (kept_t / kept_s) dt_s G_ts x_s + D x_t
//   h'  = kept_L h + sum over s of (kept_L / kept_s) dt_s x_s B_s^T
//
// Bound by tensor cores and shared memory: 2048 tokens of 8B are 15 GFLOP a layer in three products of f16 each, 0.07 ms at 600
// TFLOPS, and 3700 cycles of shared memory a chunk, 0.07 ms.
//
// - A block has 64 rows of a head's state and takes the chunks in turn; B, C, x and decays of the next one are copied meanwhile.
// - A warp has 16 rows and half of the columns of the state, in registers. Accumulators are what the next product takes as its
//   first operand, so the state never leaves them. Its halves meet in shared memory: a warp ends every other piece of 8 tokens.
// - What a chunk adds to the state is added up apart, and to the state in f32: tensor cores cut off, which would add up.
// - Weights of the next chunk are made behind the products of this one.
//
// Supports states up to SCAN_CHUNK_COLUMNS wide, in multiples of 4, and any head_dim that is a multiple of 4; a head's last 64 rows
// take as long as if they were all there.
#pragma once
#include "scan_chunk_stage.cuh"

namespace scan_chunked {

// The largest of both rows of a lane.
DEVICE void share_peaks(float (&peak)[2], Scale (&scale)[2]) {
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    peak[i] = fmaxf(peak[i], __shfl_xor_sync(FULL_MASK, peak[i], 1));
    peak[i] = fmaxf(peak[i], __shfl_xor_sync(FULL_MASK, peak[i], 2));
    scale[i] = scale_of(peak[i]);
  }
}

// x of the tokens of a chunk, of a lane's two rows: pairs as in the registers of a first operand.
template <u32 L> struct Inputs {
  static constexpr u32 STEPS = L / 16;
  float2 x[STEPS][4];

  DEVICE void load(const Stage<L> &stage, u32 row) {
#pragma unroll
    for (u32 k = 0; k < STEPS; k++)
#pragma unroll
      for (u32 r = 0; r < 4; r++) {
        u32 s = k * 16 + r / 2 * 8 + lane_id() % 4 * 2, column = x_column(s, row + r % 2 * 8);
        x[k][r] = make_float2(stage.x[s][column], stage.x[s + 1][column]);
      }
  }

  // Times what is left of each token's part at the end of the chunk.
  DEVICE void decay(const float4 *factors) {
#pragma unroll
    for (u32 k = 0; k < STEPS; k++)
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        u32 s = k * 16 + half * 8 + lane_id() % 4 * 2;
        float first = factors[factor_place(s)].w, second = factors[factor_place(s + 1)].w;
#pragma unroll
        for (u32 i = 0; i < 2; i++) x[k][half * 2 + i].x *= first, x[k][half * 2 + i].y *= second;
      }
  }

  DEVICE void split(Fragment (&out)[STEPS], Scale (&scale)[2]) const {
    float peak[2] = {};
#pragma unroll
    for (u32 k = 0; k < STEPS; k++)
#pragma unroll
      for (u32 r = 0; r < 4; r++) peak[r % 2] = fmaxf(peak[r % 2], fmaxf(fabsf(x[k][r].x), fabsf(x[k][r].y)));
    share_peaks(peak, scale);
#pragma unroll
    for (u32 k = 0; k < STEPS; k++)
#pragma unroll
      for (u32 r = 0; r < 4; r++)
        scan_chunk::split(x[k][r].x * scale[r % 2].up, x[k][r].y * scale[r % 2].up, out[k].high[r], out[k].low[r]);
  }
};

// What a warp has: 16 rows and half of the columns. A lane has parts of rows lane / 4 and 8 more.
template <u32 L> struct Warp {
  static constexpr u32 TILES = HALF / 8, STEPS = HALF / 16, OWN = Shared<L>::OWN;
  float state[TILES][4];
  u32 tile, half;

  DEVICE Warp() : tile(warp_id() % 4), half(warp_id() / 4) {}
  DEVICE u32 row() const { return tile * 16 + lane_id() / 4; }
  // First token of the pieces that this warp ends; of its partner's, with the other half.
  DEVICE u32 token0(u32 i, u32 of) const { return (i * 2 + of) * 8; }

  DEVICE void split_state(Fragment (&out)[STEPS], Scale (&scale)[2]) const {
    float peak[2] = {};
#pragma unroll
    for (u32 j = 0; j < TILES; j++)
#pragma unroll
      for (u32 c = 0; c < 4; c++) peak[c / 2] = fmaxf(peak[c / 2], fabsf(state[j][c]));
    share_peaks(peak, scale);
#pragma unroll
    for (u32 k = 0; k < STEPS; k++)
#pragma unroll
      for (u32 r = 0; r < 4; r++) {
        const float *pair = &state[k * 2 + r / 2][r % 2 * 2];
        split(pair[0] * scale[r % 2].up, pair[1] * scale[r % 2].up, out[k].high[r], out[k].low[r]);
      }
  }

  // Half of the columns of h C_t, for the pieces of one of the two warps.
  DEVICE void read_state(Stage<L> &stage, const Fragment (&h)[STEPS], const Scale (&scale)[2], u32 of, float (&out)[OWN][4]) const {
#pragma unroll
    for (u32 i = 0; i < OWN; i++) clear(out[i]);
#pragma unroll
    for (u32 k = 0; k < STEPS; k++)
#pragma unroll
      for (u32 i = 0; i < OWN; i++) {
        u32 c[4], piece = half * (HALF / 8) + k * 2 + lane_id() / 8 % 2;
        load_matrices(c, place(stage.parts[OF_C + lane_id() / 16], token0(i, of) + lane_id() % 8, piece));
        multiply(out[i], h[k], c);
      }
#pragma unroll
    for (u32 i = 0; i < OWN; i++)
#pragma unroll
      for (u32 c = 0; c < 4; c++) out[i][c] *= scale[c / 2].down;
  }

  // Its part of both warps' pieces to the warp that ends them.
  DEVICE void exchange(Shared<L> &shared, const float (&theirs)[OWN][4]) const {
#pragma unroll
    for (u32 i = 0; i < OWN; i++)
      shared.exchanged[warp_id()][i][lane_id()] = make_float4(theirs[i][0], theirs[i][1], theirs[i][2], theirs[i][3]);
  }
  DEVICE void meet() const { asm volatile("bar.sync %0, 64;" ::"r"(1 + tile) : "memory"); }
  DEVICE void join(const Shared<L> &shared, float (&mine)[OWN][4]) const {
#pragma unroll
    for (u32 i = 0; i < OWN; i++) {
      float4 other = shared.exchanged[warp_id() ^ 4][i][lane_id()];
      mine[i][0] += other.x, mine[i][1] += other.y, mine[i][2] += other.z, mine[i][3] += other.w;
    }
  }

  // Tokens of the chunk, up to the one that reads them.
  DEVICE void read_tokens(Shared<L> &shared, const Fragment (&x)[L / 16], u32 chunk, float (&out)[OWN][4]) const {
    u16(*weights)[L] = shared.weights[chunk % 2][lane_id() / 16];
#pragma unroll
    for (u32 i = 0; i < OWN; i++) clear(out[i]);
#pragma unroll
    for (u32 k = 0; k < L / 16; k++)
#pragma unroll
      for (u32 i = k; i < OWN; i++) {
        u32 w[4];
        load_matrices(w, weight_place<L>(weights, token0(i, half) + lane_id() % 8, k * 2 + lane_id() / 8 % 2));
        multiply(out[i], x[k], w);
      }
  }

  DEVICE void store(const SsmScanParams &p, const Place &place, const Shared<L> &shared, u32 chunk, float d,
                    const float (&of_state)[OWN][4], const float (&of_tokens)[OWN][4], const Scale (&scale)[2]) const {
    u32 inner = p.heads * p.head_dim;
    const Stage<L> &stage = shared.stages[chunk % 2];
#pragma unroll
    for (u32 i = 0; i < OWN; i++)
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        u32 t = token0(i, half) + lane_id() % 4 * 2 + c % 2, r = row() + c / 2 * 8, token = place.begin + chunk * L + t;
        float y = of_state[i][c] * shared.kept[chunk % 3][t];
        y = fmaf(of_tokens[i][c] * scale[c / 2].down, shared.weight_down[chunk % 2][t], y);
        y = fmaf(d, stage.x[t][x_column(t, r)], y);
        if (token < place.end && place.row0 + r < p.head_dim)
          p.out[(u64)token * inner + place.head * p.head_dim + place.row0 + r] = y;
      }
  }

  DEVICE void add_tokens(Stage<L> &stage, const Fragment (&x)[L / 16], const Scale (&scale)[2], float left) {
    float added[TILES][4];
#pragma unroll
    for (u32 j = 0; j < TILES; j++) clear(added[j]);
#pragma unroll
    for (u32 k = 0; k < L / 16; k++)
#pragma unroll
      for (u32 j = 0; j < TILES; j++) {
        u32 b[4];
        load_transposed(b, place(stage.parts[OF_B + lane_id() / 16], k * 16 + lane_id() % 16, half * (HALF / 8) + j));
        multiply(added[j], x[k], b);
      }
#pragma unroll
    for (u32 j = 0; j < TILES; j++)
#pragma unroll
      for (u32 c = 0; c < 4; c++) state[j][c] = fmaf(state[j][c], left, added[j][c] * scale[c / 2].down);
  }

  DEVICE void run(const SsmScanParams &p, const Place &place, Shared<L> &shared, u32 chunk, float d) {
    Stage<L> &stage = shared.stages[chunk % 2];
    float of_state[OWN][4], of_tokens[OWN][4];
    {
      Fragment h[STEPS];
      Scale scale[2];
      split_state(h, scale);
      read_state(stage, h, scale, half ^ 1, of_state);
      exchange(shared, of_state);
      read_state(stage, h, scale, half, of_state);
    }
    Inputs<L> inputs;
    Fragment x[L / 16];
    Scale scale[2];
    inputs.load(stage, row());
    inputs.split(x, scale);
    read_tokens(shared, x, chunk, of_tokens);
    meet();
    join(shared, of_state);
    store(p, place, shared, chunk, d, of_state, of_tokens, scale);
    inputs.decay(shared.factors[chunk % 3]);
    inputs.split(x, scale);
    u32 last = min(place.end - place.begin - chunk * L, L) - 1;
    float4 end = shared.factors[chunk % 3][factor_place(last)];
    add_tokens(stage, x, scale, exp2f(end.x + end.y));
  }
};

// A slab of the state as rows in shared memory, where a chunk would be.
struct Slab {
  float (*rows)[COLUMNS + 4];

  template <bool NARROW> DEVICE void load(const SsmScanParams &p, const kept::State<NARROW> &state, const Place &place) const {
    float4 values[ROWS / WARPS][1];
#pragma unroll
    for (u32 i = 0; i < ROWS / WARPS; i++) {
      u32 row = place.row0 + i * WARPS + warp_id();
      kept::load_row<WARP>(state, place.head * p.head_dim + row, row < p.head_dim, values[i]);
    }
#pragma unroll
    for (u32 i = 0; i < ROWS / WARPS; i++) *(float4 *)(rows[i * WARPS + warp_id()] + lane_id() * 4) = values[i][0];
  }

  template <bool NARROW> DEVICE void store(const SsmScanParams &p, const kept::State<NARROW> &state, const Place &place, u32 key) const {
    for (u32 i = 0; i < ROWS / WARPS; i++) {
      u32 row = place.row0 + i * WARPS + warp_id();
      float4 values[1] = {*(const float4 *)(rows[i * WARPS + warp_id()] + lane_id() * 4)};
      kept::store_row<WARP>(state, place.head * p.head_dim + row, row < p.head_dim, values, key);
    }
  }

  DEVICE float2 *pair(u32 row, u32 half, u32 tile, u32 i) const {
    return (float2 *)(rows[row + i * 8] + half * HALF + tile * 8 + lane_id() % 4 * 2);
  }
};

} // namespace scan_chunked

template <u32 L, bool NARROW> DEVICE void ssm_scan_chunked(const SsmScanParams &p) {
  using namespace scan_chunked;
  extern __shared__ __align__(128) u8 chunk_memory[];
  Shared<L> &shared = *(Shared<L> *)chunk_memory;
  pdl_launch_dependents();
  Place place(p);
  Warp<L> warp;
  kept::State<NARROW> state(p, p.batch.seq_base[place.sequence]);
  Slab slab = {(float(*)[COLUMNS + 4])&shared.stages[1]};
  // Only this kernel writes states: no need to wait for the kernels ahead.
  slab.load(p, state, place);
  __syncthreads();
#pragma unroll
  for (u32 j = 0; j < Warp<L>::TILES; j++)
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      float2 pair = *slab.pair(warp.row(), warp.half, j, i);
      warp.state[j][i * 2] = pair.x, warp.state[j][i * 2 + 1] = pair.y;
    }
  float d = p.d[place.head];
  place.begin = p.batch.seq_start[place.sequence], place.end = p.batch.seq_start[place.sequence + 1];
  u32 chunks = ceil_div(place.end - place.begin, L);
  Prepared prepared(p, L);
  pdl_wait();
  Products<L> products;
  request_tokens<L>(p, prepared, place, shared, 0);
  request_factors<L>(prepared, place, shared, 0);
  request_factors<L>(prepared, place, shared, 1);
  copy_async_commit();
  products.request(prepared, place, 0);
  copy_async_wait<0>();
  __syncthreads();
  products.weigh(shared, 0);
  for (u32 chunk = 0; chunk < chunks; chunk++) {
    copy_async_wait<0>();
    __syncthreads();
    request_tokens<L>(p, prepared, place, shared, chunk + 1);
    request_factors<L>(prepared, place, shared, chunk + 2);
    copy_async_commit();
    products.request(prepared, place, chunk + 1);
    warp.run(p, place, shared, chunk, d);
    if (chunk + 1 < chunks) products.weigh(shared, chunk + 1);
  }
  __syncthreads();
  slab.rows = (float(*)[COLUMNS + 4])&shared.stages[0];
#pragma unroll
  for (u32 j = 0; j < Warp<L>::TILES; j++)
#pragma unroll
    for (u32 i = 0; i < 2; i++)
      *slab.pair(warp.row(), warp.half, j, i) = make_float2(warp.state[j][i * 2], warp.state[j][i * 2 + 1]);
  __syncthreads();
  slab.store(p, state, place, kept::step_key(p.state_seed, p.batch.seq_pos[place.sequence] + place.end - place.begin));
}
