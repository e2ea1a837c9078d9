//! What each kernel demands of its arguments; the rules themselves are in `validate`.

use super::validate::{Checker, MAX_COLS};
use super::{
    Activation, BufferId, ConvWeights, DType, Embedding, Emit, Epilogue, K_ALIGN, Kernel, PlanError, Rows, Segment,
    SsmShape, SsmWeights, StateId, StateKind, WeightFormat,
};

/// `255 * 127 * 65536 < 2^31`: longer integer dot products could overflow.
const MAX_INTEGER_FEATURES: usize = 65536;
/// Float types that a stored weight may have.
const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];
/// Types that keys and values, and scan states, may have.
const KEPT: [DType; 4] = [DType::F32, DType::F16, DType::Bf16, DType::I8];

impl Checker<'_> {
    pub(super) fn kernel(&mut self, kernel: &Kernel) -> Result<(), PlanError> {
        match kernel {
            Kernel::Embed { table, out } => self.embed(table, *out),
            Kernel::SelectOutputs { x, out } => self.select(*x, *out),
            Kernel::Add { a, b, out } => {
                let cols = self.buffer(*out)?.cols;
                self.read(*a, DType::F32, cols)?;
                self.read(*b, DType::F32, cols)?;
                self.write(*out, DType::F32, cols)
            }
            Kernel::RmsNorm { x, delta, weight, emit, .. } => {
                let cols = self.buffer(*x)?.cols;
                self.read(*x, DType::F32, cols)?;
                if let Some(delta) = delta {
                    self.read(*delta, DType::F32, cols)?;
                    self.write(*x, DType::F32, cols)?;
                }
                self.weight_vector(weight.as_deref(), cols)?;
                self.emit(emit, cols)
            }
            Kernel::Map { x, emit, .. } => {
                let cols = self.buffer(*x)?.cols;
                self.read(*x, DType::F32, cols)?;
                self.emit(emit, cols)
            }
            Kernel::Linear { x, in_features, segments } => self.linear(*x, *in_features, segments),
            Kernel::Dequantize { acc, x_scale, weight_scale, out, .. } => {
                let cols = self.buffer(*out)?.cols;
                self.read(*acc, DType::I32, cols)?;
                self.read(*x_scale, DType::F32, 1)?;
                self.tensor(weight_scale, DType::F32, &[cols])?;
                self.write(*out, DType::F32, cols)
            }
            Kernel::Conv1d { x, weights, state, out } => {
                self.set_rows(Rows::Token);
                self.read(*x, DType::F32, weights.channels)?;
                self.conv(weights, *state)?;
                self.write(*out, DType::F32, weights.channels)
            }
            Kernel::SsmScan { xbc, dt, weights, shape, state, out } => {
                self.set_rows(Rows::Token);
                let inner = self.ssm(weights, shape, *state)?;
                self.read(*xbc, DType::F32, inner + 2 * shape.groups * shape.state_size)?;
                self.read(*dt, DType::F32, shape.heads)?;
                self.write(*out, DType::F32, inner)
            }
            Kernel::GatedRmsNorm { x, z, weight, group_size, emit, .. } => {
                let cols = self.buffer(*x)?.cols;
                self.read(*x, DType::F32, cols)?;
                self.read(*z, DType::F32, cols)?;
                self.groups(*group_size, cols)?;
                self.weight_vector(weight.as_deref(), cols)?;
                self.emit(emit, cols)
            }
            Kernel::Mixer { .. } => self.mixer(kernel),
            Kernel::Attention { .. } => self.attention(kernel),
        }
    }

    fn embed(&mut self, table: &Embedding, out: BufferId) -> Result<(), PlanError> {
        self.set_rows(Rows::Token);
        let vocab_size = self.plan.model.vocab_size;
        self.require(table.vocab_size == vocab_size && vocab_size > 0, || {
            format!("the embedding has {} rows, the model {vocab_size} tokens", table.vocab_size)
        })?;
        self.stored_weight(&table.weight, table.format, table.vocab_size, table.hidden_size)?;
        self.write(out, DType::F32, table.hidden_size)
    }

    fn emit(&mut self, emit: &Emit, cols: usize) -> Result<(), PlanError> {
        if let Some(block) = emit.hadamard_block {
            self.require(block.is_power_of_two() && cols.is_multiple_of(block), || {
                format!("a Hadamard block of {block} does not fit {cols} columns")
            })?;
        }
        self.write_activation(emit.to, cols)
    }

    fn linear(&mut self, x: Activation, in_features: usize, segments: &[Segment]) -> Result<(), PlanError> {
        self.require((1..=MAX_COLS).contains(&in_features) && !segments.is_empty(), || {
            format!("{in_features} input features and {} segments", segments.len())
        })?;
        self.read_activation(x, in_features)?;
        for segment in segments {
            self.segment(x, in_features, segment)?;
        }
        Ok(())
    }

    fn segment(&mut self, x: Activation, in_features: usize, segment: &Segment) -> Result<(), PlanError> {
        let float_input = matches!(x, Activation::Float { .. });
        let float_weight = matches!(segment.format, WeightFormat::Float { .. });
        self.require(float_input == float_weight, || {
            format!("{} is {:?}, which does not multiply {x:?}", segment.weight, segment.format)
        })?;
        self.require(float_weight || in_features <= MAX_INTEGER_FEATURES, || {
            format!("{in_features} input features could overflow an i32 sum")
        })?;
        self.stored_weight(&segment.weight, segment.format, segment.out_features, in_features)?;
        let out = segment.out_features;
        match segment.epilogue {
            Epilogue::Store | Epilogue::Relu2 => self.write(segment.out, DType::F32, out),
            Epilogue::Accumulate => {
                self.read(segment.out, DType::F32, out)?;
                self.write(segment.out, DType::F32, out)
            }
            Epilogue::Accumulator => {
                let integer = matches!(segment.format, WeightFormat::W8 | WeightFormat::W4TwoLevel { .. });
                self.require(integer, || format!("{} has no integer sum", segment.weight))?;
                self.write(segment.out, DType::I32, out)
            }
        }
    }

    fn stored_weight(&mut self, name: &str, format: WeightFormat, n: usize, k: usize) -> Result<(), PlanError> {
        let sizes = 1..=MAX_COLS;
        self.require(sizes.contains(&n) && sizes.contains(&k), || format!("{name} has shape [{n}, {k}]"))?;
        let kp = k.next_multiple_of(K_ALIGN);
        let (weight, scale) = (format!("{name}.weight"), format!("{name}.scale"));
        let group_scale = format!("{name}.group_scale");
        match format {
            WeightFormat::Float { dtype } => {
                self.require(FLOATS.contains(&dtype), || format!("{name} is a float weight of type {dtype}"))?;
                self.tensor(&weight, dtype, &[n, k])
            }
            WeightFormat::W8 => {
                self.tensor(&weight, DType::I8, &[n, kp])?;
                self.tensor(&scale, DType::F32, &[n])
            }
            WeightFormat::W4TwoLevel { group_size } => {
                self.group_size(group_size)?;
                self.tensor(&weight, DType::U8, &[n, kp / 2])?;
                self.tensor(&group_scale, DType::U8, &[n, k.div_ceil(group_size)])?;
                self.tensor(&scale, DType::F32, &[n])
            }
            WeightFormat::W4Group { group_size } => {
                self.group_size(group_size)?;
                self.tensor(&weight, DType::U8, &[n, kp / 2])?;
                self.tensor(&group_scale, DType::F16, &[n, k.div_ceil(group_size)])
            }
        }
    }

    fn group_size(&self, group_size: usize) -> Result<(), PlanError> {
        let fits = group_size > 0 && group_size.is_multiple_of(K_ALIGN);
        self.require(fits, || format!("a group of {group_size} is no multiple of {K_ALIGN}"))
    }

    fn weight_vector(&self, name: Option<&str>, cols: usize) -> Result<(), PlanError> {
        name.map_or(Ok(()), |name| self.tensor(name, DType::F32, &[cols]))
    }

    fn groups(&self, group_size: usize, cols: usize) -> Result<(), PlanError> {
        let fits = group_size > 0 && cols.is_multiple_of(group_size);
        self.require(fits, || format!("groups of {group_size} do not divide {cols} columns"))
    }

    fn conv(&mut self, weights: &ConvWeights, state: StateId) -> Result<(), PlanError> {
        self.require(weights.channels > 0 && weights.kernel > 0, || {
            format!("a convolution of {} channels and {} taps", weights.channels, weights.kernel)
        })?;
        self.tensor(&weights.weight, DType::F32, &[weights.channels, weights.kernel])?;
        self.weight_vector(weights.bias.as_deref(), weights.channels)?;
        let shape = [weights.channels, weights.kernel - 1];
        self.state(state, StateKind::Conv, &[DType::F32], &shape)
    }

    /// Returns the width of the scan, `heads * head_dim`.
    fn ssm(&mut self, weights: &SsmWeights, shape: &SsmShape, state: StateId) -> Result<usize, PlanError> {
        let SsmShape { heads, head_dim, groups, state_size, .. } = *shape;
        let sizes = [heads, head_dim, groups, state_size];
        let small = sizes.iter().all(|&size| size > 0 && size < 1 << 20);
        self.require(small && heads.is_multiple_of(groups), || {
            format!("a scan of {heads} heads of {head_dim}, {groups} groups, state size {state_size}")
        })?;
        for name in [&weights.a_log, &weights.d, &weights.dt_bias] {
            self.tensor(name, DType::F32, &[heads])?;
        }
        self.state(state, StateKind::Ssm, &KEPT, &[heads, head_dim, state_size])?;
        Ok(heads * head_dim)
    }

    fn mixer(&mut self, kernel: &Kernel) -> Result<(), PlanError> {
        let Kernel::Mixer {
            z, xbc, dt, conv, ssm, shape, conv_state, ssm_state, norm_weight, group_size, emit, ..
        } = kernel
        else {
            return Ok(());
        };
        self.set_rows(Rows::Token);
        let inner = self.ssm(ssm, shape, *ssm_state)?;
        let channels = inner + 2 * shape.groups * shape.state_size;
        self.require(conv.channels == channels, || {
            format!("the convolution has {} channels, the scan takes {channels}", conv.channels)
        })?;
        self.conv(conv, *conv_state)?;
        self.read(*z, DType::F32, inner)?;
        self.read(*xbc, DType::F32, channels)?;
        self.read(*dt, DType::F32, shape.heads)?;
        self.groups(*group_size, inner)?;
        self.weight_vector(norm_weight.as_deref(), inner)?;
        self.emit(emit, inner)
    }

    fn attention(&mut self, kernel: &Kernel) -> Result<(), PlanError> {
        let Kernel::Attention { q, k, v, state, heads, kv_heads, head_dim, emit, .. } = kernel else {
            return Ok(());
        };
        self.set_rows(Rows::Token);
        let small = [heads, kv_heads, head_dim].iter().all(|&&size| size > 0 && size < 1 << 20);
        self.require(small && heads.is_multiple_of(*kv_heads), || {
            format!("attention of {heads} heads of {head_dim} and {kv_heads} kv heads")
        })?;
        self.read(*q, DType::F32, heads * head_dim)?;
        self.read(*k, DType::F32, kv_heads * head_dim)?;
        self.read(*v, DType::F32, kv_heads * head_dim)?;
        self.state(*state, StateKind::Kv, &KEPT, &[*kv_heads, *head_dim])?;
        self.emit(emit, heads * head_dim)
    }
}
