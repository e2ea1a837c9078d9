//! [`crate::plan::Kernel::Attention`].

use super::batch::Chunk;
use super::emit::{PARALLEL_ELEMENTS, emit};
use super::kv_cache::{KvCache, KvRows};
use super::program::{Op, Step};
use super::simd::{LANES, Out, Rows, add_halves, dot_floats, exp, has_fma, madd, simd};
use super::storage::with_scratch;
use crate::plan::{BufferId, Emit, StateId};
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
    /// All tokens of a chunk. The query heads that share a key-value head are taken together.
    fn attend(&self, queries: &[f32], cache: &KvCache, chunk: &Chunk, out: &mut [f32]) {
        let group = self.heads / self.kv_heads * self.head_dim;
        let work = out.len() * (chunk.position + chunk.len);
        let task = |(index, out): (usize, &mut [f32])| {
            let (t, kv_head) = (index / self.kv_heads, index % self.kv_heads);
            let head = Head {
                width: self.kv_heads * self.head_dim,
                start: kv_head * self.head_dim,
                dim: self.head_dim,
                scale: self.scale,
            };
            head.attend(&queries[index * group..][..group], cache, chunk.position + t + 1, out);
        };
        if work < PARALLEL_ELEMENTS {
            out.chunks_mut(group).enumerate().for_each(task);
        } else {
            out.par_chunks_mut(group).enumerate().for_each(task);
        }
    }
}

/// Cache rows are taken this many at a time.
const BLOCK: usize = 64;

/// Where a key-value head lies in the rows of the cache.
struct Head {
    width: usize,
    start: usize,
    dim: usize,
    scale: f32,
}

impl Head {
    /// Scores of all tokens, softmax, then the weighted sum of values from the first token to the last.
    fn attend(&self, queries: &[f32], cache: &KvCache, tokens: usize, out: &mut [f32]) {
        let heads = queries.len() / self.dim;
        with_scratch(heads * (tokens + BLOCK) + BLOCK * self.dim, |scratch: &mut [f32]| {
            let (scores, scratch) = scratch.split_at_mut(heads * tokens);
            let (products, rows) = scratch.split_at_mut(heads * BLOCK);
            let queries = Rows::new(queries, self.dim);
            for first in (0..tokens).step_by(BLOCK) {
                let count = BLOCK.min(tokens - first);
                self.load(cache.keys(tokens), first, &mut rows[..count * self.dim]);
                let keys = Rows::new(&rows[..count * self.dim], self.dim);
                dot_floats(keys, queries, Out { data: products, stride: BLOCK });
                for (scores, products) in scores.chunks_exact_mut(tokens).zip(products.chunks_exact(BLOCK)) {
                    scores[first..][..count].copy_from_slice(&products[..count]);
                }
            }
            for scores in scores.chunks_exact_mut(tokens) {
                softmax(scores, self.scale);
            }
            out.fill(0.0);
            for first in (0..tokens).step_by(BLOCK) {
                let count = BLOCK.min(tokens - first);
                self.load(cache.values(tokens), first, &mut rows[..count * self.dim]);
                for (scores, out) in scores.chunks_exact(tokens).zip(out.chunks_exact_mut(self.dim)) {
                    add_weighted(&scores[first..][..count], &rows[..count * self.dim], out);
                }
            }
        });
    }

    /// Rows `first..` of this head as floats.
    fn load(&self, rows: KvRows<'_>, first: usize, to: &mut [f32]) {
        for (row, to) in to.chunks_exact_mut(self.dim).enumerate() {
            rows.load((first + row) * self.width + self.start, to);
        }
    }
}

simd! {
fn softmax(scores: &mut [f32], scale: f32) {
    let max = scores.iter().fold(f32::NEG_INFINITY, |max, score| max.max(score * scale));
    for score in scores.iter_mut() {
        *score = exp(*score * scale - max);
    }
    let (chunks, rest) = scores.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *sum += score;
        }
    }
    for (sum, score) in sums.iter_mut().zip(rest) {
        *sum += score;
    }
    let normalizer = 1.0 / add_halves(sums);
    for score in scores {
        *score *= normalizer;
    }
}
}

simd! {
fn add_weighted(weights: &[f32], rows: &[f32], out: &mut [f32]) {
    const FMA: bool = has_fma!();
    for (weight, row) in weights.iter().zip(rows.chunks_exact(out.len())) {
        for (out, value) in out.iter_mut().zip(row) {
            *out = madd::<FMA>(*weight, *value, *out);
        }
    }
}
}
