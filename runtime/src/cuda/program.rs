//! The plan, resolved: every launch with the addresses and sizes that its kernels take.

use super::batch::Batch;
use super::buffers::Buffers;
use super::driver::Gpu;
use super::expansion::Expanded;
use super::params::{
    ATTENTION_MAX_PARTS, AddParams, AttentionParams, Conv1dParams, DTYPE_BF16, DTYPE_F16, DTYPE_F32, DTYPE_I8,
    DequantizeParams, EMIT_FLOAT, EMIT_I8, EMIT_U8, EPILOGUE_ACCUMULATE, EPILOGUE_ACCUMULATOR, EPILOGUE_RELU2,
    EPILOGUE_STORE, EmbedParams, Emit, ExpandParams, GatedNormParams, GatedStepParams, MapParams, RmsNormParams,
    SelectParams, SsmScanParams,
};
use super::prefetch;
use super::scratch::Scratch;
use super::slots::{Place, Slots};
use super::tensors::Tensors;
use super::weights::{self, Before, LinearOp};
use crate::device::DeviceError;
use crate::plan::{
    Activation, BufferId, ConvWeights, DType, Emit as PlanEmit, Epilogue, Kernel, Plan, Rows, SsmShape, SsmWeights,
    StateId,
};
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
            Kernel::Embed { table, out } => Op::Embed(EmbedParams {
                tokens: self.batch.tokens(),
                out: self.address(*out),
                ..weights::embedding(table, self.tensors)
            }),
            Kernel::SelectOutputs { x, out } => Op::Select(SelectParams {
                x: self.address(*x),
                out: self.address(*out),
                out_rows: self.batch.out_rows(),
                n: self.plan.buffer(*x).cols as u32,
                padding: 0,
            }),
            Kernel::Add { a, b, out } => {
                let (a, b, sum) = (self.address(*a), self.address(*b), self.address(*out));
                Op::Add(AddParams { a, b, out: sum, count: 0, padding: 0 }, self.rows(*out))
            }
            Kernel::RmsNorm { x, delta, weight, eps, emit } => {
                let params = RmsNormParams {
                    x: self.address(*x),
                    delta: delta.map_or(0, |delta| self.address(delta)),
                    weight: self.tensors.get_optional(weight.as_ref()),
                    emit: self.emit(emit, self.plan.buffer(*x).cols),
                    eps: *eps,
                    padding: 0,
                };
                Op::RmsNorm(params, self.rows(*x), false)
            }
            Kernel::Map { x, relu2, emit } => {
                let emit = self.emit(emit, self.plan.buffer(*x).cols);
                let params = MapParams { x: self.address(*x), emit, relu2: u32::from(*relu2), padding: 0 };
                Op::Map(params, self.rows(*x))
            }
            Kernel::Linear { x, in_features, segments } => {
                Op::Linear(Box::new(weights::linear(self, *x, *in_features, segments, place)))
            }
            Kernel::Dequantize { acc, x_scale, weight_scale, relu2, out } => {
                let params = DequantizeParams {
                    acc: self.address(*acc),
                    x_scale: self.address(*x_scale),
                    weight_scale: self.tensors.get(weight_scale),
                    out: self.address(*out),
                    count: 0,
                    n: self.plan.buffer(*out).cols as u32,
                    relu2: u32::from(*relu2),
                    padding: 0,
                };
                Op::Dequantize(params, self.rows(*out))
            }
            Kernel::Conv1d { x, weights, state, out } => {
                Op::Conv1d(self.conv(self.address(*x), weights, *state, self.address(*out), origin)?)
            }
            Kernel::SsmScan { xbc, dt, weights, shape, state, out } => {
                let (xbc, dt, out) = (self.address(*xbc), self.address(*dt), self.address(*out));
                Op::SsmScan(self.scan(xbc, dt, weights, shape, *state, out, origin)?)
            }
            Kernel::GatedRmsNorm { x, z, weight, group_size, eps, emit } => {
                let cols = self.plan.buffer(*x).cols;
                let emit = self.emit(emit, cols);
                Op::GatedRmsNorm(self.gated_norm(self.address(*x), *z, weight.as_ref(), *group_size, *eps, emit))
            }
            Kernel::Mixer {
                z,
                xbc,
                dt,
                conv,
                ssm,
                shape,
                conv_state,
                ssm_state,
                norm_weight,
                group_size,
                eps,
                emit,
            } => {
                let (convolved, scanned) = (self.scratch.convolved.address(), self.scratch.scanned.address());
                let emit = self.emit(emit, shape.heads * shape.head_dim);
                Op::Mixer(Box::new(MixerOp {
                    conv: self.conv(self.address(*xbc), conv, *conv_state, convolved, origin)?,
                    scan: self.scan(convolved, self.address(*dt), ssm, shape, *ssm_state, scanned, origin)?,
                    norm: self.gated_norm(scanned, *z, norm_weight.as_ref(), *group_size, *eps, emit),
                    taken: false,
                    ahead: Vec::new(),
                }))
            }
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

    fn emit(&self, emit: &PlanEmit, n: usize) -> Emit {
        let (data, out_scale, format) = match emit.to {
            Activation::Float { data } => (data, 0, EMIT_FLOAT),
            Activation::Quantized { data, scale } if self.plan.buffer(data).dtype == DType::U8 => {
                (data, self.address(scale), EMIT_U8)
            }
            Activation::Quantized { data, scale } => (data, self.address(scale), EMIT_I8),
        };
        Emit {
            out: self.address(data),
            out_scale,
            n: n as u32,
            n_padded: self.plan.buffer(data).cols as u32,
            hadamard_block: emit.hadamard_block.unwrap_or(0) as u32,
            format,
        }
    }

    fn fixed(&self, state: StateId, origin: &str) -> Result<u64, DeviceError> {
        match self.slots.place(state) {
            Place::Fixed { offset, .. } => Ok(offset as u64),
            Place::Cache { .. } => Err(unsupported(origin, "a cache is no window or scan state")),
        }
    }

    fn state_dtype(&self, state: StateId, origin: &str) -> Result<u32, DeviceError> {
        Ok(match self.plan.state(state).dtype {
            DType::F32 => DTYPE_F32,
            DType::F16 => DTYPE_F16,
            DType::Bf16 => DTYPE_BF16,
            DType::I8 => DTYPE_I8,
            DType::U8 | DType::I32 => {
                return Err(unsupported(origin, "scan states are f32, f16, bf16 or i8 on the GPU"));
            }
        })
    }

    fn conv(
        &self,
        x: u64,
        weights: &ConvWeights,
        state: StateId,
        out: u64,
        origin: &str,
    ) -> Result<Conv1dParams, DeviceError> {
        if self.plan.state(state).dtype != DType::F32 {
            return Err(unsupported(origin, "windows are f32 on the GPU"));
        }
        if weights.kernel > super::params::CONV_MAX_TAPS as usize || weights.kernel == 0 {
            return Err(unsupported(origin, "convolutions have 1 to 8 taps on the GPU"));
        }
        Ok(Conv1dParams {
            x,
            weight: self.tensors.get(&weights.weight),
            bias: self.tensors.get_optional(weights.bias.as_ref()),
            out,
            batch: self.batch.params(),
            state_offset: self.fixed(state, origin)?,
            channels: weights.channels as u32,
            taps: weights.kernel as u32,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one plan kernel")]
    fn scan(
        &self,
        xbc: u64,
        dt: u64,
        weights: &SsmWeights,
        shape: &SsmShape,
        state: StateId,
        out: u64,
        origin: &str,
    ) -> Result<SsmScanParams, DeviceError> {
        let aligned = (shape.heads * shape.head_dim).is_multiple_of(4);
        if !shape.state_size.is_multiple_of(4) || shape.state_size > 256 || !aligned {
            return Err(unsupported(origin, "state sizes are multiples of 4 up to 256 on the GPU"));
        }
        Ok(SsmScanParams {
            xbc,
            dt,
            a_log: self.tensors.get(&weights.a_log),
            d: self.tensors.get(&weights.d),
            dt_bias: self.tensors.get(&weights.dt_bias),
            out,
            prepared: self.scratch.prepared.address(),
            batch: self.batch.params(),
            state_offset: self.fixed(state, origin)?,
            state_dtype: self.state_dtype(state, origin)?,
            state_seed: state.0,
            sequences: 0,
            rows: 0,
            heads: shape.heads as u32,
            head_dim: shape.head_dim as u32,
            groups: shape.groups as u32,
            state_size: shape.state_size as u32,
            dt_min: shape.dt_min,
            dt_max: shape.dt_max.unwrap_or(f32::INFINITY),
        })
    }

    fn gated_norm(
        &self,
        x: u64,
        z: BufferId,
        weight: Option<&String>,
        group_size: usize,
        eps: f32,
        emit: Emit,
    ) -> GatedNormParams {
        let (z, weight) = (self.address(z), self.tensors.get_optional(weight));
        GatedNormParams { x, z, weight, emit, group_size: group_size as u32, eps }
    }

    fn attention(&self, kernel: &Kernel, origin: &str) -> Result<AttentionOp, DeviceError> {
        let Kernel::Attention { q, k, v, state, heads, kv_heads, head_dim, scale, emit } = kernel else {
            unreachable!("called for attention only");
        };
        if head_dim % 8 != 0 || *head_dim > 256 {
            return Err(unsupported(origin, "head_dim is a multiple of 8 up to 256 on the GPU"));
        }
        let dtype = self.plan.state(*state).dtype;
        if !matches!(dtype, DType::F32 | DType::F16 | DType::Bf16 | DType::I8) {
            return Err(unsupported(origin, "caches are f32, f16, bf16 or i8 on the GPU"));
        }
        let Place::Cache { offset, .. } = self.slots.place(*state) else {
            return Err(unsupported(origin, "attention needs a cache"));
        };
        let params = AttentionParams {
            q: self.address(*q),
            k: self.address(*k),
            v: self.address(*v),
            part_acc: self.scratch.part_acc.address(),
            part_top: self.scratch.part_top.address(),
            part_sum: self.scratch.part_sum.address(),
            batch: self.batch.params(),
            emit: self.emit(emit, heads * head_dim),
            cache_offset: offset as u64,
            heads: *heads as u32,
            kv_heads: *kv_heads as u32,
            head_dim: *head_dim as u32,
            parts: 1,
            append: 0,
            scale: *scale,
        };
        Ok(AttentionOp { params, dtype })
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

pub(super) fn epilogue(epilogue: Epilogue) -> u32 {
    match epilogue {
        Epilogue::Store => EPILOGUE_STORE,
        Epilogue::Relu2 => EPILOGUE_RELU2,
        Epilogue::Accumulate => EPILOGUE_ACCUMULATE,
        Epilogue::Accumulator => EPILOGUE_ACCUMULATOR,
    }
}

fn unsupported(origin: &str, problem: &str) -> DeviceError {
    DeviceError::Backend {
        device: "CUDA".to_owned(),
        message: format!("{origin}: {problem}"),
        help: "run this model on the CPU (`--device cpu`)".to_owned(),
    }
}
