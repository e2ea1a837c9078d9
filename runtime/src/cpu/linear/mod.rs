//! [`crate::plan::Kernel::Linear`].
//!
//! One code path for one token and for many. Tokens are taken in panels whose activations stay in the second-level
//! cache; all threads share the weight rows of a panel; a thread multiplies a few weight rows, unpacked once, with
//! every token of the panel. The sums arrive transposed, `[weight row, token]`, and the epilogue turns them around.

mod epilogue;
mod weight;

pub(super) use weight::Weight;

use super::buffers::Buffers;
use super::emit::PARALLEL_ELEMENTS;
use super::program::{Op, Step};
use super::simd::Rows;
use super::tensors::Tensors;
use crate::plan::{Activation, BufferId, DType, Epilogue, K_ALIGN, PlanError, Segment};
use rayon::prelude::*;
use std::ops::Range;

/// Activations of a panel fill at most this much.
const PANEL_BYTES: usize = 384 << 10;
/// Most tokens of a panel.
const PANEL_TOKENS: usize = 256;
/// Weight rows are handed to threads in multiples of this.
const ROW_BLOCK: usize = 8;
/// Tasks a thread, so that an idle thread finds something to take over.
const TASKS_PER_THREAD: usize = 8;

pub(super) struct Linear<'a> {
    x: Activation,
    in_features: usize,
    segments: Vec<ResolvedSegment<'a>>,
    /// Weight rows of all segments.
    rows: usize,
}

struct ResolvedSegment<'a> {
    weight: Weight<'a>,
    /// Its first row among those of all segments.
    start: usize,
    rows: usize,
    epilogue: Epilogue,
    out: BufferId,
}

/// Activation rows as the inner loops take them.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    Float(Rows<'a, f32>),
    Bytes { rows: Rows<'a, u8>, signed: bool },
}

impl<'a> Linear<'a> {
    pub(super) fn new(
        x: Activation,
        in_features: usize,
        segments: &[Segment],
        tensors: Tensors<'a>,
    ) -> Result<Self, PlanError> {
        let mut rows = 0;
        let mut resolved = Vec::new();
        for segment in segments {
            resolved.push(ResolvedSegment {
                weight: Weight::new(&segment.weight, segment.format, in_features, tensors)?,
                start: rows,
                rows: segment.out_features,
                epilogue: segment.epilogue,
                out: segment.out,
            });
            rows += segment.out_features;
        }
        Ok(Linear { x, in_features, segments: resolved, rows })
    }

    fn row_bytes(&self) -> usize {
        match self.x {
            Activation::Float { .. } => self.in_features * 4,
            Activation::Quantized { .. } => self.in_features.next_multiple_of(K_ALIGN),
        }
    }

    fn input<'b>(&self, buffers: &'b Buffers, tokens: Range<usize>) -> Input<'b> {
        match self.x {
            Activation::Float { data } => {
                let k = self.in_features;
                let rows = &buffers.floats(data)[tokens.start * k..tokens.end * k];
                Input::Float(Rows::new(rows, k))
            }
            Activation::Quantized { data, .. } => {
                let k = self.in_features.next_multiple_of(K_ALIGN);
                let rows = &buffers.raw(data)[tokens.start * k..tokens.end * k];
                Input::Bytes { rows: Rows::new(rows, k), signed: buffers.dtype(data) == DType::I8 }
            }
        }
    }

    /// Sums of all weight rows with the tokens of a panel.
    fn multiply(&self, input: Input<'_>, tokens: usize, sums: &mut [u32]) {
        let work = self.rows * tokens * self.in_features;
        if work < 4 * PARALLEL_ELEMENTS {
            return self.multiply_rows(0, input, tokens, sums);
        }
        let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
        let rows = self.rows.div_ceil(tasks).next_multiple_of(ROW_BLOCK);
        let chunks = sums.par_chunks_mut(rows * tokens).enumerate();
        chunks.for_each(|(index, sums)| self.multiply_rows(index * rows, input, tokens, sums));
    }

    /// `sums` is `[some rows from first on, tokens]`; they may belong to several segments.
    fn multiply_rows(&self, first: usize, input: Input<'_>, tokens: usize, sums: &mut [u32]) {
        let end = first + sums.len() / tokens;
        for segment in &self.segments {
            let rows = first.max(segment.start)..end.min(segment.start + segment.rows);
            if !rows.is_empty() {
                let sums = &mut sums[(rows.start - first) * tokens..(rows.end - first) * tokens];
                let rows = rows.start - segment.start..rows.end - segment.start;
                segment.weight.multiply(rows, input, sums);
            }
        }
    }
}

impl Op for Linear<'_> {
    fn run(&self, step: &mut Step<'_>) {
        let (data, scale) = match self.x {
            Activation::Float { data } => (data, None),
            Activation::Quantized { data, scale } => (data, Some(scale)),
        };
        let rows = step.buffers.rows(data);
        let panel = (PANEL_BYTES / self.row_bytes() / 4 * 4).clamp(4, PANEL_TOKENS);
        for start in (0..rows).step_by(panel) {
            let tokens = start..(start + panel).min(rows);
            let count = tokens.len();
            let sums: &mut [u32] = step.scratch.results.scratch(self.rows * count);
            self.multiply(self.input(step.buffers, tokens.clone()), count, sums);
            for segment in &self.segments {
                let sums = &sums[segment.start * count..][..segment.rows * count];
                epilogue::run(segment, sums, scale, tokens.clone(), step.buffers);
            }
        }
    }
}
