use super::{Layout, MemoryStore, Shape};
use crate::plan::{
    Activation, Buffer, BufferId, ConvWeights, Cost, DType, Embedding, Emit, Epilogue, K_ALIGN, Kernel, Launch,
    ModelInfo, PLAN_VERSION, Plan, Rows, Segment, SsmShape, SsmWeights, State, StateId, StateKind, WeightFormat,
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const EPS: f32 = 1e-5;

pub(super) fn build(shape: &Shape, layout: &Layout, seed: u64) -> (Plan, MemoryStore) {
    let mut builder = Builder {
        shape: shape.clone(),
        layout: *layout,
        seed,
        plan: empty(shape),
        store: MemoryStore::default(),
        hidden: BufferId(0),
    };
    builder.hidden = builder.buffer("hidden", DType::F32, shape.hidden_size, Rows::Token);
    builder.embed();
    for (index, kind) in shape.layer_pattern.chars().enumerate() {
        match kind {
            'M' => builder.mamba(index),
            '-' => builder.mlp(index),
            _ => builder.attention(index),
        }
    }
    builder.head();
    (builder.plan, builder.store)
}

fn empty(shape: &Shape) -> Plan {
    Plan {
        version: PLAN_VERSION,
        model: ModelInfo {
            name: "synthetic".to_owned(),
            vocab_size: shape.vocab_size,
            hidden_size: shape.hidden_size,
            layer_pattern: shape.layer_pattern.clone(),
            max_position_embeddings: None,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            parameters: 0,
            phase: "0".to_owned(),
        },
        buffers: Vec::new(),
        states: Vec::new(),
        launches: Vec::new(),
        logits: BufferId(0),
    }
}

struct Builder {
    shape: Shape,
    layout: Layout,
    seed: u64,
    plan: Plan,
    store: MemoryStore,
    hidden: BufferId,
}

impl Builder {
    fn is_float(&self) -> bool {
        matches!(self.layout.format, WeightFormat::Float { .. })
    }

    fn buffer(&mut self, name: &str, dtype: DType, cols: usize, rows: Rows) -> BufferId {
        let found = self.plan.buffers.iter().position(|buffer| buffer.name == name);
        let index = found.unwrap_or_else(|| {
            let name = name.to_owned();
            self.plan.buffers.push(Buffer { name, dtype, cols, rows });
            self.plan.buffers.len() - 1
        });
        BufferId(index as u32)
    }

    fn floats(&mut self, name: &str, cols: usize) -> BufferId {
        self.buffer(name, DType::F32, cols, Rows::Token)
    }

    /// An input of a linear: float or 8-bit, as the weights demand.
    fn activation(&mut self, name: &str, cols: usize, unsigned: bool, rows: Rows) -> Activation {
        if self.is_float() {
            return Activation::Float { data: self.buffer(name, DType::F32, cols, rows) };
        }
        let dtype = if unsigned { DType::U8 } else { DType::I8 };
        Activation::Quantized {
            data: self.buffer(name, dtype, cols.next_multiple_of(K_ALIGN), rows),
            scale: self.buffer(&format!("{name}.scale"), DType::F32, 1, rows),
        }
    }

    fn state(&mut self, name: String, kind: StateKind, dtype: DType, shape: &[usize]) -> StateId {
        let shape = shape.to_vec();
        self.plan.states.push(State { name, kind, dtype, shape });
        StateId(self.plan.states.len() as u32 - 1)
    }

    fn launch(&mut self, origin: impl Into<String>, kernel: Kernel) {
        let (origin, cost) = (origin.into(), Cost::default());
        self.plan.launches.push(Launch { kernel, origin, cost });
    }

    /// Values around `center`, from a stream that only the tensor's name decides.
    fn random(&self, name: &str, len: usize, center: f32, spread: f32) -> Vec<f32> {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), self.seed);
        let mut random = Pcg64::seed_from_u64(hash);
        (0..len).map(|_| center + spread * random.random_range(-1.0f32..1.0)).collect()
    }

    fn vector(&mut self, name: &str, shape: &[usize], center: f32, spread: f32) -> String {
        let values = self.random(name, shape.iter().product(), center, spread);
        self.store.insert_floats(name, shape, &values);
        name.to_owned()
    }

    fn weight(&mut self, name: &str, format: WeightFormat, n: usize, k: usize) {
        let values = self.random(name, n * k, 0.0, (3.0 / k as f32).sqrt());
        self.store.insert_weight(name, format, k, &values);
        self.plan.model.parameters += (n * k) as u64;
    }

    fn embed(&mut self) {
        let (vocab_size, hidden_size) = (self.shape.vocab_size, self.shape.hidden_size);
        let format = self.layout.format;
        self.weight("embedding", format, vocab_size, hidden_size);
        let table = Embedding { weight: "embedding".to_owned(), format, vocab_size, hidden_size };
        let out = self.hidden;
        self.launch("embedding", Kernel::Embed { table, out });
    }

    fn norm(&mut self, name: &str) -> Activation {
        let cols = self.shape.hidden_size;
        let to = self.activation("normed", cols, false, Rows::Token);
        let weight = Some(self.vector(&format!("{name}.norm"), &[cols], 1.0, 0.3));
        let kernel =
            Kernel::RmsNorm { x: self.hidden, delta: None, weight, eps: EPS, emit: Emit { hadamard_block: None, to } };
        self.launch(format!("{name}.norm"), kernel);
        to
    }

    fn linear(&mut self, origin: &str, x: Activation, k: usize, outputs: &[(&str, usize, Epilogue, BufferId)]) {
        let mut segments = Vec::new();
        let mut dequantize = Vec::new();
        let several = self.layout.segments.filter(|_| outputs.len() > 1);
        for (index, &(name, n, epilogue, out)) in outputs.iter().enumerate() {
            let weight = format!("{origin}.{name}");
            let format = several.map_or(self.layout.format, |formats| formats[index]);
            self.weight(&weight, format, n, k);
            let mut segment = Segment { weight, format, out_features: n, epilogue, out };
            if let Some(kernel) = self.separated(x, &mut segment) {
                dequantize.push(kernel);
            }
            segments.push(segment);
        }
        self.launch(origin, Kernel::Linear { x, in_features: k, segments });
        for kernel in dequantize {
            self.launch(format!("{origin}.dequantize"), kernel);
        }
    }

    fn separated(&mut self, x: Activation, segment: &mut Segment) -> Option<Kernel> {
        let integer = matches!(segment.format, WeightFormat::W8 | WeightFormat::W4TwoLevel { .. });
        let Activation::Quantized { scale, .. } = x else {
            return None;
        };
        if !self.layout.separate_dequantize || !integer || segment.epilogue == Epilogue::Accumulate {
            return None;
        }
        let rows = self.plan.buffer(scale).rows;
        let acc = self.buffer(&format!("{}.acc", segment.weight), DType::I32, segment.out_features, rows);
        let kernel = Kernel::Dequantize {
            acc,
            x_scale: scale,
            weight_scale: format!("{}.scale", segment.weight),
            relu2: segment.epilogue == Epilogue::Relu2,
            out: segment.out,
        };
        (segment.epilogue, segment.out) = (Epilogue::Accumulator, acc);
        Some(kernel)
    }

    fn mamba(&mut self, index: usize) {
        let name = format!("layers.{index}");
        let shape = self.shape.clone();
        let (inner, channels) = (shape.inner(), shape.conv_channels());
        let x = self.norm(&name);
        let (z, xbc) = (self.floats("z", inner), self.floats("xbc", channels));
        let dt = self.floats("dt", shape.mamba_heads);
        let outputs = [
            ("z", inner, Epilogue::Store, z),
            ("xbc", channels, Epilogue::Store, xbc),
            ("dt", shape.mamba_heads, Epilogue::Store, dt),
        ];
        self.linear(&format!("{name}.in_proj"), x, shape.hidden_size, &outputs);
        let to = self.activation("mixed", inner, false, Rows::Token);
        self.mixer(&name, z, xbc, dt, to);
        let outputs = [("out", shape.hidden_size, Epilogue::Accumulate, self.hidden)];
        self.linear(&format!("{name}.out_proj"), to, inner, &outputs);
    }

    fn mixer(&mut self, name: &str, z: BufferId, xbc: BufferId, dt: BufferId, to: Activation) {
        let sizes = self.shape.clone();
        let (inner, channels, heads) = (sizes.inner(), sizes.conv_channels(), sizes.mamba_heads);
        let taps = [channels, sizes.conv_kernel];
        let conv = ConvWeights {
            weight: self.vector(&format!("{name}.conv.weight"), &taps, 0.0, 0.6),
            bias: Some(self.vector(&format!("{name}.conv.bias"), &[channels], 0.0, 0.3)),
            channels,
            kernel: sizes.conv_kernel,
        };
        let ssm = SsmWeights {
            a_log: self.vector(&format!("{name}.A_log"), &[heads], 1.0, 1.0),
            d: self.vector(&format!("{name}.D"), &[heads], 1.0, 0.5),
            dt_bias: self.vector(&format!("{name}.dt_bias"), &[heads], -2.0, 1.0),
        };
        let shape = SsmShape {
            heads,
            head_dim: sizes.mamba_head_dim,
            groups: sizes.groups,
            state_size: sizes.state_size,
            dt_min: 0.0,
            dt_max: None,
        };
        let window = [channels, sizes.conv_kernel - 1];
        let conv_state = self.state(format!("{name}.conv_state"), StateKind::Conv, DType::F32, &window);
        let state = [heads, sizes.mamba_head_dim, sizes.state_size];
        let ssm_state = self.state(format!("{name}.ssm_state"), StateKind::Ssm, self.layout.ssm_dtype, &state);
        let norm_weight = Some(self.vector(&format!("{name}.mixer.norm"), &[inner], 1.0, 0.3));
        let (group_size, eps) = (inner / sizes.groups, EPS);
        let emit = Emit { hadamard_block: self.layout.hadamard_block, to };
        if self.layout.fused_mixer {
            let kernel = Kernel::Mixer {
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
            };
            return self.launch(format!("{name}.mixer"), kernel);
        }
        let (convolved, scanned) = (self.floats("convolved", channels), self.floats("scanned", inner));
        let (weights, out) = (conv, convolved);
        self.launch(format!("{name}.conv1d"), Kernel::Conv1d { x: xbc, weights, state: conv_state, out });
        let kernel = Kernel::SsmScan { xbc: convolved, dt, weights: ssm, shape, state: ssm_state, out: scanned };
        self.launch(format!("{name}.scan"), kernel);
        let kernel = Kernel::GatedRmsNorm { x: scanned, z, weight: norm_weight, group_size, eps, emit };
        self.launch(format!("{name}.gated_norm"), kernel);
    }

    fn mlp(&mut self, index: usize) {
        let name = format!("layers.{index}");
        let (hidden_size, width) = (self.shape.hidden_size, self.shape.intermediate_size);
        let x = self.norm(&name);
        let up = self.floats("up", width);
        let hadamard_block = self.layout.hadamard_block;
        // A rotation makes signs: only without one is the input of down_proj unsigned.
        let unsigned = hadamard_block.is_none();
        let suffix = if unsigned { "up.unsigned" } else { "up.rotated" };
        let to = self.activation(suffix, width, unsigned, Rows::Token);
        self.linear(&format!("{name}.up_proj"), x, hidden_size, &[("up", width, Epilogue::Relu2, up)]);
        let kernel = Kernel::Map { x: up, relu2: false, emit: Emit { hadamard_block, to } };
        self.launch(format!("{name}.quantize"), kernel);
        let outputs = [("down", hidden_size, Epilogue::Accumulate, self.hidden)];
        self.linear(&format!("{name}.down_proj"), to, width, &outputs);
    }

    fn attention(&mut self, index: usize) {
        let name = format!("layers.{index}");
        let (heads, kv_heads, head_dim) = (self.shape.heads, self.shape.kv_heads, self.shape.head_dim);
        let (width, kv_width, hidden_size) = (heads * head_dim, kv_heads * head_dim, self.shape.hidden_size);
        let x = self.norm(&name);
        let (q, k, v) = (self.floats("q", width), self.floats("k", kv_width), self.floats("v", kv_width));
        let outputs = [
            ("q", width, Epilogue::Store, q),
            ("k", kv_width, Epilogue::Store, k),
            ("v", kv_width, Epilogue::Store, v),
        ];
        self.linear(&format!("{name}.qkv_proj"), x, hidden_size, &outputs);
        let to = self.activation("attended", width, false, Rows::Token);
        let kv_dtype = self.layout.kv_dtype;
        let state = self.state(format!("{name}.kv_cache"), StateKind::Kv, kv_dtype, &[kv_heads, head_dim]);
        let kernel = Kernel::Attention {
            q,
            k,
            v,
            state,
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            emit: Emit { hadamard_block: None, to },
        };
        self.launch(format!("{name}.attention"), kernel);
        let outputs = [("o", hidden_size, Epilogue::Accumulate, self.hidden)];
        self.linear(&format!("{name}.o_proj"), to, width, &outputs);
    }

    fn head(&mut self) {
        let (cols, vocab_size) = (self.shape.hidden_size, self.shape.vocab_size);
        let selected = self.buffer("selected", DType::F32, cols, Rows::Output);
        let logits = self.buffer("logits", DType::F32, vocab_size, Rows::Output);
        let to = self.activation("selected.normed", cols, false, Rows::Output);
        self.launch("lm_head", Kernel::SelectOutputs { x: self.hidden, out: selected });
        let weight = Some(self.vector("final.norm", &[cols], 1.0, 0.3));
        let emit = Emit { hadamard_block: None, to };
        let kernel = Kernel::RmsNorm { x: selected, delta: None, weight, eps: EPS, emit };
        self.launch("final.norm", kernel);
        self.linear("lm_head", to, cols, &[("out", vocab_size, Epilogue::Store, logits)]);
        self.plan.logits = logits;
    }
}
