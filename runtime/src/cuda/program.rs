//! The plan, resolved: every launch with the addresses and sizes that its kernels take.

use super::batch::Batch;
use super::buffers::Buffers;
use super::driver::Gpu;
use super::expansion::Expanded;
use super::params::{
    ATTENTION_MAX_PARTS, AddParams, AttentionParams, Conv1dParams, DequantizeParams, EmbedParams, ExpandParams,
    GatedNormParams, GatedStepParams, MapParams, RmsNormParams, SelectParams, SsmScanParams,
};
use super::prefetch;
use super::scratch::Scratch;
use super::slots::Slots;
use super::tensors::Tensors;
use super::weights::{self, Before, LinearOp};
use crate::device::DeviceError;
use crate::plan::{BufferId, DType, Kernel, Plan, Rows};
use std::cell::Cell;

/// One launch of the plan. Numbers of rows are filled in when it is enqueued.
pub(super) enum Op {
    Embed(EmbedParams),
    Select(SelectParams),
    Add(AddParams, RowCount),
    /// Whether the linear behind it can do it as well.
    RmsNorm(RmsNormParams, RowCount, bool),
    Map(MapParams, RowCount),
    Linear(Box<LinearOp>),
    Dequantize(DequantizeParams, RowCount),
    Conv1d(Conv1dParams),
    SsmScan(SsmScanParams),
    GatedRmsNorm(GatedNormParams),
    Mixer(Box<MixerOp>),
    Attention(Box<AttentionOp>),
}

/// Rows of a launch and elements of a row.
#[derive(Clone, Copy)]
pub(super) struct RowCount {
    pub(super) rows: Rows,
    pub(super) cols: usize,
}

pub(super) struct MixerOp {
    pub(super) conv: Conv1dParams,
    pub(super) scan: SsmScanParams,
    pub(super) norm: GatedNormParams,
    /// Whether the linear behind it can do the end of it as well.
    pub(super) taken: bool,
    /// Weights that may be expanded beside the scan.
    pub(super) ahead: Vec<ExpandParams>,
}

impl MixerOp {
    /// Behind the scan of one token a sequence.
    pub(super) fn end(&self) -> GatedStepParams {
        GatedStepParams { norm: self.norm, conv: self.conv }
    }
}

pub(super) struct AttentionOp {
    pub(super) params: AttentionParams,
    pub(super) dtype: DType,
}

/// Parts of the context that attention is split into for this many rows.
pub(super) fn attention_parts(gpu: &Gpu, rows: usize, kv_heads: usize) -> usize {
    (2 * gpu.sm_count as usize / (rows * kv_heads)).clamp(1, ATTENTION_MAX_PARTS as usize)
}

/// Everything that addresses come from.
pub(super) struct Resolver<'a> {
    pub(super) plan: &'a Plan,
    pub(super) buffers: &'a Buffers,
    pub(super) tensors: &'a Tensors,
    pub(super) slots: &'a Slots,
    pub(super) batch: &'a Batch,
    pub(super) scratch: &'a Scratch,
    /// Where weights of each launch are expanded.
    pub(super) places: &'a [Option<Expanded>],
    /// Counters handed out.
    pub(super) counters: Cell<u64>,
}

impl Resolver<'_> {
    pub(super) fn resolve(&self) -> Result<Vec<Op>, DeviceError> {
        let mut program: Vec<Op> = self
            .plan
            .launches
            .iter()
            .zip(self.places)
            .map(|(launch, place)| self.op(&launch.kernel, *place, &launch.origin))
            .collect::<Result<_, _>>()?;
        for index in 1..program.len() {
            match &mut program[index - 1..=index] {
                [Op::RmsNorm(norm, _, taken), Op::Linear(linear)] => *taken = linear.take(Before::Norm(*norm)),
                [Op::Mixer(mixer), Op::Linear(linear)] => mixer.taken = linear.take(Before::Gated(mixer.end())),
                _ => {}
            }
        }
        expand_ahead(&mut program);
        prefetch::prepare(&mut program);
        Ok(program)
    }

    pub(super) fn op(&self, kernel: &Kernel, place: Option<Expanded>, origin: &str) -> Result<Op, DeviceError> {
        Ok(match kernel {
            Kernel::Embed { table, out } => Op::Embed(self.embed(table, *out)),
            Kernel::SelectOutputs { x, out } => Op::Select(self.select(*x, *out)),
            Kernel::Add { a, b, out } => Op::Add(self.add(*a, *b, *out), self.rows(*out)),
            Kernel::RmsNorm { x, delta, weight, eps, emit } => {
                Op::RmsNorm(self.norm(*x, *delta, weight.as_ref(), *eps, emit), self.rows(*x), false)
            }
            Kernel::Map { x, relu2, emit } => Op::Map(self.map(*x, *relu2, emit), self.rows(*x)),
            Kernel::Linear { x, in_features, segments } => {
                Op::Linear(Box::new(weights::linear(self, *x, *in_features, segments, place)))
            }
            Kernel::Dequantize { acc, x_scale, weight_scale, relu2, out } => {
                Op::Dequantize(self.dequantize(*acc, *x_scale, weight_scale, *relu2, *out), self.rows(*out))
            }
            Kernel::Conv1d { x, weights, state, out } => {
                Op::Conv1d(self.conv(self.address(*x), weights, *state, self.address(*out), origin)?)
            }
            Kernel::SsmScan { xbc, dt, weights, shape, state, out } => {
                let (xbc, dt, out) = (self.address(*xbc), self.address(*dt), self.address(*out));
                Op::SsmScan(self.scan(xbc, dt, weights, shape, *state, out, origin)?)
            }
            Kernel::GatedRmsNorm { x, z, weight, group_size, eps, emit } => {
                let emit = self.emit(emit, self.plan.buffer(*x).cols);
                Op::GatedRmsNorm(self.gated_norm(self.address(*x), *z, weight.as_ref(), *group_size, *eps, emit))
            }
            Kernel::Mixer { .. } => Op::Mixer(Box::new(self.mixer(kernel, origin)?)),
            Kernel::Attention { .. } => Op::Attention(Box::new(self.attention(kernel, origin)?)),
        })
    }

    /// The next counter of drawn tiles.
    pub(super) fn counter(&self) -> u64 {
        let index = self.counters.get();
        self.counters.set(index + 1);
        self.scratch.draws.address() + index * 4
    }

    pub(super) fn address(&self, id: BufferId) -> u64 {
        self.buffers.address(id)
    }

    pub(super) fn rows(&self, id: BufferId) -> RowCount {
        let buffer = self.plan.buffer(id);
        RowCount { rows: buffer.rows, cols: buffer.cols }
    }
}

/// Gives each mixer the weights that are expanded beside its scan: those of the linears up to the next mixer.
fn expand_ahead(program: &mut [Op]) {
    let mut ahead = Vec::new();
    for op in program.iter_mut().rev() {
        match op {
            Op::Linear(linear) => {
                let found = linear.wide.as_ref().filter(|wide| wide.ahead).map_or(&[][..], |wide| &wide.expand);
                ahead.splice(0..0, found.iter().copied());
            }
            Op::Mixer(mixer) => mixer.ahead = std::mem::take(&mut ahead),
            _ => {}
        }
    }
}
