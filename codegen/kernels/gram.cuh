// Calibration: `out += a^T b`, a sum over tokens, by the tiles of float_tile.cuh.
//
// Bound by f32 multiply-adds: `2 tokens m n` operations, half of them where a and b are the same: X^T X of 65,536 tokens of
// 21504 channels is 3e13, 0.45 s at the 67 TFLOP/s of an H200. a and b are padded to whole tiles. Every value is one thread's
// sum in the order of the tokens: it depends on nothing else. The twin on the CPU is codegen/src/calibrate/gram.rs.
#pragma once
#include "float_tile.cuh"

DEVICE void gram(const GramParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  u32 row0 = blockIdx.y * FLOAT_TILE, column0 = blockIdx.x * FLOAT_TILE;
  // What is right of the diagonal is what is left of it.
  if (p.symmetric && column0 > row0) return;
  float_tile::Down a = {p.a, p.a_pitch, row0}, b = {p.b, p.b_pitch, column0};
  float_tile::multiply(a, b, p.tokens, [&](u32 i, u32 j, float sum) {
    u32 row = row0 + i, column = column0 + j;
    if (row >= p.m || column >= p.n) return;
    float total = p.out[(u64)row * p.n + column] + sum;
    p.out[(u64)row * p.n + column] = total;
    if (p.symmetric && column0 < row0) p.out[(u64)column * p.n + row] = total;
  });
}
