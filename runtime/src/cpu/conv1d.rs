//! [`crate::plan::Kernel::Conv1d`].

use super::batch::{Batch, Chunk};
use super::emit::for_rows;
use super::gated_rms_norm::silu;
use super::program::{Op, Step};
use super::simd::simd;
use super::slots::Slots;
use super::tensors::Tensors;
use crate::plan::{BufferId, ConvWeights, PlanError, StateId};
use std::borrow::Cow;

/// The convolution itself, shared with [`crate::plan::Kernel::Mixer`].
pub(super) struct Filter {
    /// `[taps, channels]`: transposed, so that channels are contiguous.
    taps: Vec<f32>,
    bias: Vec<f32>,
    channels: usize,
    kernel: usize,
}

impl Filter {
    pub(super) fn new(weights: &ConvWeights, tensors: Tensors<'_>) -> Result<Filter, PlanError> {
        let (channels, kernel) = (weights.channels, weights.kernel);
        let stored: Cow<'_, [f32]> = tensors.get(&weights.weight)?;
        let transposed = (0..kernel).flat_map(|j| (0..channels).map(move |c| (c, j)));
        let taps = transposed.map(|(c, j)| stored[c * kernel + j]).collect();
        let bias = tensors.get_optional(weights.bias.as_ref())?;
        Ok(Filter { taps, bias: bias.map_or_else(|| vec![0.0; channels], Cow::into_owned), channels, kernel })
    }

    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Filters all sequences of a batch and moves their windows on.
    pub(super) fn run(&self, x: &[f32], batch: &Batch, slots: &mut Slots, state: StateId, out: &mut [f32]) {
        for chunk in &batch.chunks {
            let window = slots.fixed_mut(chunk.slot, state);
            let (x, out) = (chunk.of(x, self.channels), chunk.of_mut(out, self.channels));
            for_rows(out, self.channels, |t, out| self.row(x, window, t, out));
            self.slide(x, window, chunk);
        }
    }

    fn row(&self, x: &[f32], window: &[f32], t: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.bias);
        let past = self.kernel - 1;
        for (j, taps) in self.taps.chunks_exact(self.channels).enumerate() {
            match (t + j).checked_sub(past) {
                Some(row) => add_products(out, taps, &x[row * self.channels..][..self.channels]),
                None => {
                    let inputs = window[t + j..].iter().step_by(past);
                    for ((out, tap), x) in out.iter_mut().zip(taps).zip(inputs) {
                        *out += tap * x;
                    }
                }
            }
        }
        activate(out);
    }

    /// Keeps the last `kernel - 1` inputs.
    fn slide(&self, x: &[f32], window: &mut [f32], chunk: &Chunk) {
        let past = self.kernel - 1;
        if past == 0 {
            return;
        }
        for (c, window) in window.chunks_exact_mut(past).enumerate() {
            for j in 0..past {
                window[j] = match (chunk.len + j).checked_sub(past) {
                    Some(row) => x[row * self.channels + c],
                    None => window[chunk.len + j],
                };
            }
        }
    }
}

simd! {
fn add_products(out: &mut [f32], taps: &[f32], x: &[f32]) {
    for ((out, tap), x) in out.iter_mut().zip(taps).zip(x) {
        *out += tap * x;
    }
}
}

simd! {
fn activate(out: &mut [f32]) {
    for out in out {
        *out = silu(*out);
    }
}
}

pub(super) struct Conv1d {
    pub(super) x: BufferId,
    pub(super) filter: Filter,
    pub(super) state: StateId,
    pub(super) out: BufferId,
}

impl Op for Conv1d {
    fn run(&self, step: &mut Step<'_>) {
        step.buffers.write(self.out, |buffers, out| {
            self.filter.run(buffers.floats(self.x), step.batch, step.slots, self.state, out);
        });
    }
}
