// What happens to a finished dot product before it is stored: `plan::Epilogue`.
#pragma once
#include "common.cuh"

DEVICE void store_float(const LinearSegment &s, u64 at, float y) {
  float *out = (float *)s.out;
  if (s.epilogue == EPILOGUE_ACCUMULATE) {
    // One writer an element: the order of the sum is fixed. No value comes back, so nothing waits.
    atomicAdd(out + at, y);
    return;
  }
  if (s.epilogue == EPILOGUE_RELU2) {
    y = fmaxf(y, 0.0f);
    y *= y;
  }
  out[at] = y;
}

// `scale` is that of the weight row, or 1 where group scales are in the sum already.
DEVICE void store_integer(const LinearSegment &s, u32 token, u32 row, int acc, float x_scale, float scale) {
  u64 at = (u64)token * s.out_features + row;
  if (s.epilogue == EPILOGUE_ACCUMULATOR)
    ((int *)s.out)[at] = acc;
  else
    store_float(s, at, (float)acc * (x_scale * scale));
}
