//! [`crate::plan::Kernel::Linear`].
//!
//! One code path for one token and for many. Tokens are taken in panels whose activations, or a piece of their columns where
//! they are floats, stay in the second-level cache; all threads share the weight rows of a panel; a thread multiplies a few
//! weight rows, unpacked once, with every token of the panel. The sums of a task lie together, `[token, weight row of the task]`, because threads cannot
//! share the rows of a buffer; the epilogue moves them there.

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

/// Quantized activations of a panel fill at most this much.
const PANEL_BYTES: usize = 384 << 10;
/// Most tokens of a panel.
const PANEL_TOKENS: usize = 256;
/// Tokens of a panel of floats, of which each weight row has sixteen running sums.
const FLOAT_PANEL_TOKENS: usize = 64;
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

    /// How many tokens a panel has.
    fn panel(&self) -> usize {
        match self.x {
            Activation::Float { .. } => FLOAT_PANEL_TOKENS,
            Activation::Quantized { .. } => {
                (PANEL_BYTES / self.in_features.next_multiple_of(K_ALIGN) / 4 * 4).clamp(4, PANEL_TOKENS)
            }
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

    /// How many weight rows a task has.
    fn task_rows(&self, tokens: usize) -> usize {
        if self.rows * tokens * self.in_features < 4 * PARALLEL_ELEMENTS {
            return self.rows;
        }
        let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
        self.rows.div_ceil(tasks).next_multiple_of(ROW_BLOCK)
    }

    /// The part of each segment that a task of rows `first..end` computes.
    fn parts(&self, task: Range<usize>) -> impl Iterator<Item = Part<'_, 'a>> {
        self.segments.iter().filter_map(move |segment| {
            let start = task.start.max(segment.start);
            let end = task.end.min(segment.start + segment.rows);
            let rows = start.checked_sub(segment.start)?..end.checked_sub(segment.start)?;
            (!rows.is_empty()).then_some(Part { segment, rows, offset: start - task.start })
        })
    }

    /// Sums of all weight rows with the tokens of a panel.
    fn multiply(&self, input: Input<'_>, tokens: usize, task_rows: usize, sums: &mut [u32]) {
        let task = |(index, sums): (usize, &mut [u32])| {
            let first = index * task_rows;
            for part in self.parts(first..first + sums.len() / tokens) {
                let sums = &mut sums[part.offset * tokens..][..part.rows.len() * tokens];
                part.segment.weight.multiply(part.rows, input, sums);
            }
        };
        if task_rows == self.rows {
            task((0, sums));
        } else {
            sums.par_chunks_mut(task_rows * tokens).enumerate().for_each(task);
        }
    }
}

/// Some rows of a segment.
struct Part<'s, 'a> {
    segment: &'s ResolvedSegment<'a>,
    rows: Range<usize>,
    /// Their place among the rows of the task.
    offset: usize,
}

impl Op for Linear<'_> {
    fn run(&self, step: &mut Step<'_>) {
        let (data, scale) = match self.x {
            Activation::Float { data } => (data, None),
            Activation::Quantized { data, scale } => (data, Some(scale)),
        };
        let rows = step.buffers.rows(data);
        let panel = self.panel();
        for start in (0..rows).step_by(panel) {
            let tokens = start..(start + panel).min(rows);
            let count = tokens.len();
            let task_rows = self.task_rows(count);
            let sums: &mut [u32] = step.scratch.results.scratch(self.rows * count);
            self.multiply(self.input(step.buffers, tokens.clone()), count, task_rows, sums);
            for segment in &self.segments {
                epilogue::run(segment, &Sums { sums, tokens: tokens.clone(), task_rows }, scale, step.buffers);
            }
        }
    }
}

/// The sums of a panel, task by task.
struct Sums<'a> {
    sums: &'a [u32],
    tokens: Range<usize>,
    task_rows: usize,
}

impl Sums<'_> {
    /// The sums of one token with the rows of a segment: pieces of consecutive rows, each with its first row.
    fn pieces<'s>(&'s self, segment: &ResolvedSegment<'_>, t: usize) -> impl Iterator<Item = (usize, &'s [u32])> {
        let (start, end) = (segment.start, segment.start + segment.rows);
        let (count, task_rows) = (self.tokens.len(), self.task_rows);
        (start / task_rows..end.div_ceil(task_rows)).map(move |task| {
            let first = start.max(task * task_rows);
            let rows = end.min((task + 1) * task_rows) - first;
            // A part begins where its first row would if every row had `count` sums.
            (first - start, &self.sums[first * count + t * rows..][..rows])
        })
    }
}
