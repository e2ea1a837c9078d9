// Walsh-Hadamard transforms of a row in shared memory.
#pragma once
#include "common.cuh"

namespace hadamard {

// A block of 32 REGISTERS columns, one warp: some bits of a column are the register, the others the lane. Not normalized.
template <int REGISTERS> DEVICE void butterflies(float (&v)[REGISTERS]) {
#pragma unroll
  for (int half = 1; half < REGISTERS; half *= 2)
#pragma unroll
    for (int r = 0; r < REGISTERS; r++)
      if ((r & half) == 0) {
        float a = v[r], b = v[r + half];
        v[r] = a + b, v[r + half] = a - b;
      }
#pragma unroll
  for (u32 half = 1; half < WARP; half *= 2) {
    float sign = lane_id() & half ? -1.0f : 1.0f;
#pragma unroll
    for (int r = 0; r < REGISTERS; r++) v[r] = fmaf(sign, v[r], __shfl_xor_sync(FULL_MASK, v[r], half));
  }
}

// The lower five bits of the column are the lane.
template <int REGISTERS> DEVICE void warp_block(float *block, float norm) {
  float v[REGISTERS];
#pragma unroll
  for (int r = 0; r < REGISTERS; r++) v[r] = block[r * WARP + lane_id()];
  butterflies(v);
#pragma unroll
  for (int r = 0; r < REGISTERS; r++) block[r * WARP + lane_id()] = v[r] * norm;
}

template <int REGISTERS> DEVICE void by_warps(float *row, u32 n, float norm) {
  u32 warps = blockDim.x / WARP, block = WARP * REGISTERS;
  for (u32 i = warp_id(); i < n / block; i += warps) warp_block<REGISTERS>(row + i * block, norm);
  __syncthreads();
}

DEVICE void pass(float *row, u32 n, u32 half, float factor) {
  for (u32 i = threadIdx.x; i < n / 2; i += blockDim.x) {
    u32 low = (i & ~(half - 1)) * 2 + (i & (half - 1));
    float a = row[low], b = row[low + half];
    row[low] = (a + b) * factor;
    row[low + half] = (a - b) * factor;
  }
  __syncthreads();
}

// Any power of two: a barrier a pass.
DEVICE void by_passes(float *row, u32 n, u32 block, float norm) {
  for (u32 half = 1; half < block; half *= 2) pass(row, n, half, 2 * half == block ? norm : 1.0f);
}

} // namespace hadamard

// Transforms every block of `block` columns, orthonormal, in place. Starts and ends with the row in shared memory,
// synchronized.
DEVICE void hadamard_row(float *row, u32 n, u32 block) {
  float norm = 1.0f / sqrtf((float)block);
  switch (block) {
  case 32: return hadamard::by_warps<1>(row, n, norm);
  case 64: return hadamard::by_warps<2>(row, n, norm);
  case 128: return hadamard::by_warps<4>(row, n, norm);
  case 256: return hadamard::by_warps<8>(row, n, norm);
  case 512: return hadamard::by_warps<16>(row, n, norm);
  case 1024:
    // Registers for a whole block would leave room for fewer blocks of threads.
    hadamard::by_warps<16>(row, n, 1.0f);
    return hadamard::pass(row, n, 512, norm);
  default: return hadamard::by_passes(row, n, block, norm);
  }
}
