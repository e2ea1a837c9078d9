// Plan kernel `linear` for 8-bit activations, W4 and up to MANY_TOKENS rows, on Hopper and later: weights and activations by
// bulk copies.
//
// Bound by reading the weights once: 18560 x 4096 of W4 is 38 MB, 8.5 us at an H200's 4.55 TB/s. Reaches a third of that: a copy
// of 512 bytes takes the engine as long as one of 2 KB, and a stage has 64 of them.
//
// - A tile is MANY_TILE_ROWS weight rows, a stage MANY_ROW_BYTES of each with the activations of the same columns. One warp
//   requests weights, from before the previous kernel of the stream has finished; another requests activations behind it.
// - Eight warps multiply with mma.sync, 64 bytes of each row of a stage: weights are the 16 rows of an instruction, tokens its
//   8 columns. Rows in shared memory are padded so that no two lanes of a load share a bank.
// - Group scales are read a stage ahead, also across tiles. Tiles are drawn from a counter.
// - One block an SM.
//
// Not supported: as linear_stream; rows of other than a multiple of 64 bytes.
#pragma once
#include "bulk.cuh"
#include "epilogue.cuh"
#include "mma.cuh"
#include "segment.cuh"

#if __CUDA_ARCH__ >= 900

namespace many {

constexpr u32 WARPS = STREAM_WARPS;
constexpr u32 THREADS = WARPS * WARP; // those that multiply
constexpr u32 TILE_ROWS = MANY_TILE_ROWS;
constexpr u32 ROW_BYTES = MANY_ROW_BYTES;
constexpr u32 TOKENS = MANY_TOKENS;
constexpr u32 STAGES = MANY_STAGES;
constexpr u32 M_TILES = TILE_ROWS / 16, N_TILES = TOKENS / 8;
constexpr u32 DRAWN = STREAM_SCALE_STAGES;
static_assert(ROW_BYTES == WARPS * 64, "a warp takes 64 bytes of every row");

struct Shared {
  u8 weights[STAGES][TILE_ROWS][ROW_BYTES + 64];
  u8 x[STAGES][TOKENS * (2 * ROW_BYTES + 16)];
  int sums[WARPS][TOKENS][TILE_ROWS + 4];
  u64 full[STAGES], empty[STAGES], drawn[DRAWN];
  u32 tiles[DRAWN];
};

// Bytes from a token's activations of a stage to those of the next.
DEVICE u32 x_stride(u32 format) { return format == FORMAT_W8 ? ROW_BYTES + 64 : 2 * ROW_BYTES + 16; }

// The segment of a tile, in registers: parameters that are indexed at run time are slow to read.
struct Tile {
  u32 index, row0, row_bytes, format, segment;

  DEVICE bool find(const LinearParams &p, u32 wanted) {
    index = wanted;
    if (index >= p.tiles) return false;
    segment = segment_of(p, index);
    const LinearSegment &s = p.segments[segment];
    row0 = (index - s.first_tile) * TILE_ROWS, row_bytes = s.row_bytes, format = s.format;
    return true;
  }
};

DEVICE bool find_drawn(const LinearParams &p, Shared &shared, const RingTurn<DRAWN> &place, Tile &tile) {
  barrier_wait(&shared.drawn[place.slot], place.parity);
  return tile.find(p, shared.tiles[place.slot]);
}

DEVICE void produce_weights(const LinearParams &p, Shared &shared) {
  static_assert(DRAWN > STAGES, "a tile may be a stage");
  u64 policy = evict_first_policy();
  RingTurn<STAGES> turn;
  u32 lane = lane_id(), next = blockIdx.x;
  Tile tile;
  for (RingTurn<DRAWN> place;; place.advance()) {
    if (lane == 0) {
      shared.tiles[place.slot] = next;
      barrier_arrive(&shared.drawn[place.slot]);
    }
    if (!tile.find(p, next)) break;
    const LinearSegment &s = p.segments[tile.segment];
    u32 rows = min(TILE_ROWS, s.out_features - tile.row0), draw = 0;
    const u8 *src = (const u8 *)s.weight + (u64)(tile.row0 + lane) * tile.row_bytes;
    for (u32 at = 0; at < tile.row_bytes; at += ROW_BYTES, turn.advance()) {
      u32 bytes = min(ROW_BYTES, tile.row_bytes - at);
      u64 *full = &shared.full[turn.slot];
      if (at + ROW_BYTES >= tile.row_bytes && lane == 0) draw = atomicAdd(p.draws, 1);
      barrier_wait(&shared.empty[turn.slot], turn.parity ^ 1);
      if (lane == 0) barrier_arrive_expect(full, bytes * rows);
      __syncwarp();
      if (lane < rows) copy_bulk(smem_address(shared.weights[turn.slot][lane]), src + at, bytes, full, policy);
    }
    // There are as many draws as tiles: whoever has the last one leaves the counter as it was.
    if (lane == 0 && draw == p.tiles - 1) *p.draws = 0;
    next = gridDim.x + __shfl_sync(FULL_MASK, draw, 0);
  }
  pdl_launch_dependents();
}

DEVICE void produce_x(const LinearParams &p, Shared &shared) {
  pdl_wait();
  RingTurn<STAGES> turn;
  u32 lane = lane_id();
  const u8 *src = (const u8 *)p.x + (u64)lane * p.k_padded;
  Tile tile;
  for (RingTurn<DRAWN> place; find_drawn(p, shared, place, tile); place.advance()) {
    u32 wide = tile.format == FORMAT_W8 ? 1 : 2, stride = x_stride(tile.format);
    for (u32 at = 0; at < tile.row_bytes; at += ROW_BYTES, turn.advance()) {
      u32 bytes = min(ROW_BYTES, tile.row_bytes - at) * wide;
      u64 *full = &shared.full[turn.slot];
      barrier_wait(&shared.empty[turn.slot], turn.parity ^ 1);
      if (lane == 0) barrier_arrive_expect(full, bytes * p.rows);
      __syncwarp();
      if (lane < p.rows) copy_bulk(smem_address(shared.x[turn.slot] + lane * stride), src + at * wide, bytes, full);
    }
  }
}

DEVICE void consumers_barrier() { asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory"); }

// Scales of the group of 64 bytes that this warp has of a stage, for the rows lane / 4 + 8 i of the tile.
struct GroupScales {
  u32 of[2 * M_TILES];

  DEVICE void fetch(const LinearParams &p, const Tile &tile, u32 at) {
    if (tile.format == FORMAT_W8) return;
    const LinearSegment &s = p.segments[tile.segment];
    u32 pieces = s.group_size / 128, piece = at / 64 + warp_id(), last = s.out_features - 1;
    u32 group = min(pieces == 1 ? piece : piece / pieces, s.groups - 1);
#pragma unroll
    for (u32 i = 0; i < 2 * M_TILES; i++) {
      u64 from = (u64)min(tile.row0 + lane_id() / 4 + 8 * i, last) * s.groups + group;
      of[i] = tile.format == FORMAT_W4_GROUP ? ((const u16 *)s.group_scale)[from] : ((const u8 *)s.group_scale)[from];
    }
  }
};

// Two instructions, for 16 bytes a lane of two rows and of a token.
template <bool X_UNSIGNED> DEVICE void multiply(int (&acc)[4], const u32 (&top)[4], const u32 (&bottom)[4], uint4 x) {
  mma_int8<false, X_UNSIGNED>(acc, top[0], bottom[0], top[1], bottom[1], x.x, x.y);
  mma_int8<false, X_UNSIGNED>(acc, top[2], bottom[2], top[3], bottom[3], x.z, x.w);
}

template <bool X_UNSIGNED> struct Math {
  int acc[M_TILES][N_TILES][4];

  DEVICE void clear() {
#pragma unroll
    for (u32 m = 0; m < M_TILES; m++)
#pragma unroll
      for (u32 n = 0; n < N_TILES; n++)
#pragma unroll
        for (u32 c = 0; c < 4; c++) acc[m][n][c] = 0;
  }

  DEVICE void stage_w8(const u8 *weights, const u8 *x) {
    uint4 b[N_TILES];
#pragma unroll
    for (u32 n = 0; n < N_TILES; n++) b[n] = *(const uint4 *)(x + n * 8 * (ROW_BYTES + 64));
#pragma unroll
    for (u32 m = 0; m < M_TILES; m++) {
      uint4 v = *(const uint4 *)(weights + m * 16 * (ROW_BYTES + 64));
      uint4 w = *(const uint4 *)(weights + (m * 16 + 8) * (ROW_BYTES + 64));
      u32 top[4] = {v.x, v.y, v.z, v.w}, bottom[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (u32 n = 0; n < N_TILES; n++) multiply<X_UNSIGNED>(acc[m][n], top, bottom, b[n]);
    }
  }

  template <bool TWO_LEVEL> DEVICE void stage_w4(const u8 *weights, const u8 *x, const GroupScales &scales) {
#pragma unroll
    for (u32 m = 0; m < M_TILES; m++) {
      u32 low[2][4], high[2][4];
#pragma unroll
      for (u32 half = 0; half < 2; half++)
        unpack_int4_x16(*(const uint4 *)(weights + (m * 16 + half * 8) * (ROW_BYTES + 64)), low[half], high[half]);
#pragma unroll
      for (u32 n = 0; n < N_TILES; n++) {
        const uint4 *token = (const uint4 *)(x + n * 8 * (2 * ROW_BYTES + 16));
        int sum[4] = {};
        multiply<X_UNSIGNED>(sum, low[0], low[1], token[0]);
        multiply<X_UNSIGNED>(sum, high[0], high[1], token[1]);
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
          u32 s = scales.of[m * 2 + c / 2];
          int &total = acc[m][n][c];
          if constexpr (TWO_LEVEL)
            total += (sum[c] >> 4) * (int)s;
          else
            total = __float_as_int(fmaf((float)(sum[c] >> 4), f16_to_f32((u16)s), __int_as_float(total)));
        }
      }
    }
  }

  DEVICE void share(int (*mine)[TILE_ROWS + 4]) const {
    u32 row = lane_id() / 4, token = lane_id() % 4 * 2;
#pragma unroll
    for (u32 m = 0; m < M_TILES; m++)
#pragma unroll
      for (u32 n = 0; n < N_TILES; n++)
#pragma unroll
        for (u32 c = 0; c < 4; c++) mine[n * 8 + token + c % 2][m * 16 + c / 2 * 8 + row] = acc[m][n][c];
  }
};

// A thread finishes one row of the tile for every eighth token.
DEVICE void store_tile(const LinearParams &p, const Tile &tile, const int (&sums)[WARPS][TOKENS][TILE_ROWS + 4],
                       const float (&x_scale)[TOKENS / WARPS], float row_scale) {
  const LinearSegment &s = p.segments[tile.segment];
  u32 column = threadIdx.x % TILE_ROWS, row = tile.row0 + column;
  if (row >= s.out_features) return;
#pragma unroll
  for (u32 i = 0; i < TOKENS / WARPS; i++) {
    u32 t = i * WARPS + threadIdx.x / TILE_ROWS;
    if (t >= p.rows) break;
    if (tile.format == FORMAT_W4_GROUP) {
      float sum = 0.0f;
#pragma unroll
      for (u32 w = 0; w < WARPS; w++) sum += __int_as_float(sums[w][t][column]);
      store_float(s, (u64)t * s.out_features + row, sum * x_scale[i]);
    } else {
      int sum = 0;
#pragma unroll
      for (u32 w = 0; w < WARPS; w++) sum += sums[w][t][column];
      store_integer(s, t, row, sum, x_scale[i], row_scale);
    }
  }
}

template <bool X_UNSIGNED> DEVICE void consume(const LinearParams &p, Shared &shared) {
  static_assert(TILE_ROWS == WARP, "a warp stores a token");
  RingTurn<STAGES> turn;
  RingTurn<DRAWN> place;
  Tile tile, next;
  GroupScales scales, ahead;
  Math<X_UNSIGNED> math;
  bool there = find_drawn(p, shared, place, next);
  if (there) ahead.fetch(p, next, 0);
  pdl_wait();
  float x_scale[TOKENS / WARPS];
#pragma unroll
  for (u32 i = 0; i < TOKENS / WARPS; i++) x_scale[i] = warp_id() + i * WARPS < p.rows ? p.x_scale[warp_id() + i * WARPS] : 0.0f;
  while (there) {
    tile = next;
    const LinearSegment &s = p.segments[tile.segment];
    u32 row = min(tile.row0 + threadIdx.x % TILE_ROWS, s.out_features - 1), row_bytes = tile.row_bytes;
    float row_scale = s.scale ? s.scale[row] : 1.0f;
    u32 wide = tile.format == FORMAT_W8 ? 1 : 2;
    u32 x_at = lane_id() / 4 * x_stride(tile.format) + (warp_id() * 64 + lane_id() % 4 * 16) * wide;
    u32 weights_at = lane_id() / 4 * (ROW_BYTES + 64) + warp_id() * 64 + lane_id() % 4 * 16;
    math.clear();
    for (u32 at = 0; at < row_bytes; at += ROW_BYTES, turn.advance()) {
      scales = ahead;
      if (at + ROW_BYTES < row_bytes) {
        ahead.fetch(p, tile, at + ROW_BYTES);
      } else {
        place.advance();
        there = find_drawn(p, shared, place, next);
        if (there) ahead.fetch(p, next, 0);
      }
      barrier_wait(&shared.full[turn.slot], turn.parity);
      const u8 *weights = shared.weights[turn.slot][0] + weights_at, *x = shared.x[turn.slot] + x_at;
      if (at + warp_id() * 64 >= row_bytes) {
        // Nothing of a short last stage is this warp's.
      } else if (tile.format == FORMAT_W8) {
        math.stage_w8(weights, x);
      } else if (tile.format == FORMAT_W4_TWO_LEVEL) {
        math.template stage_w4<true>(weights, x, scales);
      } else {
        math.template stage_w4<false>(weights, x, scales);
      }
      barrier_arrive(&shared.empty[turn.slot]);
    }
    math.share(shared.sums[warp_id()]);
    consumers_barrier();
    store_tile(p, tile, shared.sums, x_scale, row_scale);
    consumers_barrier();
  }
}

} // namespace many

#endif

template <bool X_UNSIGNED> DEVICE void linear_stream_many(const LinearParams &p) {
#if __CUDA_ARCH__ >= 900
  using namespace many;
  extern __shared__ __align__(128) u8 dynamic[];
  Shared &shared = *(Shared *)dynamic;
  if (threadIdx.x == 0) {
    ring_init(shared.full, shared.empty, STAGES, 2, THREADS);
    for (u32 i = 0; i < DRAWN; i++) barrier_init(&shared.drawn[i], 1);
    barrier_init_fence();
  }
  __syncthreads();
  if (warp_id() == WARPS)
    produce_weights(p, shared);
  else if (warp_id() == WARPS + 1)
    produce_x(p, shared);
  else
    consume<X_UNSIGNED>(p, shared);
#endif
}
