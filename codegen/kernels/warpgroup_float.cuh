// Hopper's warpgroup matrix instructions for 16-bit floats with f32 sums (wgmma, sm_90a).
//
// Tiles are boxes of 64 columns, 128 bytes a row, swizzled by 128 bytes, in atoms of 8 rows that start at multiples of 1024 bytes.
#pragma once
#include "warpgroup.cuh"

#ifdef WARPGROUP_MMA

namespace warpgroup {

// Columns of a box of 16-bit numbers.
constexpr u32 BOX_COLUMNS = 64;

// A matrix whose rows are those of k, in boxes of so many bytes, as the lower half of its descriptor.
DEVICE u32 transposed_matrix(u32 address, u32 box_bytes) { return address >> 4 | box_bytes >> 4 << 16; }

// Until at most PENDING groups are not done: the sums in `d` are not of those, and not read before.
template <int PENDING> DEVICE void wait(float (&d)[32]) {
  asm volatile("wgmma.wait_group.sync.aligned %32;" : DATA32("+f", 0) : "n"(PENDING) : "memory");
}
template <int PENDING> DEVICE void wait(float (&d)[64]) {
  asm volatile("wgmma.wait_group.sync.aligned %64;" : DATA64("+f", 0) : "n"(PENDING) : "memory");
}

// d[64 x N] += a[64 x 16] * b: `start` and `run` of rows of a in shared memory by rows of b, N of them; `start` overwrites d.
// `run_transposed` of rows of a in registers (those of lane / 4 and 8 more in columns 2q and 2q + 1, then both in columns 8 + 2q on,
// q = lane % 4) by columns of b. A lane has sums as of integers.
template <u32 DTYPE, u32 N> struct MultiplyFloats;

#define MULTIPLY_BY(N, TYPE, NAMES, A, B, ADDS, ACCUMULATOR)                                                                \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" NAMES "}, %" #A ", %" #B ", " #ADDS \
               ", 1, 1, 0, 0;"                                                                                            \
               : ACCUMULATOR                                                                                              \
               : "l"(descriptor(a)), "l"(descriptor(b)))
#define MULTIPLY(DTYPE, N, TYPE, NAMES, A0, A1, A2, A3, B, DATA)                                                            \
  template <> struct MultiplyFloats<DTYPE, N> {                                                                             \
    static DEVICE void start(float (&d)[N / 2], u32 a, u32 b) { MULTIPLY_BY(N, TYPE, NAMES, A0, A1, 0, DATA("=f", 0)); }    \
    static DEVICE void run(float (&d)[N / 2], u32 a, u32 b) { MULTIPLY_BY(N, TYPE, NAMES, A0, A1, 1, DATA("+f", 0)); }      \
    static DEVICE void run_transposed(float (&d)[N / 2], const u32 (&a)[4], u32 b) {                                        \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" NAMES "}, {%" #A0 ", %" #A1       \
                   ", %" #A2 ", %" #A3 "}, %" #B ", 1, 1, 1, 1;"                                                            \
                   : DATA("+f", 0)                                                                                          \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(descriptor(b)));                                       \
    }                                                                                                                       \
  };

MULTIPLY(DTYPE_BF16, 64, bf16, NAMES32, 32, 33, 34, 35, 36, DATA32)
MULTIPLY(DTYPE_F16, 64, f16, NAMES32, 32, 33, 34, 35, 36, DATA32)
MULTIPLY(DTYPE_BF16, 128, bf16, NAMES64, 64, 65, 66, 67, 68, DATA64)
MULTIPLY(DTYPE_F16, 128, f16, NAMES64, 64, 65, 66, 67, 68, DATA64)

#undef MULTIPLY
#undef MULTIPLY_BY

} // namespace warpgroup

#endif
