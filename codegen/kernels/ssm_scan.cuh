// Plan kernel `ssm_scan`: the Mamba-2 recurrence, token by token, with the state in registers.
//
// Bound in decode by the state: 8B reads and writes 2 x 4 MB a layer and sequence, 1.8 us at 4.55 TB/s. In prefill by
// three multiply-adds an element of state and token: 24 layers of 2048 tokens are 155 G, 5.4 ms on an H200.
//
// - Eight lanes share a row p of the state; a lane holds 4 J consecutive-by-eight columns, as float4 so that a load of
//   the eight covers 128 consecutive bytes. ROWS rows a lane share the B and C it has read.
// - B, C, x and dt of the next token are requested before the current one is computed.
// - The state is requested before the previous kernel of the stream is waited for: only this kernel writes it. It is f32
//   in registers; what is kept of it in fewer bits is rounded behind the last token.
//
// Supports state sizes up to 32 J that are multiples of 4.
#pragma once
#include "scan_state.cuh"

namespace scan {

template <int J> DEVICE void load_columns(const float *from, u32 n, float4 (&out)[J]) {
#pragma unroll
  for (int j = 0; j < J; j++) {
    u32 at = (j * 8 + lane_id() % 8) * 4;
    out[j] = at < n ? *(const float4 *)(from + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
}

template <int J, int ROWS> struct Token {
  float4 b[J], c[J];
  float x[ROWS];
  float dt;

  DEVICE void load(const SsmScanParams &p, u32 t, u32 head, u32 row0) {
    u32 inner = p.heads * p.head_dim, group = head / (p.heads / p.groups);
    const float *xbc = p.xbc + (u64)t * (inner + 2 * p.groups * p.state_size);
    load_columns<J>(xbc + inner + group * p.state_size, p.state_size, b);
    load_columns<J>(xbc + inner + (p.groups + group) * p.state_size, p.state_size, c);
#pragma unroll
    for (int i = 0; i < ROWS; i++) x[i] = row0 + i < p.head_dim ? xbc[head * p.head_dim + row0 + i] : 0.0f;
    dt = p.dt[(u64)t * p.heads + head];
  }
};

template <int J> DEVICE float update_row(float4 (&s)[J], const float4 (&b)[J], const float4 (&c)[J], float decay, float input) {
  float y = 0.0f;
#pragma unroll
  for (int j = 0; j < J; j++) {
    s[j].x = fmaf(s[j].x, decay, input * b[j].x);
    s[j].y = fmaf(s[j].y, decay, input * b[j].y);
    s[j].z = fmaf(s[j].z, decay, input * b[j].z);
    s[j].w = fmaf(s[j].w, decay, input * b[j].w);
    y = fmaf(s[j].x, c[j].x, y);
    y = fmaf(s[j].y, c[j].y, y);
    y = fmaf(s[j].z, c[j].z, y);
    y = fmaf(s[j].w, c[j].w, y);
  }
#pragma unroll
  for (u32 o = 4; o; o >>= 1) y += __shfl_xor_sync(FULL_MASK, y, o);
  return y;
}

} // namespace scan

template <int J, int ROWS, bool NARROW> DEVICE void ssm_scan(const SsmScanParams &p) {
  pdl_launch_dependents();
  constexpr u32 BLOCK_ROWS = SCAN_WARPS * 4 * ROWS;
  u32 blocks = ceil_div(p.head_dim, BLOCK_ROWS);
  u32 head = blockIdx.x / blocks, sequence = blockIdx.y;
  u32 row0 = blockIdx.x % blocks * BLOCK_ROWS + (warp_id() * 4 + lane_id() / 8) * ROWS;
  kept::State<NARROW> state(p, p.batch.seq_base[sequence]);
  float4 s[ROWS][J];
#pragma unroll
  for (int i = 0; i < ROWS; i++) kept::load_row<8>(state, head * p.head_dim + row0 + i, row0 + i < p.head_dim, s[i]);
  float a = -expf(p.a_log[head]), d = p.d[head], bias = p.dt_bias[head];
  pdl_wait();
  u32 begin = p.batch.seq_start[sequence], end = p.batch.seq_start[sequence + 1];
  scan::Token<J, ROWS> here, next;
  here.load(p, begin, head, row0);
  for (u32 t = begin; t < end; t++) {
    next.load(p, min(t + 1, end - 1), head, row0);
    float dt = fminf(fmaxf(softplus(here.dt + bias), p.dt_min), p.dt_max);
    float decay = expf(dt * a);
    float *out = p.out + (u64)t * p.heads * p.head_dim + head * p.head_dim;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      float y = scan::update_row<J>(s[i], here.b, here.c, decay, dt * here.x[i]);
      if (lane_id() % 8 == 0 && row0 + i < p.head_dim) out[row0 + i] = fmaf(d, here.x[i], y);
    }
    here = next;
  }
  u32 key = kept::step_key(p.state_seed, p.batch.seq_pos[sequence] + end - begin);
#pragma unroll
  for (int i = 0; i < ROWS; i++)
    kept::store_row<8>(state, head * p.head_dim + row0 + i, row0 + i < p.head_dim, s[i], key);
}
