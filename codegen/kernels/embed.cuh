// Plan kernel `embed`: one block a token, its row of the table dequantized to f32.
#pragma once
#include "common.cuh"

// q of a packed 4-bit row: in each chunk of 32 along k, byte j holds k = j (low) and k = 16 + j (high), plus 8.
DEVICE int unpack_int4(const u8 *row, u32 k) {
  u8 byte = row[k / 32 * 16 + k % 16];
  return (int)(k % 32 < 16 ? byte & 15 : byte >> 4) - 8;
}

DEVICE float embed_value(const EmbedParams &p, u64 token, u32 k) {
  const u8 *row = (const u8 *)p.table + token * p.row_bytes;
  switch (p.format) {
  case FORMAT_F32: return ((const float *)row)[k];
  case FORMAT_F16: return f16_to_f32(((const u16 *)row)[k]);
  case FORMAT_BF16: return bf16_to_f32(((const u16 *)row)[k]);
  case FORMAT_W8: return (float)((const i8 *)row)[k] * p.scale[token];
  case FORMAT_W4_TWO_LEVEL: {
    int s = ((const u8 *)p.group_scale)[token * p.groups + k / p.group_size];
    return (float)(unpack_int4(row, k) * s) * p.scale[token];
  }
  default: {
    float s = f16_to_f32(((const u16 *)p.group_scale)[token * p.groups + k / p.group_size]);
    return (float)unpack_int4(row, k) * s;
  }
  }
}

DEVICE void embed(const EmbedParams &p) {
  pdl_launch_dependents();
  pdl_wait();
  u64 token = p.tokens[blockIdx.x];
  for (u32 k = threadIdx.x; k < p.n; k += blockDim.x) p.out[(u64)blockIdx.x * p.n + k] = embed_value(p, token, k);
}
