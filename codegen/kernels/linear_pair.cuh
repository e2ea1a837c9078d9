// Plan kernel `linear` for 8-bit activations and 5 to 16 rows, on Hopper: W8 and W4 two-level, by pairs of blocks.
//
// Bound by reading the weights once: 21504 x 4096 of W8 is 88 MB, 19.7 us at an H200's 4.47 TB/s.
//
// - A pair of blocks, which is a cluster, takes tiles of up to 64 weight rows in turn; each block has half of k. So activations
//   are read from L2 once for 64 rows, a quarter of the weights' bytes where these are W8, and rows of any length have the
//   same parts. Tiles have as many rows as share out most evenly.
// - A stage of the ring is two boxes of 128 bytes of every row, and the activations for them. One thread requests: weights
//   from before the previous kernel of the stream has finished, activations behind it.
// - mma.sync: weights are the 16 rows of an instruction, tokens its 8 columns, and ldmatrix reads both from boxes that the
//   copy engine swizzled. A W4 word of ldmatrix has in its low and high halves what the instruction wants of two pieces of
//   k. The sums of a group are scaled and added to the total, in integers. A warp has 16 rows of one of the two boxes.
// - A warp sends its sums of eight tokens to either block, which adds up what it gets and stores it. What is sent counts its
//   bytes at a barrier there, so nothing is fenced. Sums are integers: their order does not matter.
//
// Not supported: W4 group (its sums are floats), rows that are no multiple of 128 bytes.
#pragma once
#include "epilogue.cuh"
#include "mma.cuh"
#include "segment.cuh"
#include "warpgroup.cuh"

#ifdef WARPGROUP_MMA

namespace pair {

using warpgroup::copy_tile;

constexpr u32 CLUSTER = PAIR_CLUSTER;
constexpr u32 TOKENS = PAIR_TOKENS;
constexpr u32 N_TILES = TOKENS / 8;
constexpr u32 BOXES = PAIR_BOXES; // of weights, a stage
constexpr u32 BOX_BYTES = 128;    // of a row
constexpr u32 X_BOX_BYTES = TOKENS * BOX_BYTES;
constexpr u32 MAX_STAGES = PAIR_MAX_STAGES;
constexpr u32 WARPS = BOXES * PAIR_MAX_ROW_GROUPS; // at most, that multiply
constexpr u32 PARTS = CLUSTER * BOXES;             // of a sum
static_assert(CLUSTER == N_TILES, "a block ends the sums of eight tokens");
static_assert(BOXES == 2, "a warp ends half of the sums of 16 rows");

struct Control {
  u64 full[MAX_STAGES], empty[MAX_STAGES], sums_full[2], scales_empty[2];
};

// Position in a ring, and how often it went round.
struct Turn {
  u32 slot = 0, parity = 0;
  DEVICE void advance(u32 size) {
    if (++slot == size) slot = 0, parity ^= 1;
  }
};

// Bytes of a box of weights, sums of a tile that a block ends, and where things are.
struct Memory {
  u32 box_bytes, sums_count;
  u8 *ring, *scales;
  int4 *sums; // [2][PARTS][row groups][WARP]
  Control *control;
  DEVICE Memory(const PairParams &p, u8 *dynamic) {
    box_bytes = p.row_groups * 16 * BOX_BYTES;
    sums_count = PARTS * p.row_groups * WARP;
    ring = dynamic;
    sums = (int4 *)(ring + p.stages * p.stage_bytes);
    scales = (u8 *)(sums + 2 * sums_count);
    control = (Control *)(scales + 2 * p.scale_bytes);
  }
};

// A tile, and the stages of it that are this block's.
struct Tile {
  u32 segment, row0, first, end;
  bool w8;
  DEVICE bool find(const PairParams &p, u32 index, u32 rank) {
    const LinearParams &linear = p.linear;
    if (index >= linear.tiles) return false;
    segment = segment_of(linear, index);
    const LinearSegment &s = linear.segments[segment];
    u32 stages = ceil_div(s.row_bytes, BOXES * BOX_BYTES);
    row0 = (index - s.first_tile) * p.row_groups * 16;
    first = stages * rank / CLUSTER, end = stages * (rank + 1) / CLUSTER;
    w8 = s.format == FORMAT_W8;
    return true;
  }
};

// The group scales of a tile, in a copy of whole 16 bytes: tensors start and end at multiples of 256.
struct GroupBytes {
  const u8 *from;
  u32 shift, bytes; // from there to the first scale, and in all
  DEVICE GroupBytes(const LinearSegment &s, u32 row0, u32 rows) {
    const u8 *first = (const u8 *)s.group_scale + (u64)row0 * s.groups;
    shift = (u32)(u64)first & 15;
    from = first - shift;
    bytes = s.format == FORMAT_W8 ? 0 : (shift + min(rows, s.out_features - row0) * s.groups + 15) & ~15u;
  }
};

// The thread that requests.
struct Producer {
  const PairParams &p;
  const Memory &memory;
  u64 policy;
  u32 rank;

  // Weights of a stage, and the scales of a tile with its first one. `place` is that of its scales.
  DEVICE void weights(const Tile &tile, u32 at, Turn turn, Turn place) {
    Control &control = *memory.control;
    const LinearSegment &s = p.linear.segments[tile.segment];
    u64 *full = &control.full[turn.slot];
    u32 to = smem_address(memory.ring + turn.slot * p.stage_bytes), wide = tile.w8 ? 1 : 2;
    GroupBytes scales(s, tile.row0, p.row_groups * 16);
    u32 once = at == tile.first ? scales.bytes : 0;
    barrier_wait(&control.empty[turn.slot], turn.parity ^ 1);
    if (once) barrier_wait(&control.scales_empty[place.slot], place.parity ^ 1);
    barrier_arrive_expect(full, BOXES * (memory.box_bytes + wide * X_BOX_BYTES) + once);
#pragma unroll
    for (u32 i = 0; i < BOXES; i++)
      copy_tile(to + i * memory.box_bytes, &p.weights[tile.segment], (at * BOXES + i) * BOX_BYTES, tile.row0, full, policy);
    if (once) copy_bulk(smem_address(memory.scales + place.slot * p.scale_bytes), scales.from, once, full, policy);
  }

  DEVICE void x(const Tile &tile, u32 at, Turn turn) {
    u64 *full = &memory.control->full[turn.slot];
    u32 to = smem_address(memory.ring + turn.slot * p.stage_bytes) + BOXES * memory.box_bytes;
    u32 boxes = tile.w8 ? BOXES : 2 * BOXES;
    for (u32 i = 0; i < boxes; i++) copy_tile(to + i * X_BOX_BYTES, &p.x, (at * boxes + i) * BOX_BYTES, 0, full);
  }

  DEVICE void run() {
    u32 step = gridDim.x / CLUSTER, requested = 0;
    Tile tile, first;
    Turn turn, late, place;
    if (!first.find(p, blockIdx.x / CLUSTER, rank)) return;
    // Stages of the first tile whose weights are requested ahead of their activations.
    u32 early = min(first.end - first.first, p.stages);
    if (early == 0) pdl_wait();
    for (u32 index = blockIdx.x / CLUSTER; tile.find(p, index, rank); index += step, place.advance(2))
      for (u32 at = tile.first; at < tile.end; at++, turn.advance(p.stages)) {
        weights(tile, at, turn, place);
        if (++requested > early) x(tile, at, turn);
        if (requested != early) continue;
        pdl_wait();
        for (u32 i = 0; i < early; i++, late.advance(p.stages)) x(first, first.first + i, late);
      }
    pdl_launch_dependents();
  }
};

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
  int sum[2][N_TILES][4] = {}, top[2], bottom[2];
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    u32 group = scales.group(piece + half);
    top[half] = scales.at(0, group), bottom[half] = scales.at(8, group);
  }
#pragma unroll
  for (u32 i = 0; i < BOX_BYTES / 32; i++) {
    u32 packed[4];
    load_matrices(packed, weights ^ i * 32);
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      u32 low[2], high[2], b[N_TILES][2];
      load_x(b, x + i / 2 * X_BOX_BYTES ^ (i % 2 * 64 + j * 32));
      low[0] = high_nibbles(packed[2 * j] << 4), high[0] = high_nibbles(packed[2 * j]);
      low[1] = high_nibbles(packed[2 * j + 1] << 4), high[1] = high_nibbles(packed[2 * j + 1]);
#pragma unroll
      for (u32 n = 0; n < N_TILES; n++)
        mma_int8<false, X_UNSIGNED>(sum[i / 2][n], low[0], low[1], high[0], high[1], b[n][0], b[n][1]);
    }
  }
#pragma unroll
  for (u32 half = 0; half < 2; half++)
#pragma unroll
    for (u32 n = 0; n < N_TILES; n++)
#pragma unroll
      for (int c = 0; c < 4; c++) acc[n][c] += (sum[half][n][c] >> 4) * (c < 2 ? top[half] : bottom[half]);
}

// Sixteen bytes into the shared memory of block `rank`, counted at its barrier.
DEVICE void send(u32 rank, const int4 *mine, const int (&v)[4], const u64 *barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::
                   "r"(remote_address(mine, rank)),
               "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3]), "r"(remote_address(barrier, rank))
               : "memory");
}

// What a lane ends: a row and two tokens of a tile.
struct Ending {
  u32 row, token;
  DEVICE Ending(u32 rank) : row(warp_id() * 8 + lane_id() / 4), token(rank * 8 + lane_id() % 4 * 2) {}
  // Of parts that are `part` vectors apart.
  DEVICE int2 sum(const int4 *sums, u32 part) const {
    const int2 *from = (const int2 *)(sums + warp_id() / 2 * WARP + lane_id()) + warp_id() % 2;
    int2 sum = from[0];
#pragma unroll
    for (u32 i = 1; i < PARTS; i++) {
      int2 v = from[i * part * 2];
      sum.x += v.x, sum.y += v.y;
    }
    return sum;
  }
};

template <bool X_UNSIGNED> DEVICE void consume(const PairParams &p, const Memory &memory, u32 rank) {
  Control &control = *memory.control;
  const LinearParams &linear = p.linear;
  Lane lane;
  Ending ending(rank);
  Turn turn, buffer;
  u32 group = warp_id() % p.row_groups, box = warp_id() / p.row_groups;
  u32 ring = smem_address(memory.ring) + lane.weights + box * memory.box_bytes + group * 16 * BOX_BYTES;
  u32 x_ring = smem_address(memory.ring) + lane.x + BOXES * memory.box_bytes;
  pdl_wait();
  float x_scale[2];
#pragma unroll
  for (u32 c = 0; c < 2; c++) x_scale[c] = ending.token + c < linear.rows ? linear.x_scale[ending.token + c] : 0.0f;
  Tile tile;
  for (u32 index = blockIdx.x / CLUSTER; tile.find(p, index, rank); index += gridDim.x / CLUSTER, buffer.advance(2)) {
    const LinearSegment &s = linear.segments[tile.segment];
    u32 row = tile.row0 + ending.row;
    float scale = row < s.out_features ? s.scale[row] : 0.0f;
    const u8 *scales = memory.scales + buffer.slot * p.scale_bytes + GroupBytes(s, tile.row0, 0).shift;
    GroupScales groups{scales + (group * 16 + lane_id() / 4) * s.groups, s.groups, s.group_size / 128};
    int acc[N_TILES][4] = {};
    for (u32 at = tile.first; at < tile.end; at++, turn.advance(p.stages)) {
      u32 weights = ring + turn.slot * p.stage_bytes, x = x_ring + turn.slot * p.stage_bytes;
      barrier_wait(&control.full[turn.slot], turn.parity);
      if (tile.w8)
        chunk_w8<X_UNSIGNED>(weights, x + box * X_BOX_BYTES, acc);
      else
        chunk_w4<X_UNSIGNED>(weights, x + box * 2 * X_BOX_BYTES, groups, (at * BOXES + box) * 2, acc);
      __syncwarp();
      if (lane_id() == 0) barrier_arrive(&control.empty[turn.slot]);
    }
    // Every lane arrives behind what it has read itself: for one that arrives for its warp, compute-sanitizer does not see that
    // the others have met it at __syncwarp.
    barrier_arrive(&control.scales_empty[buffer.slot]);
    int4 *sums = memory.sums + buffer.slot * memory.sums_count;
    u64 *sums_full = &control.sums_full[buffer.slot];
#pragma unroll
    for (u32 n = 0; n < N_TILES; n++)
      send(n, sums + ((rank * BOXES + box) * p.row_groups + group) * WARP + lane_id(), acc[n], sums_full);
    barrier_wait_cluster(sums_full, buffer.parity);
    int2 sum = ending.sum(sums, p.row_groups * WARP);
    // For the tile after the next one. Whoever sends sums of that has got those of the next one from every warp, each of which
    // has read this one's before.
    if (threadIdx.x == 0) barrier_arrive_expect(sums_full, memory.sums_count * sizeof(int4));
    if (row >= s.out_features) continue;
    if (ending.token < linear.rows) store_integer(s, ending.token, row, sum.x, x_scale[0], scale);
    if (ending.token + 1 < linear.rows) store_integer(s, ending.token + 1, row, sum.y, x_scale[1], scale);
  }
}

DEVICE void init(const PairParams &p, const Memory &memory) {
  Control &control = *memory.control;
  u32 warps = BOXES * p.row_groups;
  ring_init(control.full, control.empty, p.stages, 1, warps);
  ring_init(control.sums_full, control.scales_empty, 2, 1, warps * WARP);
  for (u32 i = 0; i < 2; i++) barrier_arrive_expect(&control.sums_full[i], memory.sums_count * sizeof(int4));
  barrier_init_fence();
}

} // namespace pair

#endif

template <bool X_UNSIGNED> DEVICE void linear_pair(const PairParams &p) {
#ifdef WARPGROUP_MMA
  using namespace pair;
  extern __shared__ __align__(1024) u8 dynamic[];
  Memory memory(p, dynamic);
  u32 rank = cluster_rank();
  if (threadIdx.x == 0) init(p, memory);
  cluster_barrier();
  if (warp_id() < BOXES * p.row_groups)
    consume<X_UNSIGNED>(p, memory, rank);
  else if (threadIdx.x == WARPS * WARP)
    Producer{p, memory, evict_first_policy(), rank}.run();
#endif
}
