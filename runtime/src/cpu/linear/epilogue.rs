//! From transposed sums to the rows of a buffer.

use super::super::buffers::Buffers;
use super::super::emit::PARALLEL_ELEMENTS;
use super::super::map::relu2;
use super::{ResolvedSegment, Weight};
use crate::plan::{BufferId, Epilogue};
use bytemuck::Pod;
use rayon::prelude::*;
use std::ops::Range;

/// Tokens and weight rows of a square that is turned around at once.
const TILE: usize = 16;

/// `sums` is `[weight rows, tokens]`.
pub(super) fn run(
    segment: &ResolvedSegment<'_>,
    sums: &[u32],
    x_scale: Option<BufferId>,
    tokens: Range<usize>,
    buffers: &mut Buffers,
) {
    if segment.epilogue == Epilogue::Accumulator {
        buffers.write(segment.out, |_, out: &mut [i32]| {
            let out = &mut out[tokens.start * segment.rows..tokens.end * segment.rows];
            transpose(bytemuck::cast_slice::<u32, i32>(sums), segment.rows, out, |out, sum, _, _| *out = sum);
        });
        return;
    }
    buffers.write(segment.out, |buffers, out: &mut [f32]| {
        let out = &mut out[tokens.start * segment.rows..tokens.end * segment.rows];
        let x_scale = x_scale.map_or(&[][..], |scale| &buffers.floats(scale)[tokens]);
        store(segment, sums, x_scale, out);
    });
}

fn store(segment: &ResolvedSegment<'_>, sums: &[u32], x_scale: &[f32], out: &mut [f32]) {
    match &segment.weight {
        Weight::W8 { scale, .. } | Weight::W4TwoLevel { scale, .. } => {
            let sums: &[i32] = bytemuck::cast_slice(sums);
            finish(segment, sums, out, |sum, t, n| sum as f32 * (x_scale[t] * scale[n]));
        }
        Weight::W4Group { .. } => {
            let sums: &[f32] = bytemuck::cast_slice(sums);
            finish(segment, sums, out, |sum, t, _| sum * x_scale[t]);
        }
        Weight::F32(_) | Weight::F16(_) | Weight::Bf16(_) => {
            let sums: &[f32] = bytemuck::cast_slice(sums);
            finish(segment, sums, out, |sum, _, _| sum);
        }
    }
}

fn finish<S: Pod + Sync>(
    segment: &ResolvedSegment<'_>,
    sums: &[S],
    out: &mut [f32],
    value: impl Fn(S, usize, usize) -> f32 + Sync,
) {
    let rows = segment.rows;
    match segment.epilogue {
        Epilogue::Accumulate => transpose(sums, rows, out, |out, sum, t, n| *out += value(sum, t, n)),
        Epilogue::Relu2 => transpose(sums, rows, out, |out, sum, t, n| *out = relu2(value(sum, t, n))),
        _ => transpose(sums, rows, out, |out, sum, t, n| *out = value(sum, t, n)),
    }
}

/// Calls `f(out[t, n], sums[n, t], t, n)` for all t and n.
fn transpose<S: Pod + Sync, O: Send>(
    sums: &[S],
    rows: usize,
    out: &mut [O],
    f: impl Fn(&mut O, S, usize, usize) + Sync,
) {
    let tokens = out.len() / rows;
    let band = |(index, band): (usize, &mut [O])| {
        for n in (0..rows).step_by(TILE) {
            let end = rows.min(n + TILE);
            for (i, out) in band.chunks_exact_mut(rows).enumerate() {
                let t = index * TILE + i;
                for (n, out) in (n..end).zip(&mut out[n..end]) {
                    f(out, sums[n * tokens + t], t, n);
                }
            }
        }
    };
    if out.len() < PARALLEL_ELEMENTS {
        out.chunks_mut(TILE * rows).enumerate().for_each(band);
    } else {
        out.par_chunks_mut(TILE * rows).enumerate().for_each(band);
    }
}
