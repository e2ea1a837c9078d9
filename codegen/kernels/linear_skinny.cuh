// Plan kernel `linear` for 8-bit activations and few rows: W8, W4 two-level and W4 group (groups of a multiple of 128).
//
//   out[t, n] = epilogue(sum_k x[t, k] * w[n, k], scales)      t < 16 * M_TILES
//
// Bound by reading the weights once: 21504 x 4096 of W8 is 88 MB, 19.4 us at an H200's 4.55 TB/s.
//
// - A tile is 8 weight rows; the eight warps of a block share its k in pieces of 64 bytes a row, dealt in turn, so the
//   block streams 512 consecutive bytes of each row at a time. Blocks take tiles round-robin.
// - Every lane copies the 16 bytes it will multiply itself into its own column of a ring in shared memory: the ring
//   needs no barrier, has no bank conflicts, and runs on across tiles. Its first pieces are requested before the
//   previous kernel of the stream has finished.
// - mma.sync with the tokens as the 16 rows and the weights as the 8 columns.
// - A W4 piece is one group of 128 of each row: its sum is scaled and added to the total, in integers for two-level.
// - The partial sums of the warps meet in shared memory, double-buffered: one barrier a tile.
//
// Not supported: float weights and groups that are not a multiple of 128 (linear_scalar), more rows (linear_gemm).
#pragma once
#include "epilogue.cuh"
#include "mma.cuh"
#include "segment.cuh"

namespace skinny {

constexpr u32 WARPS = SKINNY_WARPS;
constexpr u32 THREADS = WARPS * WARP;
constexpr u32 STAGES = SKINNY_STAGES;
constexpr u32 TILE_ROWS = 8;
constexpr u32 PIECE_BYTES = 64;

// Walks the pieces of this warp: every tile of this block, every piece of the tile.
struct Cursor {
  u32 tile, piece, pieces, segment;

  DEVICE void enter(const LinearParams &p) {
    if (tile >= p.tiles) return;
    segment = segment_of(p, tile, segment);
    pieces = ceil_div(p.segments[segment].row_bytes, PIECE_BYTES * WARPS);
    piece = 0;
  }
  DEVICE void start(const LinearParams &p) {
    tile = blockIdx.x;
    segment = 0;
    enter(p);
  }
  // True when this was the last piece of its tile.
  DEVICE bool advance(const LinearParams &p) {
    if (++piece < pieces) return false;
    tile += gridDim.x;
    enter(p);
    return true;
  }
  DEVICE u32 row0(const LinearParams &p) const { return (tile - p.segments[segment].first_tile) * TILE_ROWS; }
};

struct Ring {
  uint4 weights[STAGES][THREADS];
  u32 scales[STAGES][WARPS][TILE_ROWS];
};

// Byte address of the group scale of a row for this warp's piece; words are copied, the wanted bytes picked on arrival.
DEVICE u64 group_scale_address(const LinearSegment &s, u32 row, u32 piece) {
  u32 group = min((piece * WARPS + warp_id()) * 128 / s.group_size, s.groups - 1);
  u64 at = (u64)row * s.groups + group;
  return (u64)s.group_scale + (s.format == FORMAT_W4_GROUP ? 2 * at : at);
}

DEVICE void request(const LinearParams &p, Cursor &c, Ring &ring, u32 slot, u64 policy) {
  if (c.tile < p.tiles) {
    const LinearSegment &s = p.segments[c.segment];
    u32 row0 = c.row0(p), row = row0 + lane_id() / 4;
    u32 at = (c.piece * WARPS + warp_id()) * PIECE_BYTES + lane_id() % 4 * 16;
    bool valid = at < s.row_bytes && row < s.out_features;
    const u8 *src = (const u8 *)s.weight + (valid ? (u64)row * s.row_bytes + at : 0);
    copy_async16(smem_address(&ring.weights[slot][threadIdx.x]), src, valid, policy);
    if (s.format != FORMAT_W8 && lane_id() < TILE_ROWS) {
      u32 scale_row = min(row0 + lane_id(), s.out_features - 1);
      u64 address = group_scale_address(s, scale_row, c.piece);
      copy_async4(smem_address(&ring.scales[slot][warp_id()][lane_id()]), (const void *)(address & ~3ull));
    }
    c.advance(p);
  }
  copy_async_commit();
}

// 16 bytes of activations of one token; zeros beyond the tokens and beyond k.
DEVICE uint4 load_x(const LinearParams &p, u32 token, u32 k) {
  if (token >= p.rows || k >= p.k_padded) return make_uint4(0, 0, 0, 0);
  return *(const uint4 *)((const u8 *)p.x + (u64)token * p.k_padded + k);
}

// Two instructions: 64 columns of k, of which this lane holds 16.
template <bool X_UNSIGNED, bool HALF>
DEVICE void multiply(int (&acc)[4], const LinearParams &p, u32 token0, u32 k, const u32 (&b)[4]) {
  uint4 x0 = load_x(p, token0, k);
  uint4 x1 = make_uint4(0, 0, 0, 0);
  if constexpr (!HALF) x1 = load_x(p, token0 + 8, k);
  mma_int8<X_UNSIGNED>(acc, x0.x, x1.x, x0.y, x1.y, b[0], b[1]);
  mma_int8<X_UNSIGNED>(acc, x0.z, x1.z, x0.w, x1.w, b[2], b[3]);
}

template <int M_TILES, bool HALF, bool X_UNSIGNED>
DEVICE void consume(const LinearParams &p, const Cursor &c, const Ring &ring, u32 slot, int (&acc)[M_TILES][4]) {
  const LinearSegment &s = p.segments[c.segment];
  uint4 v = ring.weights[slot][threadIdx.x];
  u32 token = lane_id() / 4, quad = lane_id() % 4;
  u32 piece = c.piece * WARPS + warp_id();
  if (s.format == FORMAT_W8) {
    u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
      multiply<X_UNSIGNED, HALF>(acc[m], p, m * 16 + token, piece * 64 + quad * 16, words);
    return;
  }
  u32 low[4], high[4];
  unpack_int4_x16(v, low, high);
  // The scales of the rows that are this lane's columns of the result.
  u32 row = c.row0(p) + quad * 2, last = s.out_features - 1;
  u32 shift0 = (u32)group_scale_address(s, min(row, last), c.piece) % 4 * 8;
  u32 shift1 = (u32)group_scale_address(s, min(row + 1, last), c.piece) % 4 * 8;
  uint2 words = *(const uint2 *)&ring.scales[slot][warp_id()][quad * 2];
  u32 s0 = words.x >> shift0, s1 = words.y >> shift1;
#pragma unroll
  for (int m = 0; m < M_TILES; m++) {
    int sum[4] = {0, 0, 0, 0};
    u32 k = piece * 128 + quad * 32;
    multiply<X_UNSIGNED, HALF>(sum, p, m * 16 + token, k, low);
    multiply<X_UNSIGNED, HALF>(sum, p, m * 16 + token, k + 16, high);
#pragma unroll
    for (int i = 0; i < (HALF ? 2 : 4); i++) {
      u32 scale = i % 2 ? s1 : s0;
      if (s.format == FORMAT_W4_TWO_LEVEL)
        acc[m][i] += (sum[i] >> 4) * (int)(scale & 0xff);
      else
        acc[m][i] = __float_as_int(__int_as_float(acc[m][i]) + (float)(sum[i] >> 4) * f16_to_f32((u16)scale));
    }
  }
}

// [parity][warp][token][row of the tile]
template <int TOKENS> struct Partials {
  int sums[2][WARPS][TOKENS][TILE_ROWS];
};

template <int M_TILES, bool HALF, int TOKENS>
DEVICE void finish_tile(const LinearParams &p, u32 segment, u32 row0, Partials<TOKENS> &partials, u32 parity,
                        int (&acc)[M_TILES][4]) {
  const LinearSegment &s = p.segments[segment];
  u32 token = lane_id() / 4, column = lane_id() % 4 * 2;
#pragma unroll
  for (int m = 0; m < M_TILES; m++) {
    int(*mine)[TILE_ROWS] = partials.sums[parity][warp_id()];
    *(int2 *)&mine[m * 16 + token][column] = make_int2(acc[m][0], acc[m][1]);
    if constexpr (!HALF) *(int2 *)&mine[m * 16 + token + 8][column] = make_int2(acc[m][2], acc[m][3]);
#pragma unroll
    for (int i = 0; i < 4; i++) acc[m][i] = 0;
  }
  u32 count = p.rows * TILE_ROWS;
  float scale = 1.0f;
  // Requested before the barrier; a thread finishes the same row of every token.
  u32 row = row0 + threadIdx.x % TILE_ROWS;
  if (threadIdx.x < count && row < s.out_features && s.format != FORMAT_W4_GROUP) scale = s.scale[row];
  __syncthreads();
  if (row >= s.out_features) return;
  for (u32 i = threadIdx.x; i < count; i += THREADS) {
    u32 t = i / TILE_ROWS, column = i % TILE_ROWS;
    if (s.format == FORMAT_W4_GROUP) {
      float sum = 0.0f;
#pragma unroll
      for (u32 w = 0; w < WARPS; w++) sum += __int_as_float(partials.sums[parity][w][t][column]);
      store_float(s, (u64)t * s.out_features + row, sum * p.x_scale[t]);
    } else {
      int sum = 0;
#pragma unroll
      for (u32 w = 0; w < WARPS; w++) sum += partials.sums[parity][w][t][column];
      store_integer(s, t, row, sum, p.x_scale[t], scale);
    }
  }
}

} // namespace skinny

// HALF: at most 8 rows (M_TILES is 1 then).
template <int M_TILES, bool HALF, bool X_UNSIGNED> DEVICE void linear_skinny(const LinearParams &p) {
  using namespace skinny;
  constexpr int TOKENS = HALF ? 8 : 16 * M_TILES;
  extern __shared__ __align__(16) u8 shared[];
  Ring &ring = *(Ring *)shared;
  Partials<TOKENS> &partials = *(Partials<TOKENS> *)(shared + sizeof(Ring));
  pdl_launch_dependents();
  u64 policy = evict_first_policy();
  Cursor ahead, here;
  ahead.start(p);
  here.start(p);
  for (u32 i = 0; i < STAGES - 1; i++) request(p, ahead, ring, i, policy);
  pdl_wait();
  int acc[M_TILES][4] = {};
  u32 parity = 0;
  for (u32 slot = 0; here.tile < p.tiles; slot = (slot + 1) % STAGES) {
    copy_async_wait<STAGES - 2>();
    __syncwarp(); // group scales were copied by other lanes
    consume<M_TILES, HALF, X_UNSIGNED>(p, here, ring, slot, acc);
    __syncwarp();
    request(p, ahead, ring, (slot + STAGES - 1) % STAGES, policy);
    u32 segment = here.segment, row0 = here.row0(p);
    if (here.advance(p)) {
      finish_tile<M_TILES, HALF>(p, segment, row0, partials, parity, acc);
      parity ^= 1;
    }
  }
}
