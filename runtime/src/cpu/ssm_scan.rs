//! [`crate::plan::Kernel::SsmScan`].

use super::batch::Batch;
use super::emit::PARALLEL_ELEMENTS;
use super::program::{Op, Step};
use super::simd::{Out, Rows, dot_floats, has_fma, madd, simd};
use super::slots::{Slots, State};
use super::storage::Storage;
use super::tensors::Tensors;
use crate::plan::{BufferId, PlanError, SsmShape, SsmWeights, StateId};
use rayon::prelude::*;
use std::borrow::Cow;

/// The recurrence itself, shared with [`crate::plan::Kernel::Mixer`].
pub(super) struct Heads<'a> {
    shape: SsmShape,
    /// `-exp(A_log)`.
    a: Vec<f32>,
    d: Cow<'a, [f32]>,
    dt_bias: Cow<'a, [f32]>,
}

/// One head over the tokens of one sequence.
struct Head<'a> {
    /// Row-major `[tokens, stride]`.
    xbc: &'a [f32],
    stride: usize,
    /// First columns of x, B and C of this head.
    x: usize,
    b: usize,
    c: usize,
    /// Row-major `[tokens, heads]`.
    dt: &'a [f32],
    heads: usize,
    head: usize,
    head_dim: usize,
    state_size: usize,
    a: f32,
    d: f32,
    dt_bias: f32,
    dt_min: f32,
    dt_max: f32,
}

impl<'a> Heads<'a> {
    pub(super) fn new(weights: &SsmWeights, shape: SsmShape, tensors: Tensors<'a>) -> Result<Self, PlanError> {
        let a_log: Cow<'_, [f32]> = tensors.get(&weights.a_log)?;
        Ok(Heads {
            shape,
            a: a_log.iter().map(|a_log| -a_log.exp()).collect(),
            d: tensors.get(&weights.d)?,
            dt_bias: tensors.get(&weights.dt_bias)?,
        })
    }

    /// Columns of the result.
    pub(super) fn inner(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    fn head<'h>(&self, head: usize, xbc: &'h [f32], dt: &'h [f32]) -> Head<'h> {
        let shape = &self.shape;
        let group = head / (shape.heads / shape.groups);
        let inner = self.inner();
        Head {
            xbc,
            stride: inner + 2 * shape.groups * shape.state_size,
            x: head * shape.head_dim,
            b: inner + group * shape.state_size,
            c: inner + (shape.groups + group) * shape.state_size,
            dt,
            heads: shape.heads,
            head,
            head_dim: shape.head_dim,
            state_size: shape.state_size,
            a: self.a[head],
            d: self.d[head],
            dt_bias: self.dt_bias[head],
            dt_min: shape.dt_min,
            dt_max: shape.dt_max.unwrap_or(f32::INFINITY),
        }
    }

    /// Scans all sequences of a batch and moves their states on. Heads run in parallel, tokens in order.
    pub(super) fn run(
        &self,
        inputs: (&[f32], &[f32]),
        batch: &Batch,
        slots: &mut Slots,
        state: StateId,
        scratch: (&mut Storage, &mut Storage),
        out: &mut [f32],
    ) {
        let (results, unpacked) = scratch;
        let (heads, head_dim, inner) = (self.shape.heads, self.shape.head_dim, self.inner());
        let columns = inner + 2 * self.shape.groups * self.shape.state_size;
        let head_state = head_dim * self.shape.state_size;
        for chunk in &batch.chunks {
            let (xbc, dt) = (chunk.of(inputs.0, columns), chunk.of(inputs.1, heads));
            let results: &mut [f32] = results.scratch(chunk.len * inner);
            let kept = slots.known_mut(chunk.slot, state);
            let states = floats(kept, unpacked);
            let work = |(h, (state, y)): (usize, (&mut [f32], &mut [f32]))| scan(&self.head(h, xbc, dt), state, y);
            if chunk.len * head_state * heads < PARALLEL_ELEMENTS {
                states.chunks_mut(head_state).zip(results.chunks_mut(chunk.len * head_dim)).enumerate().for_each(work);
            } else {
                let states = states.par_chunks_mut(head_state);
                states.zip(results.par_chunks_mut(chunk.len * head_dim)).enumerate().for_each(work);
            }
            if let State::Scan(kept) = kept {
                kept.store(unpacked.view(heads * head_state), chunk.position + chunk.len);
            }
            for (t, out) in chunk.of_mut(out, inner).chunks_exact_mut(inner).enumerate() {
                for (h, out) in out.chunks_exact_mut(head_dim).enumerate() {
                    out.copy_from_slice(&results[(h * chunk.len + t) * head_dim..][..head_dim]);
                }
            }
        }
    }
}

/// The values of a state: itself, or unpacked into scratch.
fn floats<'s>(state: &'s mut State, unpacked: &'s mut Storage) -> &'s mut [f32] {
    match state {
        State::Fixed(values) => values,
        State::Scan(state) => {
            let values = unpacked.scratch(state.len());
            state.load(values);
            values
        }
        State::Kv(_) => unreachable!("a validated plan keeps its state kinds apart"),
    }
}

simd! {
/// `state` is `[head_dim, state_size]`, `y` `[tokens, head_dim]`.
fn scan(head: &Head<'_>, state: &mut [f32], y: &mut [f32]) {
    const FMA: bool = has_fma!();
    for (t, y) in y.chunks_exact_mut(head.head_dim).enumerate() {
        let row = &head.xbc[t * head.stride..][..head.stride];
        let x = &row[head.x..][..head.head_dim];
        let (b, c) = (&row[head.b..][..head.state_size], &row[head.c..][..head.state_size]);
        let dt = softplus(head.dt[t * head.heads + head.head] + head.dt_bias).max(head.dt_min).min(head.dt_max);
        let decay = (dt * head.a).exp();
        for (state, x) in state.chunks_exact_mut(head.state_size).zip(x) {
            let input = dt * x;
            for (s, b) in state.iter_mut().zip(b) {
                *s = madd::<FMA>(*s, decay, input * b);
            }
        }
        dot_floats(Rows::new(state, head.state_size), Rows::new(c, head.state_size), Out { data: y, stride: head.head_dim });
        for (y, x) in y.iter_mut().zip(x) {
            *y = madd::<FMA>(head.d, *x, *y);
        }
    }
}
}

/// `ln(1 + e^x)`.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

pub(super) struct SsmScan<'a> {
    pub(super) xbc: BufferId,
    pub(super) dt: BufferId,
    pub(super) heads: Heads<'a>,
    pub(super) state: StateId,
    pub(super) out: BufferId,
}

impl Op for SsmScan<'_> {
    fn run(&self, step: &mut Step<'_>) {
        step.buffers.write(self.out, |buffers, out| {
            let inputs = (buffers.floats(self.xbc), buffers.floats(self.dt));
            let scratch = (&mut step.scratch.results, &mut step.scratch.state);
            self.heads.run(inputs, step.batch, step.slots, self.state, scratch, out);
        });
    }
}
