// Plan kernel `mixer`, first half, for one token a sequence: conv1d and ssm_scan in one launch.
//
// Bound by the state: 8B reads and writes 2 x 4 MB a layer and sequence, 1.8 us at 4.55 TB/s.
//
// A block convolves the columns that its rows of the state need: B, C and its part of x, a few channels a thread. Blocks that
// share B and C do the same for themselves, so nobody can move the window on: gated_rms_norm_step does.
//
// Whatever is loaded is on its way before the first of it is used: one latency of the memory, not one a channel.
#pragma once
#include "ssm_scan.cuh"

namespace scan {

// What a channel is convolved with but for its newest value. As conv1d adds: the newest comes last.
struct Channel {
  static constexpr u32 KEPT = 3; // taps before the newest that nobody waits for yet
  float sum, w[KEPT], seen[KEPT], newest_w;

  DEVICE void load(const Conv1dParams &p, const float *state, u32 c) {
    u32 back = p.taps - 1;
    const float *weights = p.weight + (u64)c * p.taps, *window = state + (u64)c * back;
    newest_w = weights[back];
    sum = p.bias ? p.bias[c] : 0.0f;
#pragma unroll
    for (u32 k = 0; k < KEPT; k++) {
      bool there = k < back;
      w[k] = there ? weights[(int)(back - 1 - k)] : 0.0f;
      seen[k] = there ? window[(int)(back - 1 - k)] : 0.0f;
    }
#pragma unroll 1
    for (u32 j = 0; j + KEPT < back; j++) sum = fmaf(weights[j], window[j], sum);
  }

  DEVICE float convolve(float newest) const {
    float y = sum;
#pragma unroll
    for (u32 k = KEPT; k-- > 0;) y = fmaf(w[k], seen[k], y);
    return silu(fmaf(newest_w, newest, y));
  }
};

// Columns a block convolves: B, C, then `rows` of x.
struct Columns {
  u32 state_size, rows, x0, b0, c0;
  DEVICE u32 count() const { return 2 * state_size + rows; }
  DEVICE u32 channel(u32 i) const {
    if (i < state_size) return b0 + i;
    return i < 2 * state_size ? c0 + i - state_size : x0 + i - 2 * state_size;
  }
};

} // namespace scan

template <int J, bool NARROW> DEVICE void ssm_scan_step(const ScanStepParams &q) {
  using namespace scan;
  constexpr u32 BLOCK_ROWS = SCAN_WARPS * 4, THREADS = SCAN_WARPS * WARP;
  constexpr u32 TURNS = (2 * 32 * J + BLOCK_ROWS + THREADS - 1) / THREADS;
  __shared__ __align__(16) float convolved[TURNS * THREADS];
  const SsmScanParams &p = q.scan;
  pdl_launch_dependents();
  u32 blocks = ceil_div(p.head_dim, BLOCK_ROWS), head = blockIdx.x / blocks, sequence = blockIdx.y;
  u32 first = blockIdx.x % blocks * BLOCK_ROWS, mine = warp_id() * 4 + lane_id() / 8, row = first + mine;
  u32 inner = p.heads * p.head_dim, group = head / (p.heads / p.groups);
  u64 base = p.batch.seq_base[sequence];
  kept::State<NARROW> state(p, base);
  const float *window = (const float *)(base + q.conv.state_offset);
  bool there = row < p.head_dim;
  kept::Row<8, NARROW, J> before(state, head * p.head_dim + row, there);
  Columns columns = {p.state_size, min(BLOCK_ROWS, p.head_dim - first), head * p.head_dim + first,
                     inner + group * p.state_size, inner + (p.groups + group) * p.state_size};
  Channel channels[TURNS];
#pragma unroll
  for (u32 i = 0; i < TURNS; i++) {
    u32 at = i * THREADS + threadIdx.x;
    if (at < columns.count()) channels[i].load(q.conv, window, columns.channel(at));
  }
  float a_log = p.a_log[head], d = p.d[head], bias = p.dt_bias[head];
  u32 key = NARROW ? kept::step_key(p.state_seed, p.batch.seq_pos[sequence] + 1) : 0;
  pdl_wait();
  float raw = p.dt[(u64)sequence * p.heads + head], newest[TURNS];
#pragma unroll
  for (u32 i = 0; i < TURNS; i++) {
    u32 at = i * THREADS + threadIdx.x;
    if (at < columns.count()) newest[i] = q.conv.x[(u64)sequence * q.conv.channels + columns.channel(at)];
  }
  float a = -expf(a_log);
  kept::Noise<8, NARROW, J> noise(state, head * p.head_dim + row, key);
#pragma unroll
  for (u32 i = 0; i < TURNS; i++) {
    u32 at = i * THREADS + threadIdx.x;
    if (at < columns.count()) convolved[at] = channels[i].convolve(newest[i]);
  }
  __syncthreads();
  float4 s[J], b[J], c[J];
  before.unpack(state, s);
  load_columns<J>(convolved, p.state_size, b);
  load_columns<J>(convolved + p.state_size, p.state_size, c);
  float x = there ? convolved[2 * p.state_size + mine] : 0.0f;
  float dt = fminf(fmaxf(softplus(raw + bias), p.dt_min), p.dt_max);
  float decay = expf(dt * a);
  float y = update_row<J>(s, b, c, decay, dt * x);
  if (lane_id() % 8 == 0 && there) p.out[(u64)sequence * inner + head * p.head_dim + row] = fmaf(d, x, y);
  kept::store_row<8>(state, head * p.head_dim + row, there, s, noise, fabsf(y) < __uint_as_float(kept::INFINITE));
}
