// W4 two-level weights as 8-bit integers: q times its group's scale fits, and is what sums of scaled groups add up to.
#pragma once
#include "common.cuh"

// Of eight nibbles q + 8 the low and the high four, each q * scale. (q + 8) * scale is a byte, and so is q * scale + 128: four of
// each are one multiplication, and nothing is carried from one to the next.
DEVICE void scale_nibbles(u32 word, u32 scale, u32 &low, u32 &high) {
  u32 offset = 0x80808080u - scale * 0x08080808u;
  low = (word & 0x0f0f0f0fu) * scale + offset ^ 0x80808080u;
  high = (word >> 4 & 0x0f0f0f0fu) * scale + offset ^ 0x80808080u;
}
