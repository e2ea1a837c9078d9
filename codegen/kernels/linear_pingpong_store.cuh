// How the sums of linear_pingpong leave a block: scaled, through shared memory, by the copy engine.
#pragma once
#include "epilogue.cuh"
#include "warpgroup.cuh"

#ifdef WARPGROUP_MMA

namespace pingpong {

using namespace warpgroup;

constexpr u32 ROWS = 128, TOKENS = 128, GROUP_THREADS = 4 * WARP;
// Tokens and weight rows of a box of the copy engine: 128 bytes wide, so that it may be swizzled.
constexpr u32 BOX = 32;

// Results on their way out: while the copy engine takes one half, the other one is filled.
struct Leaving {
  u32 boxes[2][2][BOX][BOX];
};

// 64 weight rows of a tile, and where they go.
struct Tile {
  const TensorMap *out;
  Leaving *leaving;
  const float *x_scale;
  u32 row0, token0, tokens, group;
};

DEVICE void group_barrier(u32 group) { asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(GROUP_THREADS) : "memory"); }

template <u32 EPILOGUE> DEVICE u32 finish(int acc, float x_scale, float scale) {
  if (EPILOGUE == EPILOGUE_ACCUMULATOR) return (u32)acc;
  float y = (float)acc * (x_scale * scale);
  if (EPILOGUE == EPILOGUE_RELU2) {
    y = fmaxf(y, 0.0f);
    y *= y;
  }
  return __float_as_uint(y);
}

// 32 tokens, eight of which each warp has in four registers a lane. Swizzled by 128 bytes, so that the lanes of a warp write
// to 32 banks.
template <u32 EPILOGUE> DEVICE void fill(u32 (&boxes)[2][BOX][BOX], const float *x_scale, const int *acc, const float (&scale)[2]) {
  u32 warp = warp_id() % 4, row = warp % 2 * 16 + lane_id() / 4;
#pragma unroll
  for (u32 j = 0; j < BOX / 8; j++) {
    float2 pair = *(const float2 *)&x_scale[j * 8 + lane_id() % 4 * 2];
#pragma unroll
    for (u32 c = 0; c < 2; c++) {
      u32 token = j * 8 + lane_id() % 4 * 2 + c;
#pragma unroll
      for (u32 half = 0; half < 2; half++)
        boxes[warp / 2][token][(row + half * 8) ^ token % 8 * 4] =
            finish<EPILOGUE>(acc[j * 4 + half * 2 + c], c ? pair.y : pair.x, scale[half]);
    }
  }
}

template <u32 EPILOGUE> DEVICE void send(const Tile &tile, u32 (&boxes)[2][BOX][BOX], u32 token0) {
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    if (EPILOGUE == EPILOGUE_ACCUMULATE)
      // One writer an element, and one addition: the sum is that of one thread.
      add_tile(tile.out, tile.row0 + i * BOX, token0, smem_address(boxes[i]));
    else
      store_tile(tile.out, tile.row0 + i * BOX, token0, smem_address(boxes[i]));
  }
  store_commit();
}

template <u32 EPILOGUE> DEVICE void store_by_engine(const Tile &tile, const int (&acc)[TOKENS / 2], const float (&scale)[2]) {
  bool leader = threadIdx.x % GROUP_THREADS == 0;
#pragma unroll
  for (u32 round = 0; round < TOKENS / BOX; round++) {
    u32(&boxes)[2][BOX][BOX] = tile.leaving->boxes[round % 2];
    if (leader) store_wait_read<1>();
    group_barrier(tile.group);
    fill<EPILOGUE>(boxes, tile.x_scale + round * BOX, acc + round * BOX / 2, scale);
    store_fence();
    group_barrier(tile.group);
    if (leader) send<EPILOGUE>(tile, boxes, tile.token0 + round * BOX);
  }
}

DEVICE void store_by_threads(const LinearSegment &s, const Tile &tile, const int (&acc)[TOKENS / 2], const float (&scale)[2]) {
  u32 row = tile.row0 + warp_id() % 4 * 16 + lane_id() / 4;
#pragma unroll
  for (u32 j = 0; j < TOKENS / 8; j++)
#pragma unroll
    for (u32 c = 0; c < 2; c++) {
      u32 column = j * 8 + lane_id() % 4 * 2 + c;
      if (tile.token0 + column >= tile.tokens) continue;
#pragma unroll
      for (u32 half = 0; half < 2; half++)
        if (row + half * 8 < s.out_features)
          store_integer(s, tile.token0 + column, row + half * 8, acc[j * 4 + half * 2 + c], tile.x_scale[column], scale[half]);
    }
  // The scales may be overwritten.
  group_barrier(tile.group);
}

DEVICE void store(const LinearSegment &s, const Tile &tile, bool by_engine, const int (&acc)[TOKENS / 2], const float (&scale)[2]) {
  if (!by_engine) return store_by_threads(s, tile, acc, scale);
  switch (s.epilogue) {
  case EPILOGUE_ACCUMULATE: return store_by_engine<EPILOGUE_ACCUMULATE>(tile, acc, scale);
  case EPILOGUE_RELU2: return store_by_engine<EPILOGUE_RELU2>(tile, acc, scale);
  case EPILOGUE_ACCUMULATOR: return store_by_engine<EPILOGUE_ACCUMULATOR>(tile, acc, scale);
  default: return store_by_engine<EPILOGUE_STORE>(tile, acc, scale);
  }
}

} // namespace pingpong

#endif
