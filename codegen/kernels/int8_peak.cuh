// Multiplies registers and keeps nothing: the INT8 rate of mma.sync that GEMMs are measured against.
//
// Eight independent sums a warp hide the latency of the instruction. Hopper's warpgroup instructions reach more.
#pragma once
#include "mma.cuh"

// `count` rounds of eight instructions a warp.
DEVICE void int8_peak(const AddParams &p) {
  constexpr int SUMS = 8;
  int acc[SUMS][4] = {};
  u32 a = lane_id() * 0x01010101u + p.count, b = a ^ 0x5a5a5a5au;
  for (u32 round = 0; round < p.count; round++) {
#pragma unroll
    for (int i = 0; i < SUMS; i++) mma_int8<false>(acc[i], a, b, a, b, b, a);
  }
  int folded = 0;
#pragma unroll
  for (int i = 0; i < SUMS; i++) folded ^= acc[i][0] ^ acc[i][1] ^ acc[i][2] ^ acc[i][3];
  // Never true, but the compiler cannot know.
  if (p.out && folded == 0x12345678) p.out[0] = 1.0f;
}
