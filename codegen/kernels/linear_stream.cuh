// Plan kernel `linear` for 8-bit activations and few rows, on Hopper and later: as linear_skinny, with the weights
// brought in by the bulk copy engine.
//
// Bound by reading the weights once: 21504 x 4096 of W8 is 88 MB, 19.4 us at an H200's 4.55 TB/s.
//
// - A tile is 8 weight rows. One warp does nothing but request: 8 bulk copies of up to 2 KB (one a row) fill a stage of a
//   ring of STREAM_STAGES, from before the previous kernel of the stream has finished. Two blocks an SM keep more in flight than
//   bandwidth times latency, and leave room for a small block of the next kernel.
// - Eight warps multiply, 256 bytes of each row of a stage, with mma.sync: tokens are the 16 rows, weights the 8 columns. Lanes
//   read 16 bytes of a row, which are the operand of two instructions as they are.
// - The sum of a W4 group is scaled and added to the total, in integers for two-level.
// - The scales of a tile are copied with its first stage.
// - Where `Math` has registers to spare, blocks draw their later tiles from a counter: SMs are not equally fast, and blocks do
//   not start together.
// - The partial sums of the warps meet in shared memory, double-buffered: one barrier a tile.
//
// Not supported: as linear_skinny; more than STREAM_MAX_GROUPS groups a row.
#pragma once
#include "linear_skinny.cuh"
#include "linear_stream_ring.cuh"

#if __CUDA_ARCH__ >= 900

namespace stream {

// [parity][warp][token][row of the tile]
template <int TOKENS> struct Partials {
  int sums[2][WARPS][TOKENS][TILE_ROWS];
};

DEVICE void consumers_barrier() { asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory"); }

// What a lane needs of x and of the tile, in registers: parameters that are indexed at run time are slow to read.
struct Lane {
  const u8 *x_top, *x_bottom; // tokens lane / 4 and 8 more, of the first 16
  u32 k_padded, x_step;       // bytes to the next 16 tokens
  u32 rows;                   // tokens from this lane's first on
  DEVICE Lane(const LinearParams &p) {
    u32 token = lane_id() / 4;
    x_top = (const u8 *)p.x + (u64)token * p.k_padded;
    x_bottom = x_top + (u64)8 * p.k_padded;
    k_padded = p.k_padded, x_step = 16 * p.k_padded;
    rows = p.rows > token ? p.rows - token : 0;
  }
  DEVICE uint4 top(int m, u32 k) const {
    if (rows <= m * 16 || k >= k_padded) return make_uint4(0, 0, 0, 0);
    return *(const uint4 *)(x_top + (u64)m * x_step + k);
  }
  DEVICE uint4 bottom(int m, u32 k) const {
    if (rows <= m * 16 + 8 || k >= k_padded) return make_uint4(0, 0, 0, 0);
    return *(const uint4 *)(x_bottom + (u64)m * x_step + k);
  }
};

template <bool X_UNSIGNED>
DEVICE void multiply(int (&acc)[4], uint4 x0, uint4 x1, const u32 (&b)[4]) {
  mma_int8<X_UNSIGNED>(acc, x0.x, x1.x, x0.y, x1.y, b[0], b[1]);
  mma_int8<X_UNSIGNED>(acc, x0.z, x1.z, x0.w, x1.w, b[2], b[3]);
}

// Multiplies 16 bytes of weights as they are by the activations from column k on.
template <int M_TILES, bool HALF, bool X_UNSIGNED>
DEVICE void multiply_all(const Lane &lane, u32 k, const u32 (&b)[4], int (&acc)[M_TILES][4]) {
#pragma unroll
  for (int m = 0; m < M_TILES; m++)
    multiply<X_UNSIGNED>(acc[m], lane.top(m, k), HALF ? make_uint4(0, 0, 0, 0) : lane.bottom(m, k), b);
}

// One stage of a W8 tile.
template <int M_TILES, bool HALF, bool X_UNSIGNED>
DEVICE void stage_w8(const Lane &lane, Shared &shared, const Turn &turn, u32 at, int (&acc)[M_TILES][4]) {
  u32 column = warp_id() * WARP_BYTES + lane_id() % 4 * 16;
  const u8 *weights = shared.weights[turn.slot][lane_id() / 4] + column;
  uint4 early[PIECES];
  if constexpr (HALF) {
#pragma unroll
    for (u32 i = 0; i < PIECES; i++) early[i] = lane.top(0, at + column + i * 64);
  }
  barrier_wait(&shared.full[turn.slot], turn.parity);
#pragma unroll(M_TILES > 2 ? 1 : M_TILES > 1 ? 2 : PIECES)
  for (u32 i = 0; i < PIECES; i++) {
    uint4 v = *(const uint4 *)(weights + i * 64);
    u32 b[4] = {v.x, v.y, v.z, v.w};
    if constexpr (HALF)
      multiply<X_UNSIGNED>(acc[0], early[i], make_uint4(0, 0, 0, 0), b);
    else
      multiply_all<M_TILES, HALF, X_UNSIGNED>(lane, at + column + i * 64, b, acc);
  }
}

// The group scales of the two rows that are this lane's columns of the result.
struct GroupScales {
  const u8 *first, *second;
  u32 pieces, last; // pieces of 128 a group, last group
  DEVICE GroupScales(const LinearSegment &s, const u8 *scales, u32 bytes) {
    first = scales + lane_id() % 4 * 2 * s.groups * bytes;
    second = first + s.groups * bytes;
    pieces = s.group_size / 128, last = s.groups - 1;
  }
  DEVICE u32 group(u32 piece) const { return min(pieces == 1 ? piece : piece / pieces, last); }
};

// One stage of a W4 tile: a piece of 64 bytes is 128 columns of each row, all of one group.
template <u32 FORMAT, int M_TILES, bool HALF, bool X_UNSIGNED>
DEVICE void stage_w4(const Lane &lane, const GroupScales &scales, Shared &shared, const Turn &turn, u32 at,
                     int (&acc)[M_TILES][4]) {
  u32 column = warp_id() * WARP_BYTES, quad = lane_id() % 4;
  const u8 *weights = shared.weights[turn.slot][lane_id() / 4] + column + quad * 16;
  u32 k = 2 * (at + column) + quad * 32;
  uint4 early[2 * PIECES];
  if constexpr (HALF) {
#pragma unroll
    for (u32 i = 0; i < 2 * PIECES; i++) early[i] = lane.top(0, k + i / 2 * 128 + i % 2 * 16);
  }
  barrier_wait(&shared.full[turn.slot], turn.parity);
#pragma unroll(M_TILES > 2 ? 1 : M_TILES > 1 ? 2 : PIECES)
  for (u32 i = 0; i < PIECES; i++) {
    u32 low[4], high[4], s[2];
    unpack_int4_x16(*(const uint4 *)(weights + i * 64), low, high);
    u32 group = scales.group((at + column) / 64 + i);
    if constexpr (FORMAT == FORMAT_W4_TWO_LEVEL)
      s[0] = scales.first[group], s[1] = scales.second[group];
    else
      s[0] = ((const u16 *)scales.first)[group], s[1] = ((const u16 *)scales.second)[group];
    // Two sums: half the chain of dependent instructions.
    int sum[M_TILES][4] = {}, more[M_TILES][4] = {};
    if constexpr (HALF) {
      multiply<X_UNSIGNED>(sum[0], early[2 * i], make_uint4(0, 0, 0, 0), low);
      multiply<X_UNSIGNED>(more[0], early[2 * i + 1], make_uint4(0, 0, 0, 0), high);
    } else {
      multiply_all<M_TILES, HALF, X_UNSIGNED>(lane, k + i * 128, low, sum);
      multiply_all<M_TILES, HALF, X_UNSIGNED>(lane, k + i * 128 + 16, high, more);
    }
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
      for (int c = 0; c < (HALF ? 2 : 4); c++) {
        if constexpr (FORMAT == FORMAT_W4_TWO_LEVEL)
          acc[m][c] += ((sum[m][c] + more[m][c]) >> 4) * (int)s[c % 2];
        else
          acc[m][c] =
              __float_as_int(fmaf((float)((sum[m][c] + more[m][c]) >> 4), f16_to_f32((u16)s[c % 2]), __int_as_float(acc[m][c])));
      }
  }
}

// A stage has been read. Every lane says so itself: compute-sanitizer does not see that lanes met at __syncwarp before one of
// them arrived for all, and it takes no longer.
DEVICE void release(Shared &shared, Turn &turn) {
  barrier_arrive(&shared.empty[turn.slot]);
  turn.advance();
}

// All stages of a tile.
template <u32 FORMAT, int M_TILES, bool HALF, bool X_UNSIGNED>
DEVICE void tile_sums(const Lane &lane, const LinearSegment &s, const u8 *group_scales, Shared &shared, Turn &turn,
                      int (&acc)[M_TILES][4]) {
  u32 row_bytes = s.row_bytes;
  if constexpr (FORMAT == FORMAT_W8) {
    for (u32 at = 0; at < row_bytes; at += ROW_BYTES, release(shared, turn))
      stage_w8<M_TILES, HALF, X_UNSIGNED>(lane, shared, turn, at, acc);
  } else {
    GroupScales scales(s, group_scales, FORMAT == FORMAT_W4_GROUP ? 2 : 1);
    for (u32 at = 0; at < row_bytes; at += ROW_BYTES, release(shared, turn))
      stage_w4<FORMAT, M_TILES, HALF, X_UNSIGNED>(lane, scales, shared, turn, at, acc);
  }
}

template <int TOKENS>
DEVICE void store_tile(const LinearParams &p, const LinearSegment &s, const float *x_scale, u32 row0,
                       Partials<TOKENS> &partials, u32 parity, float row_scale) {
  u32 column = threadIdx.x % TILE_ROWS, row = row0 + column;
  if (row >= s.out_features) return;
  for (u32 t = threadIdx.x / TILE_ROWS; t < p.rows; t += THREADS / TILE_ROWS) {
    if (s.format == FORMAT_W4_GROUP) {
      float sum = 0.0f;
#pragma unroll
      for (u32 w = 0; w < WARPS; w++) sum += __int_as_float(partials.sums[parity][w][t][column]);
      store_float(s, (u64)t * s.out_features + row, sum * x_scale[t]);
    } else {
      int sum = 0;
#pragma unroll
      for (u32 w = 0; w < WARPS; w++) sum += partials.sums[parity][w][t][column];
      store_integer(s, t, row, sum, x_scale[t], row_scale);
    }
  }
}

// Tensor cores: tokens are the rows, weights the columns.
template <int M_TILES, bool HALF, bool X_UNSIGNED> struct TensorCores {
  static constexpr int TOKENS = HALF ? 8 : 16 * M_TILES;
  static constexpr bool DRAWS = false, WHOLE_ROWS = false; // registers are short
  static constexpr u32 DEALT = 1, ARRIVALS = WARP;
  Lane lane;
  int acc[M_TILES][4];

  DEVICE TensorCores(const LinearParams &p, const u8 *) : lane(p) {}

  template <u32 FORMAT> DEVICE void sum(const LinearSegment &s, const u8 *scales, Shared &shared, Turn &turn) {
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
      for (int c = 0; c < 4; c++) acc[m][c] = 0;
    tile_sums<FORMAT, M_TILES, HALF, X_UNSIGNED>(lane, s, scales, shared, turn, acc);
  }

  DEVICE void share(int (*mine)[TILE_ROWS], bool) const {
    u32 token = lane_id() / 4, column = lane_id() % 4 * 2;
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
      *(int2 *)&mine[m * 16 + token][column] = make_int2(acc[m][0], acc[m][1]);
      if constexpr (!HALF) *(int2 *)&mine[m * 16 + token + 8][column] = make_int2(acc[m][2], acc[m][3]);
    }
  }
};

// Activations that a launch before has quantized.
struct Stored {
  static constexpr bool CLUSTERED = false;
  const u8 *x;
  const float *x_scale;
  DEVICE Stored(const LinearParams &p) : x((const u8 *)p.x), x_scale(p.x_scale) {}
  DEVICE u32 smem_bytes() const { return 0; }
  DEVICE void init() {}
  DEVICE void begin() {}
  DEVICE void finish() {}
  DEVICE void end() {}
};

// `Input` says where activations come from: it begins before the launch before has finished, and ends behind the last tile.
template <class Math, class Input>
DEVICE void consume(const LinearParams &p, Input &input, Shared &shared, Partials<Math::TOKENS> &partials, u8 *group_scales) {
  input.begin();
  pdl_wait();
  input.finish();
  Turn turn;
  TileTurn place;
  Math math(p, input.x);
  Tile tile;
  for (u32 parity = 0;; parity ^= 1, place.advance()) {
    if constexpr (Math::DRAWS) {
      barrier_wait(&shared.drawn[place.slot], place.parity);
      tile.index = shared.tiles[place.slot];
    }
    if (!tile.find(p)) break;
    const LinearSegment &s = p.segments[tile.segment];
    u32 row0 = tile.row0(p);
    const u8 *scales = group_scales + place.slot * p.scale_bytes + GroupBytes(s, row0, TILE_ROWS).shift;
    if (s.format == FORMAT_W8)
      math.template sum<FORMAT_W8>(s, scales, shared, turn);
    else if (s.format == FORMAT_W4_TWO_LEVEL)
      math.template sum<FORMAT_W4_TWO_LEVEL>(s, scales, shared, turn);
    else
      math.template sum<FORMAT_W4_GROUP>(s, scales, shared, turn);
    math.share(partials.sums[parity][warp_id()], s.format == FORMAT_W4_GROUP);
    // Read before the barrier: after it, scales of a later tile may come into the same place.
    float row_scale = shared.row_scales[place.slot][threadIdx.x % TILE_ROWS];
    consumers_barrier();
    store_tile(p, s, input.x_scale, row0, partials, parity, row_scale);
    if constexpr (!Math::DRAWS) tile.index += gridDim.x;
  }
  input.end();
}

template <class Math, class Input>
DEVICE void consume_rows(const LinearParams &p, Input &input, Shared &shared, const u8 *group_scales);

// Either the warp that requests, or one that multiplies.
// Group scales come last in shared memory, behind what the input keeps there.
template <class Math, class Input> DEVICE void run(const LinearParams &p, Input input) {
  extern __shared__ __align__(128) u8 dynamic[];
  u8 *group_scales = dynamic + sizeof(Shared) + sizeof(Partials<Math::TOKENS>) + input.smem_bytes();
  Shared &shared = *(Shared *)dynamic;
  if (threadIdx.x == 0) {
    ring_init(shared.full, shared.empty, STAGES, 1, WARPS * Math::ARRIVALS);
    for (u32 i = 0; i < STREAM_SCALE_STAGES; i++) barrier_init(&shared.drawn[i], 1);
    input.init();
    barrier_init_fence();
  }
  // Blocks of a cluster meet before they multiply: what requests need not wait for that.
  if (Input::CLUSTERED) cluster_arrive();
  __syncthreads();
  if (warp_id() == WARPS)
    produce<Math::DRAWS, Math::DEALT>(p, shared, group_scales);
  else if constexpr (Math::WHOLE_ROWS)
    consume_rows<Math>(p, input, shared, group_scales);
  else
    consume<Math>(p, input, shared, *(Partials<Math::TOKENS> *)(dynamic + sizeof(Shared)), group_scales);
}

} // namespace stream

#endif

template <int M_TILES, bool HALF, bool X_UNSIGNED> DEVICE void linear_stream(const LinearParams &p) {
#if __CUDA_ARCH__ >= 900
  stream::run<stream::TensorCores<M_TILES, HALF, X_UNSIGNED>>(p, stream::Stored(p));
#endif
}
