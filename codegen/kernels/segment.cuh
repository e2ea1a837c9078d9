// The segments of a linear: matrices that share a launch, each with tiles of its own.
#pragma once
#include "common.cuh"

// Which segment a tile is of: `segment`, or one behind it.
DEVICE u32 segment_of(const LinearParams &p, u32 tile, u32 segment = 0) {
  while (segment + 1 < p.segment_count && tile >= p.segments[segment + 1].first_tile) segment++;
  return segment;
}
