// INT8 tensor-core arithmetic that every target has: mma.sync m16n8k32, and ldmatrix.
//
// Which k a lane holds does not matter to a dot product as long as both operands agree. So a lane takes 16
// consecutive bytes of its row for both: quad lane q of row r holds k = 16q..16q+15 of a piece of 64, which is the
// operand of two instructions, and nothing is shuffled.
#pragma once
#include "common.cuh"

// acc[16 x 8] += a[16 x 32] * b[8 x 32]^T, i8 or u8 each. Tokens are the rows of a and weights those of b, or the other way round.
// Lane holds of acc: (row lane/4, columns 2q, 2q+1), then (row lane/4 + 8, the same columns), q = lane % 4.
template <bool A_UNSIGNED, bool B_UNSIGNED = false>
DEVICE void mma_int8(int (&acc)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#define MMA_INT8(A, B)                                                                                                   \
  asm("mma.sync.aligned.m16n8k32.row.col.s32." #A "." #B ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"    \
      : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])                                                           \
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))
  if constexpr (A_UNSIGNED && B_UNSIGNED)
    MMA_INT8(u8, u8);
  else if constexpr (A_UNSIGNED)
    MMA_INT8(u8, s8);
  else if constexpr (B_UNSIGNED)
    MMA_INT8(s8, u8);
  else
    MMA_INT8(s8, s8);
#undef MMA_INT8
}

// Four 8 x 8 matrices of 16-bit numbers; every lane has the address of one row.
DEVICE void load_matrices(u32 (&out)[4], u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(row)
               : "memory");
}

// The nibbles of 4 packed bytes as signed bytes of value 16 q: a stored nibble is q + 8, flipping its top bit makes
// it two's complement, and in the high half of a byte it needs no sign extension. Sums are exact multiples of 16: shift
// them right by 4.
DEVICE void unpack_int4(u32 word, u32 &low, u32 &high) {
  low = ((word << 4) & 0xf0f0f0f0u) ^ 0x80808080u;
  high = (word & 0xf0f0f0f0u) ^ 0x80808080u;
}

// `high` of unpack_int4, by one instruction for which the compiler takes two. It keeps a constant in a register, which not every
// kernel has to spare.
DEVICE u32 high_nibbles(u32 word) {
  u32 out;
  // (word & 0xf0f0f0f0) ^ 0x80808080
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(out) : "r"(word), "r"(0xf0f0f0f0u), "r"(0x80808080u));
  return out;
}

// Of 16 packed bytes: `low` pairs with the first 16 activations of the chunk, `high` with the last 16.
DEVICE void unpack_int4_x16(uint4 v, u32 (&low)[4], u32 (&high)[4]) {
  u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; i++) unpack_int4(words[i], low[i], high[i]);
}
