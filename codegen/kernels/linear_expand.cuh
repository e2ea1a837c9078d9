// W4 two-level weights to W8: q times its group's scale fits 8 bits, so sums over them are those of the W4 weight.
//
// Bound by memory: 18560 x 4096 reads 38 MB and writes 76 MB, 27 us at an H200's 4.29 TB/s; multiplying 2048 tokens by
// them takes ten times as long, and scales inside of it cost more than this.
#pragma once
#include "nibbles.cuh"

// 16 bytes a thread: 32 columns of a row.
DEVICE void linear_expand(const ExpandParams &p) {
  pdl_launch_dependents();
  u32 chunks = p.row_bytes / 16;
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  bool there = i < (u64)p.rows * chunks;
  u32 row = there ? i / chunks : 0, chunk = there ? i % chunks : 0;
  uint4 v = make_uint4(0, 0, 0, 0);
  u32 scale = 0;
  if (there) {
    v = __ldcs((const uint4 *)((const u8 *)p.weight + (u64)row * p.row_bytes) + chunk);
    scale = ((const u8 *)p.group_scale)[(u64)row * p.groups + min(chunk * 32 / p.group_size, p.groups - 1)];
  }
  // The launch before still reads what this one overwrites.
  pdl_wait();
  if (!there) return;
  u32 words[4] = {v.x, v.y, v.z, v.w}, low[4], high[4];
#pragma unroll
  for (u32 j = 0; j < 4; j++) scale_nibbles(words[j], scale, low[j], high[j]);
  uint4 *out = (uint4 *)((u8 *)p.out + (u64)row * p.row_bytes * 2) + chunk * 2;
  out[0] = make_uint4(low[0], low[1], low[2], low[3]);
  out[1] = make_uint4(high[0], high[1], high[2], high[3]);
}
