// The ring of the streaming linears, and the warp of a block that fills it: linear_stream says how.
#pragma once
#include "bulk.cuh"
#include "segment.cuh"

#if __CUDA_ARCH__ >= 900

namespace stream {

constexpr u32 WARPS = STREAM_WARPS;
constexpr u32 THREADS = WARPS * WARP; // those that multiply
constexpr u32 STAGES = STREAM_STAGES;
constexpr u32 TILE_ROWS = SKINNY_TILE_ROWS;
constexpr u32 FIRST_STAGES = 2; // in flight while the ring fills for the first time
constexpr u32 ROW_BYTES = STREAM_ROW_BYTES;
constexpr u32 WARP_BYTES = ROW_BYTES / WARPS;
constexpr u32 PIECES = WARP_BYTES / 64;

struct Shared {
  u8 weights[STAGES][TILE_ROWS][ROW_BYTES];
  float row_scales[STREAM_SCALE_STAGES][TILE_ROWS];
  u32 tiles[STREAM_SCALE_STAGES]; // what the producer has drawn
  u64 full[STAGES], empty[STAGES], drawn[STREAM_SCALE_STAGES];
};

typedef RingTurn<STAGES> Turn;
typedef RingTurn<STREAM_SCALE_STAGES> TileTurn;

// A tile of this block; later ones have larger indices.
struct Tile {
  u32 index, segment = 0;
  DEVICE Tile() : index(blockIdx.x) {}
  DEVICE bool find(const LinearParams &p) {
    if (index >= p.tiles) return false;
    segment = segment_of(p, index, segment);
    return true;
  }
  DEVICE u32 row0(const LinearParams &p) const { return (index - p.segments[segment].first_tile) * TILE_ROWS; }
};

// Brings weights that a launch behind will ask for into L2, while the memory has nothing else to do.
DEVICE void prefetch_next(const LinearParams &p) {
  u32 first = (blockIdx.x * WARP + lane_id()) * ROW_BYTES, step = gridDim.x * WARP * ROW_BYTES;
  for (u32 at = first; at < p.next_bytes; at += step) prefetch_bulk((const u8 *)p.next + at, ROW_BYTES);
}

// The warp that requests. The scales of a tile come with its first stage: its slot has long been left when that is free.
// The ring fills at the rate of the memory: what other warps ask for meanwhile, the row above all, would wait behind all of it.
// A block has up to DEALT tiles, half of its share at most, without drawing: a draw takes as long as a short tile.
template <bool DRAWS, u32 DEALT> DEVICE void produce(const LinearParams &p, Shared &shared, u8 *group_scales) {
  static_assert(STREAM_SCALE_STAGES > STAGES, "a tile may be a stage");
  u64 policy = evict_first_policy();
  // The next kernel's blocks start as soon as these leave: what they request fills the pause between the two.
  pdl_launch_dependents();
  Turn turn;
  TileTurn place;
  u32 lane = lane_id(), dealt = 1, had = 1, requested = 0;
  if (DEALT > 1) dealt = max(1, min(DEALT, p.tiles / (2 * gridDim.x)));
  for (Tile tile;; place.advance(), had++) {
    bool there = tile.find(p);
    if (DRAWS && lane == 0) {
      shared.tiles[place.slot] = tile.index;
      barrier_arrive(&shared.drawn[place.slot]);
    }
    if (!there) break;
    const LinearSegment &s = p.segments[tile.segment];
    u32 row0 = tile.row0(p), row_bytes = s.row_bytes, rows = min(TILE_ROWS, s.out_features - row0), draw = 0;
    bool draws = DRAWS && had >= dealt;
    const u8 *src = (const u8 *)s.weight + (u64)(row0 + lane) * row_bytes;
    const float *row_scales = s.scale ? s.scale + row0 : nullptr;
    GroupBytes scales(s, row0, rows);
    for (u32 at = 0; at < row_bytes; at += ROW_BYTES, turn.advance()) {
      u32 bytes = min(ROW_BYTES, row_bytes - at);
      u64 *full = &shared.full[turn.slot];
      if (draws && at + ROW_BYTES >= row_bytes && lane == 0) draw = atomicAdd(p.draws, 1);
      if (requested >= FIRST_STAGES && requested < STAGES) barrier_wait(&shared.full[requested - FIRST_STAGES], 0);
      requested++;
      barrier_wait(&shared.empty[turn.slot], turn.parity ^ 1);
      if (lane == 0) barrier_arrive_expect(full, bytes * rows + (at == 0 ? scales.bytes + (row_scales ? TILE_ROWS * 4 : 0) : 0));
      __syncwarp();
      if (lane < rows) copy_bulk(smem_address(shared.weights[turn.slot][lane]), src + at, bytes, full, policy);
      if (at > 0) continue;
      if (lane == TILE_ROWS && row_scales)
        copy_bulk(smem_address(shared.row_scales[place.slot]), row_scales, TILE_ROWS * 4, full, policy);
      if (lane == TILE_ROWS + 1 && scales.bytes)
        copy_bulk(smem_address(group_scales + place.slot * p.scale_bytes), scales.from, scales.bytes, full, policy);
    }
    if (!draws) {
      tile.index += gridDim.x;
      continue;
    }
    // A block draws behind its last dealt tile and behind each drawn one: whoever has the last draw leaves the counter as it was.
    if (lane == 0 && draw == p.tiles - (dealt - 1) * gridDim.x - 1) *p.draws = 0;
    tile.index = dealt * gridDim.x + __shfl_sync(FULL_MASK, draw, 0);
  }
  prefetch_next(p);
}

} // namespace stream

#endif
