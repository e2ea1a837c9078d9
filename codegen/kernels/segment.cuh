// The segments of a linear: matrices that share a launch, each with tiles of its own.
#pragma once
#include "common.cuh"

// Which segment a tile is of: `segment`, or one behind it.
DEVICE u32 segment_of(const LinearParams &p, u32 tile, u32 segment = 0) {
  while (segment + 1 < p.segment_count && tile >= p.segments[segment + 1].first_tile) segment++;
  return segment;
}

// The group scales of rows of a segment, in a copy of whole 16 bytes: tensors start and end at multiples of 256.
struct GroupBytes {
  const u8 *from = nullptr;
  u32 shift = 0, bytes = 0; // from there to the first scale, and in all
  GroupBytes() = default;
  DEVICE GroupBytes(const LinearSegment &s, u32 row0, u32 rows) {
    u32 row_bytes = s.groups * (s.format == FORMAT_W4_GROUP ? 2 : 1);
    const u8 *first = (const u8 *)s.group_scale + (u64)row0 * row_bytes;
    shift = (u32)(u64)first & 15;
    from = first - shift;
    bytes = s.format == FORMAT_W8 ? 0 : (shift + rows * row_bytes + 15) & ~15u;
  }
};
