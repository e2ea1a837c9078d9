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

// Two rows of a token, without a branch around each.
DEVICE void store_rows(float *to, float low, float high, bool low_there, bool high_there) {
  asm volatile("{ .reg .pred p, q;\n"
               "setp.ne.u32 p, %3, 0;\n"
               "setp.ne.u32 q, %4, 0;\n"
               "@p st.global.f32 [%0], %1;\n"
               "@q st.global.f32 [%0+32], %2; }" ::"l"(to),
               "f"(low), "f"(high), "r"((u32)low_there), "r"((u32)high_there)
               : "memory");
}

// x of the tokens of a chunk, of a lane's two rows: pairs as in the registers of a first operand.
template <u32 L> struct Inputs {
  static constexpr u32 STEPS = L / 16;
  float2 x[STEPS][4];

  // `of` are the first two tokens of the lane, in its two rows.
  DEVICE void load(const float *const (&of)[2]) {
#pragma unroll
    for (u32 k = 0; k < STEPS; k++)
#pragma unroll
      for (u32 r = 0; r < 4; r++) {
        const float *first = of[r % 2] + (k * 16 + r / 2 * 8) * ROWS;
        x[k][r] = make_float2(first[0], first[ROWS]);
      }
  }

  // Times what is left of each token at the end of the chunk.
  DEVICE void decay(const float *at_end) {
#pragma unroll
    for (u32 k = 0; k < STEPS; k++)
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        float2 left = *(const float2 *)(at_end + k * 16 + half * 8 + lane_id() % 4 * 2);
#pragma unroll
        for (u32 i = 0; i < 2; i++) x[k][half * 2 + i].x *= left.x, x[k][half * 2 + i].y *= left.y;
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

  // Half of the columns of h C_t, for the pieces of one of the two warps, without the scale.
  DEVICE void read_state(u32 stage, const Fragment (&h)[STEPS], u32 of, float (&out)[OWN][4]) const {
    u32 from = stage + operand_bytes(OF_C, half * (HALF / 8)) + token0(0, of) * ROW_BYTES;
#pragma unroll
    for (u32 i = 0; i < OWN; i++) clear(out[i]);
#pragma unroll
    for (u32 k = 0; k < STEPS; k++)
#pragma unroll
      for (u32 i = 0; i < OWN; i++) {
        u32 c[4];
        load_matrices(c, (from ^ k * 32) + i * 16 * ROW_BYTES);
        multiply(out[i], h[k], c);
      }
  }

  // Its part of both warps' pieces to the warp that ends them.
  DEVICE void exchange(Shared<L> &shared, const float (&theirs)[OWN][4], const Scale (&scale)[2]) const {
    float low = scale[0].down, high = scale[1].down;
#pragma unroll
    for (u32 i = 0; i < OWN; i++)
      shared.exchanged[warp_id()][i][lane_id()] =
          make_float4(theirs[i][0] * low, theirs[i][1] * low, theirs[i][2] * high, theirs[i][3] * high);
  }
  DEVICE void meet() const { asm volatile("bar.sync %0, 64;" ::"r"(1 + tile) : "memory"); }
  // Tokens of the chunk, up to the one that reads them.
  DEVICE void read_tokens(Shared<L> &shared, const Fragment (&x)[L / 16], u32 chunk, float (&out)[OWN][4]) const {
    u32 t = token0(0, half) + lane_id() % 8;
    u32 from = smem_address(shared.weights[chunk % 2][lane_id() / 16]) + weight_bytes<L>(t, lane_id() / 8 % 2);
#pragma unroll
    for (u32 i = 0; i < OWN; i++) clear(out[i]);
#pragma unroll
    for (u32 k = 0; k < L / 16; k++)
#pragma unroll
      for (u32 i = k; i < OWN; i++) {
        u32 w[4];
        load_matrices(w, (from ^ k * 32) + i * 16 * L * 2);
        multiply(out[i], x[k], w);
      }
  }

  // All of y but the other warp's half of h C_t, in place of this one's.
  DEVICE void sum(const Shared<L> &shared, u32 chunk, const float *const (&x)[2], float d, const Scale (&of_h)[2],
                  const float (&of_tokens)[OWN][4], const Scale (&of_x)[2], float (&y)[OWN][4]) const {
    u32 t0 = token0(0, half) + lane_id() % 4 * 2;
    const float *kept = shared.kept[chunk % 3] + t0, *down = shared.weight_down[chunk % 2] + t0;
#pragma unroll
    for (u32 i = 0; i < OWN; i++) {
      float2 left = *(const float2 *)(kept + i * 16), weight = *(const float2 *)(down + i * 16);
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        float of_state = y[i][c] * of_h[c / 2].down * (c % 2 ? left.y : left.x);
        y[i][c] = fmaf(of_tokens[i][c] * of_x[c / 2].down, c % 2 ? weight.y : weight.x, of_state);
        y[i][c] = fmaf(d, x[c / 2][(token0(i, half) + c % 2) * ROWS], y[i][c]);
      }
    }
  }

  DEVICE void store(const SsmScanParams &p, const Place &place, const Shared<L> &shared, u32 chunk, const float (&y)[OWN][4]) const {
    u32 inner = p.heads * p.head_dim, t0 = token0(0, half) + lane_id() % 4 * 2, rows = p.head_dim - place.row0;
    u32 count = place.end - place.begin - chunk * L;
    const float *kept = shared.kept[chunk % 3] + t0;
    float *out = p.out + (u64)(place.begin + chunk * L + t0) * inner + place.head * p.head_dim + place.row0 + row();
#pragma unroll
    for (u32 i = 0; i < OWN; i++, out += 16 * inner) {
      float2 left = *(const float2 *)(kept + i * 16);
      float4 other = shared.exchanged[warp_id() ^ 4][i][lane_id()];
      u32 there = t0 + i * 16 < count ? rows : 0, next = t0 + i * 16 + 1 < count ? rows : 0;
      store_rows(out, fmaf(other.x, left.x, y[i][0]), fmaf(other.z, left.x, y[i][2]), row() < there, row() + 8 < there);
      store_rows(out + inner, fmaf(other.y, left.y, y[i][1]), fmaf(other.w, left.y, y[i][3]), row() < next, row() + 8 < next);
    }
  }

  DEVICE void add_tokens(u32 stage, const Fragment (&x)[L / 16], const Scale (&scale)[2], float left) {
    u32 part = OF_B + lane_id() / 16;
    u32 from = stage + lane_id() % 16 * ROW_BYTES + part * PART_BYTES + piece_bytes(lane_id(), half * (HALF / 8));
    constexpr u32 AT_ONCE = 4;
#pragma unroll
    for (u32 j0 = 0; j0 < TILES; j0 += AT_ONCE) {
      float added[AT_ONCE][4];
#pragma unroll
      for (u32 j = 0; j < AT_ONCE; j++) clear(added[j]);
#pragma unroll
      for (u32 k = 0; k < L / 16; k++)
#pragma unroll
        for (u32 j = 0; j < AT_ONCE; j++) {
          u32 b[4];
          load_transposed(b, (from ^ (j0 + j) * 16) + k * 16 * ROW_BYTES);
          multiply(added[j], x[k], b);
        }
#pragma unroll
      for (u32 j = 0; j < AT_ONCE; j++)
#pragma unroll
        for (u32 c = 0; c < 4; c++) state[j0 + j][c] = fmaf(state[j0 + j][c], left, added[j][c] * scale[c / 2].down);
    }
  }

  DEVICE void run(const SsmScanParams &p, const Prepared &prepared, const Place &place, Shared<L> &shared, Products<L> &products,
                  u32 chunk, float d) {
    Stage<L> &stage = shared.stages[chunk % 2];
    u32 t = lane_id() % 4 * 2, rows = smem_address(stage.rows);
    const float *const of_lane[2] = {&stage.x[t][x_column(t, row())], &stage.x[t][x_column(t, row() + 8)]};
    float y[OWN][4];
    Scale scale[2];
    // One of the two warps of a scheduler makes weights while the other multiplies.
    if (half == 0) products.next(prepared, place, shared, chunk + 1);
    Inputs<L> inputs;
    Fragment x[L / 16];
    {
      Fragment h[STEPS];
      Scale of_h[2];
      split_state(h, of_h);
      read_state(rows, h, half ^ 1, y);
      exchange(shared, y, of_h);
      read_state(rows, h, half, y);
      inputs.load(of_lane);
      inputs.split(x, scale);
      float of_tokens[OWN][4];
      read_tokens(shared, x, chunk, of_tokens);
      sum(shared, chunk, of_lane, d, of_h, of_tokens, scale, y);
    }
    inputs.decay(shared.at_end[chunk % 3]);
    inputs.split(x, scale);
    u32 last = min(place.end - place.begin - chunk * L, L) - 1;
    float4 end = shared.factors[chunk % 3][factor_place(last)];
    add_tokens(rows, x, scale, power_of_two(end.x + end.y));
    if (half == 1) products.next(prepared, place, shared, chunk + 1);
    meet();
    store(p, place, shared, chunk, y);
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
#pragma unroll 1
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

// An SM of sm_89 or sm_120 has no room for chunks of 64 tokens.
#if __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200
constexpr u32 LONGEST_CHUNK = 32;
#else
constexpr u32 LONGEST_CHUNK = 64;
#endif

template <u32 L, bool NARROW> DEVICE void ssm_scan_chunked(const SsmScanParams &p) {
  if constexpr (L > LONGEST_CHUNK) return;
  using namespace scan_chunked;
  extern __shared__ __align__(128) u8 chunk_memory[];
  Shared<L> &shared = *(Shared<L> *)chunk_memory;
  pdl_launch_dependents();
  Place place(p);
  Warp<L> warp;
  Slab slab = {(float(*)[COLUMNS + 4])&shared.stages[1]};
  // Only this kernel writes states: no need to wait for the kernels ahead.
  slab.load(p, kept::State<NARROW>(p, p.batch.seq_base[place.sequence]), place);
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
  products.next(prepared, place, shared, 0);
  for (u32 chunk = 0; chunk < chunks; chunk++) {
    copy_async_wait<0>();
    __syncthreads();
    request_tokens<L>(p, prepared, place, shared, chunk + 1);
    request_factors<L>(prepared, place, shared, chunk + 2);
    copy_async_commit();
    warp.run(p, prepared, place, shared, products, chunk, d);
  }
  __syncthreads();
  slab.rows = (float(*)[COLUMNS + 4])&shared.stages[0];
#pragma unroll
  for (u32 j = 0; j < Warp<L>::TILES; j++)
#pragma unroll
    for (u32 i = 0; i < 2; i++)
      *slab.pair(warp.row(), warp.half, j, i) = make_float2(warp.state[j][i * 2], warp.state[j][i * 2 + 1]);
  __syncthreads();
  // Made again, so that it takes no registers up to here.
  kept::State<NARROW> state(p, p.batch.seq_base[place.sequence]);
  slab.store(p, state, place, kept::step_key(p.state_seed, p.batch.seq_pos[place.sequence] + place.end - place.begin));
}
