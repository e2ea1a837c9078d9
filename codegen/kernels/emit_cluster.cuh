// How a row of few columns leaves the blocks of a cluster: as emit_row, with the peak of cluster_peaks.cuh.
#pragma once
#include "cluster_peaks.cuh"
#include "emit.cuh"

template <u32 WARPS> struct EmitCluster {
  ClusterPeaks<WARPS> peaks;

  static DEVICE bool together(const Emit &e) { return e.format != EMIT_FLOAT && cluster_size() > 1; }

  // By all threads, early.
  DEVICE void init(const Emit &e) {
    if (together(e)) peaks.init();
  }

  // Up to four columns a thread.
  DEVICE void emit_together(float *row, const RowPart &part, const Emit &e) {
    if (e.hadamard_block > 1) hadamard_row(row, part.n, e.hadamard_block);
    u32 i = threadIdx.x * 4;
    float4 v = i < part.n ? *(const float4 *)(row + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    Quantizer quantizer(peaks.most_of_cluster(largest(v)), e.format == EMIT_U8);
    if (i < part.n) *(u32 *)((u8 *)e.out + part.at(e.n_padded, i)) = quantizer.pack(v);
    if (threadIdx.x == 0 && part.begin == 0) e.out_scale[part.row] = quantizer.scale();
  }

  // The caller has synchronized after writing `row`. A part that is not the whole row has multiples of four columns and no padding.
  DEVICE void emit(float *row, const Emit &e) {
    RowPart part(e.n);
    if (together(e))
      emit_together(row, part, e);
    else
      emit_row(row, part, e, peaks.of);
  }
};
