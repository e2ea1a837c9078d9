// Shared memory of ssm_scan_chunked, and what fills it: copies of the next chunk, and weights of its tokens.
#pragma once
#include "scan_chunk.cuh"

namespace scan_chunked {

using namespace scan_chunk;

constexpr u32 ROWS = SCAN_CHUNK_ROWS;
constexpr u32 HALF = COLUMNS / 2;

template <u32 L> struct Stage {
  Row rows[L];
  float x[L][ROWS];
};

template <u32 L> struct Shared {
  static constexpr u32 OWN = L / 16; // pieces of 8 tokens that a warp ends
  Stage<L> stages[2];
  u16 weights[2][2][L][L]; // of two chunks, in halves
  float weight_down[2][L];
  float4 factors[3][L];
  float kept[3][L];
  float at_end[3][L];
  float4 exchanged[WARPS][OWN][WARP];
};

// Where a block is.
struct Place {
  u32 head, group, row0, sequence, begin, end;

  DEVICE Place(const SsmScanParams &p) {
    u32 slabs = ceil_div(p.head_dim, ROWS);
    head = blockIdx.x / slabs, row0 = blockIdx.x % slabs * ROWS;
    group = head / (p.heads / p.groups);
    sequence = blockIdx.y;
  }
};

// Rows of x are four tokens apart before they share banks.
DEVICE u32 x_column(u32 t, u32 column) { return column ^ (t / 2 % 4 * 8); }
// Lanes that read factors of tokens 8 apart read different banks.
DEVICE u32 factor_place(u32 t) { return t ^ (t / 8 % 8); }
// Bytes from the weights of a chunk to eight of a token.
template <u32 L> DEVICE u32 weight_bytes(u32 t, u32 piece) {
  constexpr u32 PIECES = L / 8;
  return (t * PIECES + (piece ^ (t * PIECES / 8 % PIECES))) * 16;
}

template <u32 L>
DEVICE void request_tokens(const SsmScanParams &p, const Prepared &prepared, const Place &place, Shared<L> &shared, u32 chunk) {
  u32 first = place.begin + chunk * L, inner = p.heads * p.head_dim, width = inner + 2 * p.groups * p.state_size;
  if (first >= place.end) return;
  Stage<L> &stage = shared.stages[chunk % 2];
  u32 count = place.end - first, to = smem_address(&stage) + threadIdx.x * 16;
  const u8 *from = prepared.split(place.group, first) + threadIdx.x * 16;
  if (count >= L) {
#pragma unroll
    for (u32 i = 0; i < L * ROW_BYTES; i += THREADS * 16) copy_async16(to + i, from + i, true);
  } else {
#pragma unroll 1
    for (u32 i = 0; i < L * ROW_BYTES; i += THREADS * 16)
      copy_async16(to + i, from + i, (i + threadIdx.x * 16) / ROW_BYTES < count);
  }
  constexpr u32 TOKENS = THREADS / (ROWS / 4); // of x, at once
  u32 t = threadIdx.x / (ROWS / 4), column = threadIdx.x % (ROWS / 4) * 4;
  const float *x = p.xbc + (u64)(first + t) * width + place.head * p.head_dim + place.row0 + column;
  to = smem_address(&stage.x[t][x_column(t, column)]);
#pragma unroll
  for (u32 i = 0; i < L; i += TOKENS, x += TOKENS * width)
    copy_async16(to + i * ROWS * 4, x, t + i < count && place.row0 + column < p.head_dim);
}

template <u32 L> DEVICE void request_factors(const Prepared &prepared, const Place &place, Shared<L> &shared, u32 chunk) {
  u32 t = threadIdx.x % L, row = place.begin + chunk * L + t;
  if (place.begin + chunk * L >= place.end) return;
  if (threadIdx.x < L)
    copy_async16(smem_address(&shared.factors[chunk % 3][factor_place(t)]), prepared.factors(place.head, row), row < place.end);
  else if (threadIdx.x < 2 * L)
    copy_async4(smem_address(&shared.kept[chunk % 3][t]), prepared.kept(place.head, row));
  else if (threadIdx.x < 3 * L)
    copy_async4(smem_address(&shared.at_end[chunk % 3][t]), prepared.at_end(place.head, row));
}

// Products of a chunk, in registers until they are made weights. Some threads share a token.
template <u32 L> struct Products {
  static constexpr u32 SHARE = THREADS / L, TURNS = (L / 8 + SHARE - 1) / SHARE;
  float4 values[TURNS][2];

  // Neighbouring tokens take their turns in another order: their pieces lie in other banks.
  static DEVICE u32 column(u32 turn) {
    return ((turn ^ (threadIdx.x / SHARE % TURNS)) * SHARE + threadIdx.x % SHARE) * 8;
  }

  DEVICE void request(const Prepared &prepared, const Place &place, u32 chunk) {
    u32 t = threadIdx.x / SHARE, row = place.begin + chunk * L + t;
    const float *from = prepared.products(place.group, row);
#pragma unroll
    for (u32 n = 0; n < TURNS; n++) {
      bool there = row < place.end && column(n) <= t;
#pragma unroll
      for (u32 i = 0; i < 2; i++)
        values[n][i] = there ? *(const float4 *)(from + column(n) + i * 4) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
  }

  DEVICE void weigh(Shared<L> &shared, u32 chunk) const {
    const float4 *factors = shared.factors[chunk % 3];
    u32 t = threadIdx.x / SHARE;
    float4 here = factors[factor_place(t)];
    float weights[TURNS][8], peak = 0.0f;
#pragma unroll
    for (u32 n = 0; n < TURNS; n++) {
      const float product[8] = {values[n][0].x, values[n][0].y, values[n][0].z, values[n][0].w,
                                values[n][1].x, values[n][1].y, values[n][1].z, values[n][1].w};
#pragma unroll
      for (u32 i = 0; i < 8; i++) {
        u32 s = column(n) + i;
        float4 then = factors[factor_place(s % L)];
        float left = power_of_two((here.x - then.x) + (here.y - then.y));
        weights[n][i] = s <= t ? product[i] * then.z * left : 0.0f;
        peak = fmaxf(peak, fabsf(weights[n][i]));
      }
    }
#pragma unroll
    for (u32 o = SHARE / 2; o; o /= 2) peak = fmaxf(peak, __shfl_xor_sync(FULL_MASK, peak, o));
    Scale scale = scale_of(peak);
    if (threadIdx.x % SHARE == 0) shared.weight_down[chunk % 2][t] = scale.down;
#pragma unroll
    for (u32 n = 0; n < TURNS; n++) {
      if (column(n) >= L) continue;
      u32 high[4], low[4];
#pragma unroll
      for (u32 i = 0; i < 4; i++) split(weights[n][i * 2] * scale.up, weights[n][i * 2 + 1] * scale.up, high[i], low[i]);
      u8 *to = (u8 *)shared.weights[chunk % 2] + weight_bytes<L>(t, column(n) / 8);
      *(uint4 *)to = make_uint4(high[0], high[1], high[2], high[3]);
      *(uint4 *)(to + sizeof(shared.weights[0][0])) = make_uint4(low[0], low[1], low[2], low[3]);
    }
  }

  // Weights of a chunk, if it is there, and the products of the one behind it.
  DEVICE void next(const Prepared &prepared, const Place &place, Shared<L> &shared, u32 chunk) {
    if (place.begin + chunk * L >= place.end) return;
    weigh(shared, chunk);
    request(prepared, place, chunk + 1);
  }
};

} // namespace scan_chunked
