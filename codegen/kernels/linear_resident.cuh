// Plan kernel `linear` for 8-bit activations and 9 to 16 rows, on Hopper: W8 and W4 two-level, with the activations kept in
// shared memory.
//
// Bound by reading the weights once: 18560 x 4096 of W4 is 38 MB, 8.5 us at an H200's 4.47 TB/s.
//
// - A tile is 16 weight rows. One block an SM starts with the tile of its number and draws the others from a counter: SMs
//   are not equally fast, and blocks do not start together.
// - Every block keeps all activations, 64 KB of 16 rows of 4096. Every tile would read them from L2 again, otherwise.
// - A chunk is 128 bytes of each row of a tile, a box of a tensor map; a stage of the ring eight of them, one for each of
//   the warps that multiply. A warp requests: weights from before the previous kernel of the stream has finished, activations
//   behind it.
// - mma.sync: weights are the 16 rows of an instruction, tokens its 8 columns, and ldmatrix reads both from boxes that the
//   copy engine swizzled. A W4 word of ldmatrix has in its low and high halves what the instruction wants of two pieces of
//   k. The sums of a group are scaled and added to the total, in integers.
// - Two more warps add up what the eight have found, and store it while those go on with the next tile.
//
// Not supported: W4 group (its sums are floats), rows that are no multiple of 128 bytes, or too long to keep.
#pragma once
#include "epilogue.cuh"
#include "mma.cuh"
#include "warpgroup.cuh"

#ifdef WARPGROUP_MMA

namespace resident {

using warpgroup::copy_tile;

constexpr u32 WARPS = RESIDENT_WARPS; // those that multiply
constexpr u32 ROWS = RESIDENT_TILE_ROWS;
constexpr u32 TOKENS = RESIDENT_TOKENS;
constexpr u32 N_TILES = TOKENS / 8;
constexpr u32 BOX_BYTES = 128; // of a row
constexpr u32 CHUNK_BYTES = ROWS * BOX_BYTES;
constexpr u32 X_BOX_BYTES = TOKENS * BOX_BYTES;
constexpr u32 STAGE_BYTES = WARPS * CHUNK_BYTES;
constexpr u32 MAX_STAGES = RESIDENT_MAX_STAGES;
// Tiles whose number and scales are in shared memory: a stage may be a tile, and sums of two wait to be stored.
constexpr u32 SLOTS = MAX_STAGES + 4;

struct Control {
  u64 full[MAX_STAGES], empty[MAX_STAGES], drawn[SLOTS], sums_full[2], sums_empty[2], x_full;
  u32 tiles[SLOTS];
};

// Position in a ring, and how often it went round.
struct Turn {
  u32 slot = 0, parity = 0;
  DEVICE void advance(u32 size) {
    if (++slot == size) slot = 0, parity ^= 1;
  }
};

struct Memory {
  u8 *ring, *x, *scales;
  int4 *sums; // [2][WARPS][N_TILES][WARP]
  Control *control;
  DEVICE Memory(const ResidentParams &p, u8 *dynamic) {
    ring = dynamic;
    x = ring + p.stages * STAGE_BYTES;
    sums = (int4 *)(x + p.x_boxes * X_BOX_BYTES);
    scales = (u8 *)(sums + 2 * WARPS * N_TILES * WARP);
    control = (Control *)(scales + SLOTS * p.scale_bytes);
  }
};

struct Tile {
  u32 index, segment, row0, chunks;
  bool w8;
  DEVICE bool find(const LinearParams &p) {
    if (index >= p.tiles) return false;
    segment = 0;
    while (segment + 1 < p.segment_count && index >= p.segments[segment + 1].first_tile) segment++;
    const LinearSegment &s = p.segments[segment];
    row0 = (index - s.first_tile) * ROWS;
    chunks = s.row_bytes / BOX_BYTES;
    w8 = s.format == FORMAT_W8;
    return true;
  }
};

// The group scales of a tile, in a copy of whole 16 bytes: tensors start and end at multiples of 256.
struct GroupBytes {
  const u8 *from;
  u32 shift, bytes; // from there to the first scale, and in all
  DEVICE GroupBytes(const LinearSegment &s, u32 row0) {
    const u8 *first = (const u8 *)s.group_scale + (u64)row0 * s.groups;
    shift = (u32)(u64)first & 15;
    from = first - shift;
    bytes = s.format == FORMAT_W8 ? 0 : (shift + min(ROWS, s.out_features - row0) * s.groups + 15) & ~15u;
  }
};

DEVICE void request_x(const ResidentParams &p, const Memory &memory) {
  pdl_wait();
  u64 *full = &memory.control->x_full;
  if (lane_id() == 0) barrier_arrive_expect(full, p.x_boxes * X_BOX_BYTES);
  __syncwarp();
  for (u32 i = lane_id(); i < p.x_boxes; i += WARP)
    copy_tile(smem_address(memory.x + i * X_BOX_BYTES), &p.x, i * BOX_BYTES, 0, full);
}

// The warp that requests.
DEVICE void produce(const ResidentParams &p, const Memory &memory) {
  Control &control = *memory.control;
  u64 policy = evict_first_policy();
  u32 lane = lane_id(), requested = 0;
  Turn turn, place;
  Tile tile;
  for (tile.index = blockIdx.x;; place.advance(SLOTS)) {
    bool there = tile.find(p.linear);
    if (lane == 0) {
      control.tiles[place.slot] = tile.index;
      barrier_arrive(&control.drawn[place.slot]);
    }
    if (!there) break;
    GroupBytes scales(p.linear.segments[tile.segment], tile.row0);
    u32 draw = 0;
    for (u32 at = 0; at < tile.chunks; at += WARPS, turn.advance(p.stages)) {
      u64 *full = &control.full[turn.slot];
      if (requested++ == p.stages) request_x(p, memory);
      if (lane == 0 && at + WARPS >= tile.chunks) draw = atomicAdd(p.linear.draws, 1);
      u32 chunks = min(WARPS, tile.chunks - at);
      barrier_wait(&control.empty[turn.slot], turn.parity ^ 1);
      if (lane == 0) barrier_arrive_expect(full, chunks * CHUNK_BYTES + (at == 0 ? scales.bytes : 0));
      __syncwarp();
      if (lane < chunks)
        copy_tile(smem_address(memory.ring + turn.slot * STAGE_BYTES + lane * CHUNK_BYTES), &p.weights[tile.segment],
                 (at + lane) * BOX_BYTES, tile.row0, full, policy);
      if (lane == WARPS && at == 0 && scales.bytes)
        copy_bulk(smem_address(memory.scales + place.slot * p.scale_bytes), scales.from, scales.bytes, full, policy);
    }
    // There are as many draws as tiles: whoever has the last one leaves the counter as it was.
    if (lane == 0 && draw == p.linear.tiles - 1) *p.linear.draws = 0;
    tile.index = gridDim.x + __shfl_sync(FULL_MASK, draw, 0);
  }
  if (requested <= p.stages) request_x(p, memory);
  pdl_launch_dependents();
}

// Where this lane's rows of a box start. Columns from 32 i on are at that address, of which 32 i flips bits: swizzled
// boxes have 16-byte piece c of row r at c ^ r % 8.
struct Lane {
  u32 weights, x;
  DEVICE Lane() {
    u32 lane = lane_id(), swizzle = lane % 8;
    weights = lane % 16 * BOX_BYTES + (lane / 16 ^ swizzle) * 16;
    x = (lane % 8 + lane / 16 * 8) * BOX_BYTES + (lane / 8 % 2 ^ swizzle) * 16;
  }
};

// 32 columns of all tokens.
DEVICE void load_x(u32 (&b)[N_TILES][2], u32 address) {
#pragma unroll
  for (u32 pair = 0; pair < N_TILES / 2; pair++) {
    u32 r[4];
    load_matrices(r, address + pair * 16 * BOX_BYTES);
    b[2 * pair][0] = r[0], b[2 * pair][1] = r[1];
    b[2 * pair + 1][0] = r[2], b[2 * pair + 1][1] = r[3];
  }
}

template <bool X_UNSIGNED> DEVICE void chunk_w8(u32 weights, u32 x, int (&acc)[N_TILES][4]) {
#pragma unroll
  for (u32 i = 0; i < BOX_BYTES / 32; i++) {
    u32 a[4], b[N_TILES][2];
    load_matrices(a, weights ^ i * 32);
    load_x(b, x ^ i * 32);
#pragma unroll
    for (u32 n = 0; n < N_TILES; n++) mma_int8<false, X_UNSIGNED>(acc[n], a[0], a[1], a[2], a[3], b[n][0], b[n][1]);
  }
}

// The group scales of a tile.
struct GroupScales {
  const u8 *first; // of row lane / 4
  u32 groups, pieces;
  // `group` is that of columns from 128 `piece` on.
  DEVICE u32 group(u32 piece) const { return min(pieces == 1 ? piece : piece / pieces, groups - 1); }
  DEVICE int at(u32 row, u32 group) const { return first[row * groups + group]; }
};

// Two boxes of x, with the pieces of 128 columns from `piece` on.
template <bool X_UNSIGNED>
DEVICE void chunk_w4(u32 weights, u32 x, const GroupScales &scales, u32 piece, int (&acc)[N_TILES][4]) {
  int sum[2][N_TILES][4] = {};
#pragma unroll
  for (u32 i = 0; i < BOX_BYTES / 32; i++) {
    u32 packed[4];
    load_matrices(packed, weights ^ i * 32);
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      u32 low[2], high[2], b[N_TILES][2];
      load_x(b, x + i / 2 * X_BOX_BYTES ^ (i % 2 * 64 + j * 32));
      unpack_int4(packed[2 * j], low[0], high[0]);
      unpack_int4(packed[2 * j + 1], low[1], high[1]);
#pragma unroll
      for (u32 n = 0; n < N_TILES; n++)
        mma_int8<false, X_UNSIGNED>(sum[i / 2][n], low[0], low[1], high[0], high[1], b[n][0], b[n][1]);
    }
  }
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    u32 group = scales.group(piece + half);
    int top = scales.at(0, group), bottom = scales.at(8, group);
#pragma unroll
    for (u32 n = 0; n < N_TILES; n++)
#pragma unroll
      for (int c = 0; c < 4; c++) acc[n][c] += (sum[half][n][c] >> 4) * (c < 2 ? top : bottom);
  }
}

// Follows the tiles that the producer draws.
struct Follower {
  Turn place;
  Tile tile;
  DEVICE bool find(const ResidentParams &p, const Memory &memory) {
    barrier_wait(&memory.control->drawn[place.slot], place.parity);
    tile.index = memory.control->tiles[place.slot];
    return tile.find(p.linear);
  }
};

template <bool X_UNSIGNED> DEVICE void consume(const ResidentParams &p, const Memory &memory) {
  Control &control = *memory.control;
  Lane lane;
  Turn turn, buffer;
  Follower follower;
  u32 ring = smem_address(memory.ring) + warp_id() * CHUNK_BYTES + lane.weights, kept = smem_address(memory.x) + lane.x;
  barrier_wait(&control.x_full, 0);
  for (; follower.find(p, memory); follower.place.advance(SLOTS), buffer.advance(2)) {
    const Tile &tile = follower.tile;
    const LinearSegment &s = p.linear.segments[tile.segment];
    const u8 *scales = memory.scales + follower.place.slot * p.scale_bytes + GroupBytes(s, tile.row0).shift;
    GroupScales groups{scales + lane_id() / 4 * s.groups, s.groups, s.group_size / 128};
    u32 count = tile.chunks;
    bool w8 = tile.w8;
    int acc[N_TILES][4] = {};
    for (u32 at = warp_id(); at < count + warp_id(); at += WARPS, turn.advance(p.stages)) {
      barrier_wait(&control.full[turn.slot], turn.parity);
      if (at < count) {
        u32 weights = ring + turn.slot * STAGE_BYTES;
        if (w8)
          chunk_w8<X_UNSIGNED>(weights, kept + at * X_BOX_BYTES, acc);
        else
          chunk_w4<X_UNSIGNED>(weights, kept + at * 2 * X_BOX_BYTES, groups, 2 * at, acc);
      }
      __syncwarp();
      if (lane_id() == 0) barrier_arrive(&control.empty[turn.slot]);
    }
    barrier_wait(&control.sums_empty[buffer.slot], buffer.parity ^ 1);
    int4 *to = memory.sums + (buffer.slot * WARPS + warp_id()) * N_TILES * WARP + lane_id();
#pragma unroll
    for (u32 n = 0; n < N_TILES; n++) to[n * WARP] = make_int4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]);
    barrier_arrive(&control.sums_full[buffer.slot]);
  }
}

DEVICE void add(int4 &to, int4 v) { to.x += v.x, to.y += v.y, to.z += v.z, to.w += v.w; }

// One of the warps that add up and store: eight tokens of every tile.
DEVICE void finish(const ResidentParams &p, const Memory &memory, u32 n) {
  Control &control = *memory.control;
  Follower follower;
  Turn buffer;
  u32 token = n * 8 + lane_id() % 4 * 2;
  pdl_wait();
  float x_scale[2];
#pragma unroll
  for (u32 c = 0; c < 2; c++) x_scale[c] = token + c < p.linear.rows ? p.linear.x_scale[token + c] : 0.0f;
  for (; follower.find(p, memory); follower.place.advance(SLOTS), buffer.advance(2)) {
    const LinearSegment &s = p.linear.segments[follower.tile.segment];
    u32 row = follower.tile.row0 + lane_id() / 4;
    float scale[2];
#pragma unroll
    for (u32 half = 0; half < 2; half++) scale[half] = row + half * 8 < s.out_features ? s.scale[row + half * 8] : 0.0f;
    barrier_wait(&control.sums_full[buffer.slot], buffer.parity);
    const int4 *from = memory.sums + (buffer.slot * WARPS * N_TILES + n) * WARP + lane_id();
    int4 sum = from[0];
#pragma unroll
    for (u32 w = 1; w < WARPS; w++) add(sum, from[w * N_TILES * WARP]);
    barrier_arrive(&control.sums_empty[buffer.slot]);
    int values[2][2] = {{sum.x, sum.y}, {sum.z, sum.w}};
#pragma unroll
    for (u32 half = 0; half < 2; half++)
#pragma unroll
      for (u32 c = 0; c < 2; c++)
        if (row + half * 8 < s.out_features && token + c < p.linear.rows)
          store_integer(s, token + c, row + half * 8, values[half][c], x_scale[c], scale[half]);
  }
}

DEVICE void init(const ResidentParams &p, Control &control) {
  for (u32 i = 0; i < p.stages; i++) {
    barrier_init(&control.full[i], 1);
    barrier_init(&control.empty[i], WARPS);
  }
  for (u32 i = 0; i < SLOTS; i++) barrier_init(&control.drawn[i], 1);
  // Every lane arrives behind what it stored or read itself: for one that arrives for its warp, compute-sanitizer does not see
  // that the others have met it at __syncwarp.
  for (u32 i = 0; i < 2; i++) {
    barrier_init(&control.sums_full[i], WARPS * WARP);
    barrier_init(&control.sums_empty[i], N_TILES * WARP);
  }
  barrier_init(&control.x_full, 1);
  barrier_init_fence();
}

} // namespace resident

#endif

template <bool X_UNSIGNED> DEVICE void linear_resident(const ResidentParams &p) {
#ifdef WARPGROUP_MMA
  using namespace resident;
  extern __shared__ __align__(1024) u8 dynamic[];
  Memory memory(p, dynamic);
  if (threadIdx.x == 0) init(p, *memory.control);
  __syncthreads();
  if (warp_id() < WARPS)
    consume<X_UNSIGNED>(p, memory);
  else if (warp_id() == WARPS)
    produce(p, memory);
  else
    finish(p, memory, warp_id() - WARPS - 1);
#endif
}
