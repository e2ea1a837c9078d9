//! [`crate::plan::Kernel::Attention`].

use super::batch::Chunk;
use super::emit::{PARALLEL_ELEMENTS, emit};
use super::kv_cache::{KvCache, KvRows};
use super::program::{Op, Step};
use super::simd::{LANES, add_halves, exp, has_fma, madd, simd};
use super::storage::with_scratch;
use crate::plan::{BufferId, Emit, StateId};
use half::{bf16, f16};
use rayon::prelude::*;

pub(super) struct Attention {
    pub(super) q: BufferId,
    pub(super) k: BufferId,
    pub(super) v: BufferId,
    pub(super) state: StateId,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) scale: f32,
    pub(super) emit: Emit,
}

impl Op for Attention {
    fn run(&self, step: &mut Step<'_>) {
        let width = self.heads * self.head_dim;
        let kv_width = self.kv_heads * self.head_dim;
        let rows = step.buffers.rows(self.q);
        let results: &mut [f32] = step.scratch.inner.scratch(rows * width);
        for chunk in &step.batch.chunks {
            let cache = step.slots.kv_mut(chunk.slot, self.state);
            let keys = chunk.of(step.buffers.floats(self.k), kv_width);
            let values = chunk.of(step.buffers.floats(self.v), kv_width);
            cache.append(chunk.position, keys, values);
            let queries = chunk.of(step.buffers.floats(self.q), width);
            self.attend(queries, cache, chunk, chunk.of_mut(results, width));
        }
        let results = &*results;
        emit(&self.emit, width, step.buffers, |_, t, y| {
            y.copy_from_slice(&results[t * width..][..width]);
        });
    }
}

impl Attention {
    fn attend(&self, queries: &[f32], cache: &KvCache, chunk: &Chunk, out: &mut [f32]) {
        let elements = out.len() * (chunk.position + chunk.len);
        let head = |(index, out): (usize, &mut [f32])| {
            let (t, h) = (index / self.heads, index % self.heads);
            let tokens = chunk.position + t + 1;
            let view = HeadView {
                query: &queries[index * self.head_dim..][..self.head_dim],
                width: self.kv_heads * self.head_dim,
                start: h / (self.heads / self.kv_heads) * self.head_dim,
                scale: self.scale,
            };
            with_scratch(tokens, |scores| match (cache.keys(tokens), cache.values(tokens)) {
                (KvRows::F16(keys), KvRows::F16(values)) => attend_f16(&view, keys, values, scores, out),
                (KvRows::Bf16(keys), KvRows::Bf16(values)) => attend_bf16(&view, keys, values, scores, out),
                (KvRows::F32(keys), KvRows::F32(values)) => attend_f32(&view, keys, values, scores, out),
                _ => unreachable!("keys and values share their type"),
            });
        };
        if elements < PARALLEL_ELEMENTS {
            out.chunks_mut(self.head_dim).enumerate().for_each(head);
        } else {
            out.par_chunks_mut(self.head_dim).enumerate().for_each(head);
        }
    }
}

/// One query and where its head lies in the rows of the cache.
struct HeadView<'a> {
    query: &'a [f32],
    width: usize,
    start: usize,
    scale: f32,
}

/// An element of the cache.
trait Element: Copy {
    fn float(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn float(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn float(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn float(self) -> f32 {
        self.to_f32()
    }
}

simd! {
fn attend_f32(view: &HeadView<'_>, keys: &[f32], values: &[f32], scores: &mut [f32], out: &mut [f32]) {
    const FMA: bool = has_fma!();
    attend::<FMA, f32>(view, keys, values, scores, out);
}
}

simd! {
fn attend_bf16(view: &HeadView<'_>, keys: &[bf16], values: &[bf16], scores: &mut [f32], out: &mut [f32]) {
    const FMA: bool = has_fma!();
    attend::<FMA, bf16>(view, keys, values, scores, out);
}
}

simd! {
fn attend_f16(view: &HeadView<'_>, keys: &[f16], values: &[f16], scores: &mut [f32], out: &mut [f32]) {
    const FMA: bool = has_fma!();
    attend::<FMA, f16>(view, keys, values, scores, out);
}
}

/// Scores of all tokens, softmax, then the weighted sum of values from the first token to the last.
#[inline(always)]
fn attend<const FMA: bool, E: Element>(
    view: &HeadView<'_>,
    keys: &[E],
    values: &[E],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let dim = view.query.len();
    let mut max = f32::NEG_INFINITY;
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(view.width)) {
        *score = dot_key::<FMA, E>(view.query, &key[view.start..][..dim]) * view.scale;
        max = max.max(*score);
    }
    let mut sums = [0.0; LANES];
    for scores in scores.chunks_mut(LANES) {
        for (sum, score) in sums.iter_mut().zip(scores) {
            *score = exp(*score - max);
            *sum += *score;
        }
    }
    let normalizer = 1.0 / add_halves(sums);
    out.fill(0.0);
    for (score, value) in scores.iter().zip(values.chunks_exact(view.width)) {
        let weight = score * normalizer;
        for (out, value) in out.iter_mut().zip(&value[view.start..][..dim]) {
            *out = madd::<FMA>(weight, value.float(), *out);
        }
    }
}

#[inline(always)]
fn dot_key<const FMA: bool, E: Element>(query: &[f32], key: &[E]) -> f32 {
    let ((queries, query_rest), (keys, key_rest)) = (query.as_chunks::<LANES>(), key.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (query, key) in queries.iter().zip(keys) {
        for lane in 0..LANES {
            sums[lane] = madd::<FMA>(query[lane], key[lane].float(), sums[lane]);
        }
    }
    for (lane, (query, key)) in query_rest.iter().zip(key_rest).enumerate() {
        sums[lane] = madd::<FMA>(*query, key.float(), sums[lane]);
    }
    add_halves(sums)
}
