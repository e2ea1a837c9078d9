// Hopper's warpgroup matrix instructions for 8-bit integers (wgmma, sm_90a) and tiles copied by tensor maps (TMA).
//
// Tiles are 128 bytes of k wide and swizzled by 128 bytes, in atoms of 8 rows that start at multiples of 1024 bytes.
#pragma once
#include "bulk.cuh"
#include "segment.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define WARPGROUP_MMA 1

namespace warpgroup {

// Columns of k of a stage.
constexpr u32 STAGE_K = 128;

// A matrix in shared memory, swizzled by 128 bytes: the lower half of its descriptor, which counts in 16 bytes. The other half is
// the same for all, so that what is added is added to 32 bits.
DEVICE u32 matrix(u32 address) { return address >> 4 | 1 << 16; }

// 1024 bytes from an atom to the next.
DEVICE u64 descriptor(u32 matrix) { return (u64)(1u << 30 | 64) << 32 | matrix; }

DEVICE void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int PENDING> DEVICE void wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory"); }

// A warpgroup's registers a thread, in multiples of 8: those that one leaves another can have.
template <u32 REGISTERS> DEVICE void lower_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS)); }
template <u32 REGISTERS> DEVICE void raise_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS)); }

DEVICE void copy_tile(u32 dst, const TensorMap *map, u32 k, u32 row, u64 *barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::
                   "r"(dst),
               "l"(map), "r"(k), "r"(row), "r"(smem_address(barrier))
               : "memory");
}

// As many tiles that are neighbors in k, from tile `piece` on, as the map says: one request takes the engine's thread a hundred cycles.
DEVICE void copy_tiles(u32 dst, const TensorMap *map, u32 row, u32 piece, u64 *barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::
                   "r"(dst),
               "l"(map), "r"(0), "r"(row), "r"(piece), "r"(smem_address(barrier))
               : "memory");
}

DEVICE void copy_tiles(u32 dst, const TensorMap *map, u32 row, u32 piece, u64 *barrier, u64 policy) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
               "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(dst),
               "l"(map), "r"(0), "r"(row), "r"(piece), "r"(smem_address(barrier)), "l"(policy)
               : "memory");
}

// To every block of the cluster that `mask` names, and counted at the barrier of each.
DEVICE void copy_tile_multicast(u32 dst, const TensorMap *map, u32 k, u32 row, u64 *barrier, u16 mask) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, "
               "%3}], [%4], %5;" ::"r"(dst),
               "l"(map), "r"(k), "r"(row), "r"(smem_address(barrier)), "h"(mask)
               : "memory");
}

// Into L2 alone.
DEVICE void prefetch_tile(const TensorMap *map, u32 column, u32 row) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(map), "r"(column), "r"(row) : "memory");
}

// Tiles from shared memory, in groups: by one thread. What is beyond the matrix is left out.
DEVICE void store_tile(const TensorMap *map, u32 column, u32 row, u32 src) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(column),
               "r"(row), "r"(src)
               : "memory");
}

// The same, added to the floats that are there.
DEVICE void add_tile(const TensorMap *map, u32 column, u32 row, u32 src) {
  asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map),
               "r"(column), "r"(row), "r"(src)
               : "memory");
}

DEVICE void store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// At most so many groups are still to be read from shared memory.
template <int PENDING> DEVICE void store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

// All are stored.
DEVICE void store_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

// Makes what this thread wrote to shared memory visible to the copy engine.
DEVICE void store_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Where a tile is.
struct Place {
  u32 segment, row0, token0;
  DEVICE Place(const LinearParams &p, u32 index, u32 token_tiles, u32 rows, u32 tokens) {
    u32 tile = index / token_tiles;
    token0 = index % token_tiles * tokens;
    segment = segment_of(p, tile);
    row0 = (tile - p.segments[segment].first_tile) * rows;
  }
};

// The registers of an accumulator, in the text of an instruction and as its operands: also those of warpgroup_float.cuh.
#define NAMES16 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define NAMES32 NAMES16 ", " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES64 NAMES32 ", " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
  "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DATA4(C, i) C(d[i]), C(d[i + 1]), C(d[i + 2]), C(d[i + 3])
#define DATA16(C, i) DATA4(C, i), DATA4(C, i + 4), DATA4(C, i + 8), DATA4(C, i + 12)
#define DATA32(C, i) DATA16(C, i), DATA16(C, i + 16)
#define DATA64(C, i) DATA32(C, i), DATA32(C, i + 32)

// d[64 x N] += a[64 x 32] * b[N x 32]^T: a is signed, b signed or unsigned. A warp has 16 rows. Lane holds of every 8
// columns: (row lane / 4, columns 2q, 2q + 1), then (row lane / 4 + 8, the same columns), q = lane % 4. `start` overwrites d:
// zeros would be written while no product is computed.
template <u32 N, bool B_UNSIGNED> struct Multiply;

// A and B are the numbers that follow those of the accumulator; ADDS is 0 where that is overwritten.
#define MULTIPLY_BY(N, TYPE, NAMES, A, B, ADDS, ACCUMULATOR)                                                              \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.s32.s8." #TYPE " {" NAMES "}, %" #A ", %" #B ", " #ADDS ";"    \
               : ACCUMULATOR                                                                                             \
               : "l"(descriptor(a)), "l"(descriptor(b)))
#define MULTIPLY(N, B_UNSIGNED, TYPE, NAMES, A, B, DATA)                                                                 \
  template <> struct Multiply<N, B_UNSIGNED> {                                                                           \
    static DEVICE void start(int (&d)[N / 2], u32 a, u32 b) { MULTIPLY_BY(N, TYPE, NAMES, A, B, 0, DATA("=r", 0)); }     \
    static DEVICE void run(int (&d)[N / 2], u32 a, u32 b) { MULTIPLY_BY(N, TYPE, NAMES, A, B, 1, DATA("+r", 0)); }       \
  };

MULTIPLY(32, false, s8, NAMES16, 16, 17, DATA16)
MULTIPLY(32, true, u8, NAMES16, 16, 17, DATA16)
MULTIPLY(64, false, s8, NAMES32, 32, 33, DATA32)
MULTIPLY(64, true, u8, NAMES32, 32, 33, DATA32)
MULTIPLY(128, false, s8, NAMES64, 64, 65, DATA64)
MULTIPLY(128, true, u8, NAMES64, 64, 65, DATA64)

#undef MULTIPLY
#undef MULTIPLY_BY

// The same with the rows of a in registers: those of lane / 4 and 8 more in columns 4q on, then both in columns 16 + 4q on.
template <u32 N, bool B_UNSIGNED> struct MultiplyRegisters;

#define MULTIPLY(N, B_UNSIGNED, TYPE, NAMES, A0, A1, A2, A3, B, DATA)                                                    \
  template <> struct MultiplyRegisters<N, B_UNSIGNED> {                                                                  \
    static DEVICE void run(int (&d)[N / 2], const u32 (&a)[4], u32 b) {                                                  \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.s32.s8." #TYPE " {" NAMES "}, {%" #A0 ", %" #A1           \
                   ", %" #A2 ", %" #A3 "}, %" #B ", 1;"                                                                  \
                   : DATA("+r", 0)                                                                                       \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(descriptor(b)));                                    \
    }                                                                                                                    \
  };

MULTIPLY(32, false, s8, NAMES16, 16, 17, 18, 19, 20, DATA16)
MULTIPLY(32, true, u8, NAMES16, 16, 17, 18, 19, 20, DATA16)
MULTIPLY(64, false, s8, NAMES32, 32, 33, 34, 35, 36, DATA32)
MULTIPLY(64, true, u8, NAMES32, 32, 33, 34, 35, 36, DATA32)

#undef MULTIPLY

} // namespace warpgroup

#endif
