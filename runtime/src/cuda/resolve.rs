//! What the kernels of each launch take: addresses, sizes, and why a GPU cannot run it.

use super::params::{
    AddParams, AttentionParams, CONV_MAX_TAPS, Conv1dParams, DTYPE_BF16, DTYPE_F16, DTYPE_F32, DTYPE_I8,
    DequantizeParams, EMIT_FLOAT, EMIT_I8, EMIT_U8, EPILOGUE_ACCUMULATE, EPILOGUE_ACCUMULATOR, EPILOGUE_RELU2,
    EPILOGUE_STORE, EmbedParams, Emit, GatedNormParams, MapParams, RmsNormParams, SelectParams, SsmScanParams,
};
use super::program::{AttentionOp, MixerOp, Resolver};
use super::slots::Place;
use super::weights;
use crate::device::DeviceError;
use crate::plan::{
    Activation, BufferId, ConvWeights, DType, Embedding, Emit as PlanEmit, Epilogue, Kernel, SsmShape, SsmWeights,
    StateId,
};

impl Resolver<'_> {
    pub(super) fn embed(&self, table: &Embedding, out: BufferId) -> EmbedParams {
        EmbedParams { tokens: self.batch.tokens(), out: self.address(out), ..weights::embedding(table, self.tensors) }
    }

    pub(super) fn select(&self, x: BufferId, out: BufferId) -> SelectParams {
        SelectParams {
            x: self.address(x),
            out: self.address(out),
            out_rows: self.batch.out_rows(),
            n: self.plan.buffer(x).cols as u32,
            padding: 0,
        }
    }

    pub(super) fn add(&self, a: BufferId, b: BufferId, out: BufferId) -> AddParams {
        let (a, b, out) = (self.address(a), self.address(b), self.address(out));
        AddParams { a, b, out, count: 0, padding: 0 }
    }

    pub(super) fn norm(
        &self,
        x: BufferId,
        delta: Option<BufferId>,
        weight: Option<&String>,
        eps: f32,
        emit: &PlanEmit,
    ) -> RmsNormParams {
        RmsNormParams {
            x: self.address(x),
            delta: delta.map_or(0, |delta| self.address(delta)),
            weight: self.tensors.get_optional(weight),
            emit: self.emit(emit, self.plan.buffer(x).cols),
            eps,
            padding: 0,
        }
    }

    pub(super) fn map(&self, x: BufferId, relu2: bool, emit: &PlanEmit) -> MapParams {
        let emit = self.emit(emit, self.plan.buffer(x).cols);
        MapParams { x: self.address(x), emit, relu2: u32::from(relu2), padding: 0 }
    }

    pub(super) fn dequantize(
        &self,
        acc: BufferId,
        x_scale: BufferId,
        weight_scale: &str,
        relu2: bool,
        out: BufferId,
    ) -> DequantizeParams {
        DequantizeParams {
            acc: self.address(acc),
            x_scale: self.address(x_scale),
            weight_scale: self.tensors.get(weight_scale),
            out: self.address(out),
            count: 0,
            n: self.plan.buffer(out).cols as u32,
            relu2: u32::from(relu2),
            padding: 0,
        }
    }

    pub(super) fn emit(&self, emit: &PlanEmit, n: usize) -> Emit {
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

    pub(super) fn conv(
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
        if weights.kernel > CONV_MAX_TAPS as usize || weights.kernel == 0 {
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
    pub(super) fn scan(
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

    pub(super) fn gated_norm(
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

    pub(super) fn mixer(&self, kernel: &Kernel, origin: &str) -> Result<MixerOp, DeviceError> {
        let Kernel::Mixer { z, xbc, dt, conv, ssm, shape, conv_state, ssm_state, norm_weight, group_size, eps, emit } =
            kernel
        else {
            unreachable!("called for a mixer only");
        };
        let (convolved, scanned) = (self.scratch.convolved.address(), self.scratch.scanned.address());
        let emit = self.emit(emit, shape.heads * shape.head_dim);
        Ok(MixerOp {
            conv: self.conv(self.address(*xbc), conv, *conv_state, convolved, origin)?,
            scan: self.scan(convolved, self.address(*dt), ssm, shape, *ssm_state, scanned, origin)?,
            norm: self.gated_norm(scanned, *z, norm_weight.as_ref(), *group_size, *eps, emit),
            taken: false,
            ahead: Vec::new(),
        })
    }

    pub(super) fn attention(&self, kernel: &Kernel, origin: &str) -> Result<AttentionOp, DeviceError> {
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
