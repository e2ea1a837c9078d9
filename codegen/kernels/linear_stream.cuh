// Plan kernel `linear` for 8-bit activations and few rows, on Hopper and later: as linear_skinny, with the weights
// brought in by the bulk copy engine.
//
// Bound by reading the weights once: 21504 x 4096 of W8 is 88 MB, 19.4 us at an H200's 4.55 TB/s.
//
// - A tile is 8 weight rows. One warp does nothing but request: 8 bulk copies of up to 1 KB (one a row) fill a stage of a
//   ring; STREAM_STAGES of them are in flight a block, from before the previous kernel of the stream has finished.
//   Two blocks an SM keep 128 KB in flight, more than bandwidth times latency, and each hides the other's pauses.
// - Eight warps multiply, 128 columns of a stage each, with mma.sync: tokens are the 16 rows, weights the 8 columns. Lanes
//   read 16 bytes of a row, which are the operand of two instructions as they are.
// - A W4 stage is 16 groups of 128: a sum is scaled a group and added to the total, in integers for two-level.
// - Scales of the next tile are copied while the current one is multiplied.
// - The partial sums of the warps meet in shared memory, double-buffered: one barrier a tile.
//
// Not supported: as linear_skinny; more than STREAM_MAX_GROUPS groups a row.
#pragma once
#include "bulk.cuh"
#include "linear_skinny.cuh"

#if __CUDA_ARCH__ >= 900

namespace stream {

constexpr u32 WARPS = STREAM_WARPS;
constexpr u32 THREADS = WARPS * WARP; // those that multiply
constexpr u32 STAGES = STREAM_STAGES;
constexpr u32 TILE_ROWS = SKINNY_TILE_ROWS;
constexpr u32 ROW_BYTES = STREAM_ROW_BYTES;
constexpr u32 WARP_BYTES = ROW_BYTES / WARPS;
constexpr u32 PIECES = WARP_BYTES / 64;

struct Shared {
  u8 weights[STAGES][TILE_ROWS][ROW_BYTES];
  u8 group_scales[2][TILE_ROWS * STREAM_MAX_GROUPS * 2];
  float row_scales[2][TILE_ROWS];
  u64 full[STAGES], empty[STAGES];
};

// Position in the ring.
struct Turn {
  u32 slot = 0, parity = 0;
  DEVICE void advance() {
    if (++slot == STAGES) slot = 0, parity ^= 1;
  }
};

// A tile of this block.
struct Tile {
  u32 index, segment = 0;
  DEVICE Tile() : index(blockIdx.x) {}
  DEVICE bool find(const LinearParams &p) {
    if (index >= p.tiles) return false;
    while (segment + 1 < p.segment_count && index >= p.segments[segment + 1].first_tile) segment++;
    return true;
  }
  DEVICE u32 row0(const LinearParams &p) const { return (index - p.segments[segment].first_tile) * TILE_ROWS; }
};

// The warp that requests.
DEVICE void produce(const LinearParams &p, Shared &shared) {
  u64 policy = evict_first_policy();
  Turn turn;
  u32 lane = lane_id();
  for (Tile tile; tile.find(p); tile.index += gridDim.x) {
    const LinearSegment &s = p.segments[tile.segment];
    u32 row0 = tile.row0(p), row_bytes = s.row_bytes, rows = min(TILE_ROWS, s.out_features - row0);
    const u8 *src = (const u8 *)s.weight + (u64)(row0 + lane) * row_bytes;
    for (u32 at = 0; at < row_bytes; at += ROW_BYTES, turn.advance()) {
      u32 bytes = min(ROW_BYTES, row_bytes - at);
      barrier_wait(&shared.empty[turn.slot], turn.parity ^ 1);
      if (lane == 0) barrier_arrive_expect(&shared.full[turn.slot], bytes * rows);
      __syncwarp();
      if (lane < rows)
        copy_bulk(smem_address(shared.weights[turn.slot][lane]), src + at, bytes, &shared.full[turn.slot], policy);
    }
  }
}

// Scales of a tile, by all threads that multiply; complete after a wait and a barrier.
DEVICE void request_scales(const LinearParams &p, Tile &tile, Shared &shared, u32 buffer) {
  if (tile.find(p)) {
    const LinearSegment &s = p.segments[tile.segment];
    u32 row0 = tile.row0(p), rows = min(TILE_ROWS, s.out_features - row0), i = threadIdx.x;
    if (s.scale && i < rows) copy_async4(smem_address(&shared.row_scales[buffer][i]), s.scale + row0 + i);
    u32 bytes = s.format == FORMAT_W4_GROUP ? 2 : 1;
    u32 words = s.format == FORMAT_W8 ? 0 : ceil_div(rows * s.groups * bytes, 4);
    const u8 *from = (const u8 *)s.group_scale + (u64)row0 * s.groups * bytes;
    for (; i < words; i += THREADS) copy_async4(smem_address(&shared.group_scales[buffer][i * 4]), from + i * 4);
  }
  copy_async_commit();
}

DEVICE void consumers_barrier() { asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory"); }

// Activations of a token: 16 bytes of every piece for W8, 32 for W4, of this warp's columns of a stage.
template <int COUNT> struct Activations {
  uint4 x[COUNT];
  DEVICE void load(const LinearParams &p, u32 token, u32 k, u32 step_k, u32 step_half) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) x[i] = skinny::load_x(p, token, k + i / 2 * step_k + i % 2 * step_half);
  }
};

template <bool X_UNSIGNED>
DEVICE void multiply(int (&acc)[4], uint4 x0, uint4 x1, const u32 (&b)[4]) {
  mma_int8<X_UNSIGNED>(acc, x0.x, x1.x, x0.y, x1.y, b[0], b[1]);
  mma_int8<X_UNSIGNED>(acc, x0.z, x1.z, x0.w, x1.w, b[2], b[3]);
}

// One stage of a W8 tile.
template <int M_TILES, bool HALF, bool X_UNSIGNED>
DEVICE void stage_w8(const LinearParams &p, const LinearSegment &, Shared &shared, const Turn &turn, u32 at, const u8 *,
                     int (&acc)[M_TILES][4]) {
  u32 token = lane_id() / 4, quad = lane_id() % 4, column = warp_id() * WARP_BYTES + quad * 16;
  Activations<PIECES> top[M_TILES], bottom[M_TILES] = {};
#pragma unroll
  for (int m = 0; m < M_TILES; m++) {
    top[m].load(p, m * 16 + token, at + column, 128, 64);
    if constexpr (!HALF) bottom[m].load(p, m * 16 + token + 8, at + column, 128, 64);
  }
  barrier_wait(&shared.full[turn.slot], turn.parity);
#pragma unroll
  for (u32 i = 0; i < PIECES; i++) {
    uint4 v = *(const uint4 *)&shared.weights[turn.slot][token][column + i * 64];
    u32 b[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int m = 0; m < M_TILES; m++) multiply<X_UNSIGNED>(acc[m], top[m].x[i], bottom[m].x[i], b);
  }
}

// One stage of a W4 tile: a piece of 64 bytes is a group of 128 of each row.
template <int M_TILES, bool HALF, bool X_UNSIGNED>
DEVICE void stage_w4(const LinearParams &p, const LinearSegment &s, Shared &shared, const Turn &turn, u32 at,
                     const u8 *scales, int (&acc)[M_TILES][4]) {
  u32 token = lane_id() / 4, quad = lane_id() % 4, column = warp_id() * WARP_BYTES;
  u32 k = 2 * (at + column) + quad * 32;
  Activations<2 * PIECES> early;
  if constexpr (HALF) early.load(p, token, k, 128, 16);
  barrier_wait(&shared.full[turn.slot], turn.parity);
#pragma unroll
  for (u32 i = 0; i < PIECES; i++) {
    u32 low[4], high[4];
    unpack_int4_x16(*(const uint4 *)&shared.weights[turn.slot][token][column + i * 64 + quad * 16], low, high);
    u32 group = min((at + column + i * 64) * 2 / s.group_size, s.groups - 1);
    u32 at0 = quad * 2 * s.groups + group, at1 = at0 + s.groups;
    bool integer = s.format == FORMAT_W4_TWO_LEVEL;
    u32 s0 = integer ? scales[at0] : ((const u16 *)scales)[at0], s1 = integer ? scales[at1] : ((const u16 *)scales)[at1];
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
      int sum[4] = {0, 0, 0, 0};
      if constexpr (HALF) {
        multiply<X_UNSIGNED>(sum, early.x[2 * i], make_uint4(0, 0, 0, 0), low);
        multiply<X_UNSIGNED>(sum, early.x[2 * i + 1], make_uint4(0, 0, 0, 0), high);
      } else {
        Activations<2> top, bottom;
        top.load(p, m * 16 + token, k + i * 128, 0, 16);
        bottom.load(p, m * 16 + token + 8, k + i * 128, 0, 16);
        multiply<X_UNSIGNED>(sum, top.x[0], bottom.x[0], low);
        multiply<X_UNSIGNED>(sum, top.x[1], bottom.x[1], high);
      }
#pragma unroll
      for (int c = 0; c < (HALF ? 2 : 4); c++) {
        u32 scale = c % 2 ? s1 : s0;
        if (integer)
          acc[m][c] += (sum[c] >> 4) * (int)scale;
        else
          acc[m][c] = __float_as_int(fmaf((float)(sum[c] >> 4), f16_to_f32((u16)scale), __int_as_float(acc[m][c])));
      }
    }
  }
}

template <int M_TILES, bool HALF, int TOKENS>
DEVICE void share_sums(skinny::Partials<TOKENS> &partials, u32 parity, int (&acc)[M_TILES][4]) {
  u32 token = lane_id() / 4, column = lane_id() % 4 * 2;
  int(*mine)[TILE_ROWS] = partials.sums[parity][warp_id()];
#pragma unroll
  for (int m = 0; m < M_TILES; m++) {
    *(int2 *)&mine[m * 16 + token][column] = make_int2(acc[m][0], acc[m][1]);
    if constexpr (!HALF) *(int2 *)&mine[m * 16 + token + 8][column] = make_int2(acc[m][2], acc[m][3]);
  }
}

template <int TOKENS>
DEVICE void store_tile(const LinearParams &p, const LinearSegment &s, u32 row0, skinny::Partials<TOKENS> &partials,
                       u32 parity, const float *row_scales) {
  u32 column = threadIdx.x % TILE_ROWS, row = row0 + column;
  if (row >= s.out_features) return;
  for (u32 t = threadIdx.x / TILE_ROWS; t < p.rows; t += THREADS / TILE_ROWS) {
    if (s.format == FORMAT_W4_GROUP) {
      float sum = 0.0f;
#pragma unroll
      for (u32 w = 0; w < WARPS; w++) sum += __int_as_float(partials.sums[parity][w][t][column]);
      store_float(s, (u64)t * s.out_features + row, sum * p.x_scale[t]);
    } else {
      int sum = 0;
#pragma unroll
      for (u32 w = 0; w < WARPS; w++) sum += partials.sums[parity][w][t][column];
      store_integer(s, t, row, sum, p.x_scale[t], row_scales[column]);
    }
  }
}

template <int M_TILES, bool HALF, bool X_UNSIGNED, int TOKENS>
DEVICE void consume(const LinearParams &p, Shared &shared, skinny::Partials<TOKENS> &partials) {
  Tile tile, next;
  request_scales(p, next, shared, 0);
  copy_async_wait<0>();
  consumers_barrier();
  pdl_wait();
  Turn turn;
  for (u32 parity = 0; tile.find(p); tile.index += gridDim.x, parity ^= 1) {
    const LinearSegment &s = p.segments[tile.segment];
    next.index += gridDim.x;
    request_scales(p, next, shared, parity ^ 1);
    int acc[M_TILES][4] = {};
    bool w8 = s.format == FORMAT_W8;
    for (u32 at = 0; at < s.row_bytes; at += ROW_BYTES, turn.advance()) {
      if (w8)
        stage_w8<M_TILES, HALF, X_UNSIGNED>(p, s, shared, turn, at, nullptr, acc);
      else
        stage_w4<M_TILES, HALF, X_UNSIGNED>(p, s, shared, turn, at, shared.group_scales[parity], acc);
      __syncwarp();
      if (lane_id() == 0) barrier_arrive(&shared.empty[turn.slot]);
    }
    share_sums<M_TILES, HALF>(partials, parity, acc);
    copy_async_wait<0>();
    consumers_barrier();
    store_tile(p, s, tile.row0(p), partials, parity, shared.row_scales[parity]);
  }
}

} // namespace stream

#endif

template <int M_TILES, bool HALF, bool X_UNSIGNED> DEVICE void linear_stream(const LinearParams &p) {
#if __CUDA_ARCH__ >= 900
  constexpr int TOKENS = HALF ? 8 : 16 * M_TILES;
  extern __shared__ __align__(128) u8 dynamic[];
  stream::Shared &shared = *(stream::Shared *)dynamic;
  skinny::Partials<TOKENS> &partials = *(skinny::Partials<TOKENS> *)(dynamic + sizeof(stream::Shared));
  pdl_launch_dependents();
  if (threadIdx.x == 0) {
    for (u32 i = 0; i < stream::STAGES; i++) {
      barrier_init(&shared.full[i], 1);
      barrier_init(&shared.empty[i], stream::WARPS);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (warp_id() == stream::WARPS)
    stream::produce(p, shared);
  else
    stream::consume<M_TILES, HALF, X_UNSIGNED>(p, shared, partials);
#endif
}
