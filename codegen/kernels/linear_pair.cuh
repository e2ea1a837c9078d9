// Plan kernel `linear` for 8-bit activations and 5 to 64 rows, on Hopper: W8 and W4 two-level, by pairs of blocks.
//
// Bound by reading the weights once: 21504 x 4096 of W8 is 88 MB, 19.7 us at an H200's 4.47 TB/s.
//
// - A pair of blocks, which is a cluster, takes tiles of up to 64 weight rows in turn; each block has half of k. So activations
//   are read from L2 once for 64 rows, a quarter of the weights' bytes where these are W8, and rows of any length have the
//   same parts. Tiles have as many rows as share out most evenly.
// - A stage of the ring is two boxes of 128 bytes of every row, and the activations for them. One thread requests: weights
//   from before the previous kernel of the stream has finished, activations behind it.
// - Products are those of pair_multiply.cuh. A warp has 16 rows of one of the two boxes.
// - Warps that multiply leave their sums in shared memory and go on with the next tile. Others, one for 16 rows, add up those of
//   both boxes, have the copy engine send those of half of the tokens to the other block, and store the other half with what comes
//   from there. The engine counts a copy at a barrier at once; st.async takes a microsecond for a tile, 16 bytes at a time. Sums
//   are integers: their order does not matter.
//
// Not supported: W4 group (its sums are floats), rows that are no multiple of 128 bytes.
#pragma once
#include "epilogue.cuh"
#include "pair_multiply.cuh"

#ifdef WARPGROUP_MMA

namespace pair {

using warpgroup::copy_tiles;

constexpr u32 CLUSTER = PAIR_CLUSTER;
constexpr u32 BOXES = PAIR_BOXES; // of weights, a stage
constexpr u32 MAX_STAGES = PAIR_MAX_STAGES;
constexpr u32 GROUPS = PAIR_MAX_ROW_GROUPS;
constexpr u32 WARPS = BOXES * GROUPS;          // at most, that multiply
constexpr u32 SCALE_TILES = PAIR_SCALE_TILES;  // whose group scales are there

// `sums` are this block's own, `others` those that the other block sends.
struct Control {
  u64 full[MAX_STAGES], empty[MAX_STAGES], scales_empty[SCALE_TILES];
  u64 sums_full[GROUPS], sums_empty[GROUPS], others_full[GROUPS], others_empty[GROUPS];
};

// Position in a ring, and how often it went round.
struct Turn {
  u32 slot = 0, parity = 0;
  DEVICE void advance(u32 size) {
    if (++slot == size) slot = 0, parity ^= 1;
  }
};

// Bytes of a box of weights, and where things are. A warp ends vectors of TILES times eight tokens.
template <u32 TILES> struct Memory {
  static constexpr u32 VECTORS = TILES * WARP, BYTES = VECTORS * sizeof(int4); // of 16 rows and half of the tokens
  u32 box_bytes, groups;
  u8 *ring, *scales;
  int4 *sums; // [box][row group][half of the tokens][VECTORS], then others' [row group][VECTORS]
  Control *control;
  DEVICE Memory(const PairParams &p, u8 *dynamic) {
    groups = p.row_groups;
    box_bytes = groups * 16 * BOX_BYTES;
    ring = dynamic;
    sums = (int4 *)(ring + p.stages * p.stage_bytes);
    scales = (u8 *)(sums + (BOXES * CLUSTER + 1) * groups * VECTORS);
    control = (Control *)(scales + SCALE_TILES * p.scale_bytes);
  }
  DEVICE int4 *own(u32 box, u32 group, u32 half) const { return sums + ((box * groups + group) * CLUSTER + half) * VECTORS; }
  DEVICE int4 *others(u32 group) const { return sums + (BOXES * CLUSTER * groups + group) * VECTORS; }
};

// The tiles of a pair, and the stages of them that are this block's. Parameters that are indexed at run time are slow to read: what
// tiles of a segment share is kept in registers.
struct Tile {
  u32 index, segment, row0, first, end;
  u32 first_tile, tiles_end = 0;
  bool w8;
  DEVICE bool find(const PairParams &p, u32 rank) {
    const LinearParams &linear = p.linear;
    if (index >= linear.tiles) return false;
    if (index >= tiles_end) enter(linear, rank);
    row0 = (index - first_tile) * p.row_groups * 16;
    return true;
  }
  DEVICE void enter(const LinearParams &linear, u32 rank) {
    segment = segment_of(linear, index);
    const LinearSegment &s = linear.segments[segment];
    u32 stages = ceil_div(s.row_bytes, BOXES * BOX_BYTES);
    first_tile = s.first_tile;
    tiles_end = segment + 1 < linear.segment_count ? linear.segments[segment + 1].first_tile : linear.tiles;
    first = stages * rank / CLUSTER, end = stages * (rank + 1) / CLUSTER;
    w8 = s.format == FORMAT_W8;
  }
  static DEVICE Tile start() {
    Tile tile;
    tile.index = blockIdx.x / CLUSTER;
    return tile;
  }
  DEVICE void next() { index += gridDim.x / CLUSTER; }
};

// The thread that requests.
template <u32 TOKENS> struct Producer {
  static constexpr u32 X_BOX_BYTES = TOKENS * BOX_BYTES;
  const PairParams &p;
  const Memory<TOKENS / 16> &memory;
  u64 policy;
  u32 rank;

  // Weights of a stage, and the scales of a tile with its first one. `place` is that of its scales.
  DEVICE void weights(const Tile &tile, u32 at, Turn turn, Turn place) {
    Control &control = *memory.control;
    u64 *full = &control.full[turn.slot];
    u32 to = smem_address(memory.ring + turn.slot * p.stage_bytes), wide = tile.w8 ? 1 : 2;
    bool once = at == tile.first && !tile.w8;
    GroupBytes scales;
    if (once) {
      const LinearSegment &s = p.linear.segments[tile.segment];
      scales = GroupBytes(s, tile.row0, min(p.row_groups * 16, s.out_features - tile.row0));
    }
    barrier_wait(&control.empty[turn.slot], turn.parity ^ 1);
    if (once) barrier_wait(&control.scales_empty[place.slot], place.parity ^ 1);
    barrier_arrive_expect(full, BOXES * (memory.box_bytes + wide * X_BOX_BYTES) + scales.bytes);
    copy_tiles(to, &p.weights[tile.segment], tile.row0, at * BOXES, full, policy);
    if (once) copy_bulk(smem_address(memory.scales + place.slot * p.scale_bytes), scales.from, scales.bytes, full, policy);
  }

  DEVICE void x(const Tile &tile, u32 at, Turn turn) {
    u64 *full = &memory.control->full[turn.slot];
    u32 to = smem_address(memory.ring + turn.slot * p.stage_bytes) + BOXES * memory.box_bytes;
    u32 wide = tile.w8 ? 1 : 2;
    for (u32 i = 0; i < wide; i++) copy_tiles(to + i * BOXES * X_BOX_BYTES, &p.x, 0, (at * wide + i) * BOXES, full);
  }

  DEVICE void run() {
    u32 requested = 0;
    Tile tile = Tile::start(), first = tile;
    Turn turn, late, place;
    if (!first.find(p, rank)) return;
    // Stages of the first tile whose weights are requested ahead of their activations.
    u32 early = min(first.end - first.first, p.stages);
    if (early == 0) pdl_wait();
    for (; tile.find(p, rank); tile.next(), place.advance(SCALE_TILES))
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

// From this block's shared memory to the same place of block `rank`, counted at its barrier.
DEVICE void send(u32 rank, const int4 *to, const int4 *from, u32 bytes, const u64 *barrier) {
  asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
                   "r"(remote_address(to, rank)),
               "r"(smem_address(from)), "r"(bytes), "r"(remote_address(barrier, rank))
               : "memory");
}

// A warp that multiplies.
template <u32 TOKENS, bool X_UNSIGNED> DEVICE void consume(const PairParams &p, const Memory<TOKENS / 16> &memory, u32 rank) {
  constexpr u32 X_BOX_BYTES = TOKENS * BOX_BYTES, TILES = TOKENS / 16;
  Control &control = *memory.control;
  Lane lane;
  Turn turn, sums, place;
  u32 group = warp_id() % p.row_groups, box = warp_id() / p.row_groups, segment = ~0u;
  u32 ring = smem_address(memory.ring) + lane.weights + box * memory.box_bytes + group * 16 * BOX_BYTES;
  u32 x_ring = smem_address(memory.ring) + BOXES * memory.box_bytes;
  GroupScales groups;
  u32 scales_at = 0;
  for (Tile tile = Tile::start(); tile.find(p, rank); tile.next(), sums.advance(1), place.advance(SCALE_TILES)) {
    if (tile.segment != segment) {
      segment = tile.segment;
      const LinearSegment &s = p.linear.segments[segment];
      groups.groups = s.groups, groups.pieces = s.group_size / 128;
      scales_at = GroupBytes(s, 0, 0).shift + (group * 16 + lane_id() / 4) * s.groups;
    }
    groups.first = memory.scales + place.slot * p.scale_bytes + scales_at;
    int acc[TOKENS / 2] = {};
    for (u32 at = tile.first; at < tile.end; at++, turn.advance(p.stages)) {
      u32 weights = ring + turn.slot * p.stage_bytes, x = x_ring + turn.slot * p.stage_bytes, piece = (at * BOXES + box) * 2;
      barrier_wait(&control.full[turn.slot], turn.parity);
      if constexpr (TOKENS > FEW_TOKENS) {
        if (tile.w8)
          chunk_w8_many<TOKENS, X_UNSIGNED>(weights, x + box * X_BOX_BYTES, acc);
        else
          chunk_w4_many<TOKENS, X_UNSIGNED>(weights, x + box * 2 * X_BOX_BYTES, groups, piece, acc);
      } else if (tile.w8)
        chunk_w8<X_UNSIGNED>(weights, x + lane.x + box * X_BOX_BYTES, acc);
      else
        chunk_w4<X_UNSIGNED>(weights, x + lane.x + box * 2 * X_BOX_BYTES, groups, piece, acc);
      barrier_arrive(&control.empty[turn.slot]);
    }
    barrier_arrive(&control.scales_empty[place.slot]);
    barrier_wait(&control.sums_empty[group], sums.parity ^ 1);
#pragma unroll
    for (u32 n = 0; n < TOKENS / 8; n++)
      memory.own(box, group, n / TILES)[n % TILES * WARP + lane_id()] =
          make_int4(acc[4 * n], acc[4 * n + 1], acc[4 * n + 2], acc[4 * n + 3]);
    barrier_arrive(&control.sums_full[group]);
  }
}

DEVICE int4 add(int4 a, int4 b) { return make_int4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

// A warp that ends 16 rows of a tile and half of the tokens: of every eight a lane has two of each of two rows.
template <u32 TOKENS> struct Ending {
  static constexpr u32 TILES = TOKENS / 16;
  const PairParams &p;
  const Memory<TILES> &memory;
  u32 group, token;
  float x_scale[TILES][2];

  DEVICE Ending(const PairParams &p, const Memory<TILES> &memory, u32 rank)
      : p(p), memory(memory), group(warp_id() - WARPS - 1), token(rank * TOKENS / 2 + lane_id() % 4 * 2) {
    pdl_wait();
#pragma unroll
    for (u32 n = 0; n < TILES; n++)
#pragma unroll
      for (u32 c = 0; c < 2; c++) {
        u32 t = token + n * 8 + c;
        x_scale[n][c] = t < p.linear.rows ? p.linear.x_scale[t] : 0.0f;
      }
  }

  // Those of both boxes, of half of the tokens.
  DEVICE int4 sum(u32 half, u32 n) const {
    return add(memory.own(0, group, half)[n * WARP + lane_id()], memory.own(1, group, half)[n * WARP + lane_id()]);
  }

  // The other block's half leaves from where it lay.
  DEVICE void send_half(u32 other, u32 parity) const {
    int4 *from = memory.own(0, group, other);
#pragma unroll
    for (u32 n = 0; n < TILES; n++) from[n * WARP + lane_id()] = sum(other, n);
    warpgroup::store_fence();
    __syncwarp();
    if (lane_id() != 0) return;
    barrier_wait(&memory.control->others_empty[group], parity ^ 1);
    send(other, memory.others(group), from, memory.BYTES, &memory.control->others_full[group]);
    warpgroup::store_commit();
  }

  // With an epilogue that is known here stores are not branches, of which each would wait for the one before.
  DEVICE void store(LinearSegment s, u32 epilogue, u32 row, const int4 (&sums)[TILES], const float (&scale)[2]) const {
    s.epilogue = epilogue;
#pragma unroll
    for (u32 n = 0; n < TILES; n++) {
      int sum[4] = {sums[n].x, sums[n].y, sums[n].z, sums[n].w};
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        u32 t = token + n * 8 + i % 2, r = row + i / 2 * 8;
        if (t < p.linear.rows && r < s.out_features) store_integer(s, t, r, sum[i], x_scale[n][i % 2], scale[i / 2]);
      }
    }
  }

  DEVICE void store(const LinearSegment &s, u32 row, const int4 (&sums)[TILES], const float (&scale)[2]) const {
    switch (s.epilogue) {
    case EPILOGUE_STORE: return store(s, EPILOGUE_STORE, row, sums, scale);
    case EPILOGUE_RELU2: return store(s, EPILOGUE_RELU2, row, sums, scale);
    case EPILOGUE_ACCUMULATE: return store(s, EPILOGUE_ACCUMULATE, row, sums, scale);
    case EPILOGUE_ACCUMULATOR: return store(s, EPILOGUE_ACCUMULATOR, row, sums, scale);
    }
  }

  DEVICE void run(u32 rank) {
    Control &control = *memory.control;
    Turn turn;
    LinearSegment s;
    u32 segment = ~0u;
    for (Tile tile = Tile::start(); tile.find(p, rank); tile.next(), turn.advance(1)) {
      if (tile.segment != segment) s = p.linear.segments[segment = tile.segment];
      u32 row = tile.row0 + group * 16 + lane_id() / 4;
      float scale[2];
#pragma unroll
      for (u32 i = 0; i < 2; i++) scale[i] = row + i * 8 < s.out_features ? s.scale[row + i * 8] : 0.0f;
      barrier_wait(&control.sums_full[group], turn.parity);
      send_half(rank ^ 1, turn.parity);
      int4 sums[TILES];
#pragma unroll
      for (u32 n = 0; n < TILES; n++) sums[n] = sum(rank, n);
      if (lane_id() == 0) warpgroup::store_wait_read<0>();
      barrier_arrive(&control.sums_empty[group]);
      barrier_wait(&control.others_full[group], turn.parity);
#pragma unroll
      for (u32 n = 0; n < TILES; n++) sums[n] = add(sums[n], memory.others(group)[n * WARP + lane_id()]);
      __syncwarp();
      // The other block waits for this where it has another tile; if not, it may have ended.
      if (lane_id() == 0 && tile.index + gridDim.x / CLUSTER < p.linear.tiles) {
        barrier_arrive_expect(&control.others_full[group], memory.BYTES);
        barrier_arrive_remote(&control.others_empty[group], rank ^ 1);
      }
      store(s, row, sums, scale);
    }
  }
};

template <u32 TILES> DEVICE void init(const PairParams &p, const Memory<TILES> &memory) {
  static_assert(CLUSTER == 2 && BOXES == 2, "a half of the tokens is a block's, a sum has two boxes");
  Control &control = *memory.control;
  u32 warps = BOXES * p.row_groups;
  // Every lane says what it has read or written: for one that says so for its warp, compute-sanitizer does not see that the others
  // have met it at __syncwarp.
  ring_init(control.full, control.empty, p.stages, 1, warps * WARP);
  for (u32 i = 0; i < SCALE_TILES; i++) barrier_init(&control.scales_empty[i], warps * WARP);
  ring_init(control.sums_full, control.sums_empty, GROUPS, BOXES * WARP, WARP);
  ring_init(control.others_full, control.others_empty, GROUPS, 1, 1);
  for (u32 i = 0; i < GROUPS; i++) barrier_arrive_expect(&control.others_full[i], memory.BYTES);
  barrier_init_fence();
}

} // namespace pair

#endif

template <u32 TOKENS, bool X_UNSIGNED> DEVICE void linear_pair(const PairParams &p) {
#ifdef WARPGROUP_MMA
  using namespace pair;
  extern __shared__ __align__(1024) u8 dynamic[];
  Memory<TOKENS / 16> memory(p, dynamic);
  u32 rank = cluster_rank();
  if (threadIdx.x == 0) init(p, memory);
  cluster_barrier();
  if (warp_id() < BOXES * p.row_groups)
    consume<TOKENS, X_UNSIGNED>(p, memory, rank);
  else if (threadIdx.x == WARPS * WARP)
    Producer<TOKENS>{p, memory, evict_first_policy(), rank}.run();
  else if (warp_id() > WARPS && warp_id() - WARPS - 1 < p.row_groups)
    Ending<TOKENS>(p, memory, rank).run(rank);
#endif
}
