// Plan kernel `ssm_scan` for chunks of many tokens: as ssm_scan, with the tokens staged in shared memory.
//
// Bound by three multiply-adds an element of state and token: 24 layers of 2048 tokens of 8B are 155 G, 5.4 ms on an
// H200. Token by token keeps f32 and the order of the CPU's recurrence.
//
// - A block has one head, or LONG_SCAN_WARPS * 8 rows of it; SCAN_STAGE_TOKENS tokens (x, B, C and dt of the head) are copied
//   while as many are computed. dt and decay are made once a token.
// - Sixteen lanes share four rows; their four sums are exchanged in five shuffles. Two warps a scheduler hide each
//   other's waits.
//
// Supports state sizes and head_dim that are multiples of 4.
#pragma once
#include "ssm_scan.cuh"

namespace scan {

constexpr u32 ROWS = 4;
constexpr u32 LONG_THREADS = LONG_SCAN_WARPS * WARP;
constexpr u32 LANES = 16;

// Layout of a token in shared memory, in floats: B, C, x, each aligned to 16 bytes.
struct Stage {
  float *base;
  u32 state_size, head_dim;
  DEVICE u32 token_floats() const { return 2 * state_size + head_dim; }
  DEVICE float *token(u32 t) const { return base + t * token_floats(); }
  DEVICE float *dt() const { return base + SCAN_STAGE_TOKENS * token_floats(); }
  DEVICE float *decay() const { return dt() + SCAN_STAGE_TOKENS; }
  DEVICE u32 floats() const { return SCAN_STAGE_TOKENS * (token_floats() + 2); }
};

DEVICE void request_tokens(const SsmScanParams &p, const Stage &stage, u32 head, u32 begin, u32 end) {
  u32 inner = p.heads * p.head_dim, group = head / (p.heads / p.groups);
  u32 width = inner + 2 * p.groups * p.state_size, pieces = stage.token_floats() / 4;
  u32 count = end > begin ? min(end - begin, SCAN_STAGE_TOKENS) : 0;
  for (u32 i = threadIdx.x; i < count * pieces; i += LONG_THREADS) {
    u32 t = i / pieces, at = i % pieces * 4, column;
    if (at < p.state_size)
      column = inner + group * p.state_size + at;
    else if (at < 2 * p.state_size)
      column = inner + (p.groups + group) * p.state_size + at - p.state_size;
    else
      column = head * p.head_dim + at - 2 * p.state_size;
    copy_async16(smem_address(stage.token(t) + at), p.xbc + (u64)(begin + t) * width + column, true);
  }
  if (threadIdx.x < count)
    copy_async4(smem_address(stage.dt() + threadIdx.x), p.dt + (u64)(begin + threadIdx.x) * p.heads + head);
  copy_async_commit();
}

// Four columns of a row: the state moves on, and gives its part of y.
DEVICE void step(float4 &s, float4 b, float4 c, float decay, float input, float &y) {
  s.x = fmaf(s.x, decay, input * b.x);
  s.y = fmaf(s.y, decay, input * b.y);
  s.z = fmaf(s.z, decay, input * b.z);
  s.w = fmaf(s.w, decay, input * b.w);
  y = fmaf(s.x, c.x, y);
  y = fmaf(s.y, c.y, y);
  y = fmaf(s.z, c.z, y);
  y = fmaf(s.w, c.w, y);
}

DEVICE float4 load_four(const float *from, u32 at, u32 n) {
  return at < n ? *(const float4 *)(from + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

// Sums four values over sixteen lanes; lane l gets the sum of value l / 4.
DEVICE float exchange(const float (&y)[ROWS]) {
  bool high = lane_id() & 8, odd = lane_id() & 4;
  float a = (high ? y[2] : y[0]) + __shfl_xor_sync(FULL_MASK, high ? y[0] : y[2], 8);
  float b = (high ? y[3] : y[1]) + __shfl_xor_sync(FULL_MASK, high ? y[1] : y[3], 8);
  float sum = (odd ? b : a) + __shfl_xor_sync(FULL_MASK, odd ? a : b, 4);
  sum += __shfl_xor_sync(FULL_MASK, sum, 2);
  return sum + __shfl_xor_sync(FULL_MASK, sum, 1);
}

template <int J> struct Rows {
  float4 s[ROWS][J];

  template <bool NARROW> DEVICE void load(const kept::State<NARROW> &state, u32 first, bool there) {
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) kept::load_row<LANES>(state, first + i, there, s[i]);
  }

  template <bool NARROW> DEVICE void store(const kept::State<NARROW> &state, u32 first, bool there, u32 key) const {
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) kept::store_row<LANES>(state, first + i, there, s[i], key);
  }

  DEVICE void token(const Stage &stage, u32 t, u32 row0, float d, float *out) {
    const float *token = stage.token(t), *x = token + 2 * stage.state_size;
    float dt = stage.dt()[t], decay = stage.decay()[t];
    bool there = row0 < stage.head_dim;
    float4 inputs = load_four(x, row0, stage.head_dim);
    float input[ROWS] = {dt * inputs.x, dt * inputs.y, dt * inputs.z, dt * inputs.w}, y[ROWS] = {};
#pragma unroll
    for (int j = 0; j < J; j++) {
      u32 at = kept::column<LANES>(j);
      float4 b = load_four(token, at, stage.state_size), c = load_four(token + stage.state_size, at, stage.state_size);
#pragma unroll
      for (u32 i = 0; i < ROWS; i++) step(s[i][j], b, c, decay, input[i], y[i]);
    }
    float sum = exchange(y);
    u32 row = lane_id() % LANES / 4;
    if (there && lane_id() % 4 == 0) out[row0 + row] = fmaf(d, x[row0 + row], sum);
  }
};

} // namespace scan

template <int J, bool NARROW> DEVICE void ssm_scan_long(const SsmScanParams &p) {
  using namespace scan;
  extern __shared__ __align__(16) float staged[];
  pdl_launch_dependents();
  constexpr u32 BLOCK_ROWS = LONG_SCAN_WARPS * 2 * ROWS;
  u32 blocks = ceil_div(p.head_dim, BLOCK_ROWS);
  u32 head = blockIdx.x / blocks, sequence = blockIdx.y;
  u32 row0 = blockIdx.x % blocks * BLOCK_ROWS + (warp_id() * 2 + lane_id() / LANES) * ROWS;
  kept::State<NARROW> state(p, p.batch.seq_base[sequence]);
  Rows<J> rows;
  rows.load(state, head * p.head_dim + row0, row0 < p.head_dim);
  float a = -expf(p.a_log[head]), d = p.d[head], bias = p.dt_bias[head];
  pdl_wait();
  u32 begin = p.batch.seq_start[sequence], end = p.batch.seq_start[sequence + 1];
  Stage here = {staged, p.state_size, p.head_dim}, next = here;
  next.base += here.floats();
  request_tokens(p, here, head, begin, end);
  for (u32 t0 = begin; t0 < end; t0 += SCAN_STAGE_TOKENS) {
    request_tokens(p, next, head, t0 + SCAN_STAGE_TOKENS, end);
    copy_async_wait<1>();
    u32 count = min(end - t0, SCAN_STAGE_TOKENS);
    // The thread that copied a dt makes it ready: its own copies are there.
    if (threadIdx.x < count) {
      float dt = fminf(fmaxf(softplus(here.dt()[threadIdx.x] + bias), p.dt_min), p.dt_max);
      here.dt()[threadIdx.x] = dt;
      here.decay()[threadIdx.x] = expf(dt * a);
    }
    __syncthreads();
    float *out = p.out + (u64)t0 * p.heads * p.head_dim + head * p.head_dim;
#pragma unroll 2
    for (u32 t = 0; t < count; t++, out += p.heads * p.head_dim) rows.token(here, t, row0, d, out);
    __syncthreads();
    Stage swap = here;
    here = next, next = swap;
  }
  u32 key = kept::step_key(p.state_seed, p.batch.seq_pos[sequence] + end - begin);
  rows.store(state, head * p.head_dim + row0, row0 < p.head_dim, key);
}
