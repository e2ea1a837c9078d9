//! The doc comment of every kernel, written down once more in f64 and without regard to speed.

use runtime::device::{LaunchByLaunch, SlotId};
use runtime::plan::*;
use runtime::tensors::TensorStore;

/// What a launch should have written.
pub enum Expected {
    Float(BufferId, Vec<f64>),
    Integer(BufferId, Vec<i64>),
    Quantized { data: BufferId, scale: BufferId, cols: usize, values: Vec<f64> },
}

/// A step of one sequence, as it is before a launch.
pub struct Step<'a> {
    pub plan: &'a Plan,
    pub store: &'a dyn TensorStore,
    pub device: &'a dyn LaunchByLaunch,
    pub slot: SlotId,
    pub tokens: &'a [u32],
    pub outputs: &'a [u32],
}

pub fn to_f64(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let words = |n| bytes.chunks_exact(n);
    match dtype {
        DType::F32 => words(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        DType::I32 => words(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap()))).collect(),
        DType::F16 => words(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
        DType::Bf16 => words(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
        DType::I8 => bytes.iter().map(|b| f64::from(*b as i8)).collect(),
        DType::U8 => bytes.iter().map(|b| f64::from(*b)).collect(),
    }
}

/// Elements of a state, or of its keys or its values, times their scales.
fn kept(state: &State, bytes: &[u8]) -> Vec<f64> {
    if state.dtype != DType::I8 {
        return to_f64(state.dtype, bytes);
    }
    let (q, scales) = bytes.split_at(bytes.len() / (state.row() + 4) * state.row());
    let scales = to_f64(DType::F32, scales);
    to_f64(DType::I8, q)
        .chunks(state.row())
        .zip(scales)
        .flat_map(|(q, scale)| q.iter().map(move |q| q * scale).collect::<Vec<_>>())
        .collect()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn relu2(x: f64) -> f64 {
    x.max(0.0).powi(2)
}

impl Step<'_> {
    pub fn buffer(&self, id: BufferId) -> Vec<f64> {
        to_f64(self.plan.buffer(id).dtype, &self.device.read_buffer(id).unwrap())
    }

    pub fn state(&self, id: StateId) -> Vec<f64> {
        let (state, bytes) = (self.plan.state(id), self.device.read_state(self.slot, id).unwrap());
        let parts = if state.kind == StateKind::Kv { 2 } else { 1 };
        bytes.chunks((bytes.len() / parts).max(1)).flat_map(|part| kept(state, part)).collect()
    }

    fn tensor(&self, name: &str) -> Vec<f64> {
        let tensor = self.store.tensor(name).unwrap();
        to_f64(tensor.dtype, tensor.bytes)
    }

    fn ones_or(&self, name: Option<&String>, cols: usize) -> Vec<f64> {
        name.map_or_else(|| vec![1.0; cols], |name| self.tensor(name))
    }

    pub fn run(&self, kernel: &Kernel) -> Vec<Expected> {
        match kernel {
            Kernel::Embed { table, out } => {
                let weight = self.weight(&table.weight, table.format, table.hidden_size);
                let rows = self.tokens.iter().flat_map(|t| weight.dequantized(*t as usize));
                vec![Expected::Float(*out, rows.collect())]
            }
            Kernel::SelectOutputs { x, out } => {
                let (x, cols) = (self.buffer(*x), self.plan.buffer(*x).cols);
                let rows = self.outputs.iter().flat_map(|t| x[*t as usize * cols..][..cols].to_vec());
                vec![Expected::Float(*out, rows.collect())]
            }
            Kernel::Add { a, b, out } => {
                let sums = self.buffer(*a).iter().zip(self.buffer(*b)).map(|(a, b)| a + b).collect();
                vec![Expected::Float(*out, sums)]
            }
            Kernel::RmsNorm { x, delta, weight, eps, emit } => {
                let cols = self.plan.buffer(*x).cols;
                let mut y = self.buffer(*x);
                let mut expected = Vec::new();
                if let Some(delta) = delta {
                    y.iter_mut().zip(self.buffer(*delta)).for_each(|(x, delta)| *x += delta);
                    expected.push(Expected::Float(*x, y.clone()));
                }
                normalize(&mut y, cols, &self.ones_or(weight.as_ref(), cols), *eps);
                expected.push(emitted(emit, cols, y));
                expected
            }
            Kernel::Map { x, relu2: squared, emit } => {
                let y = self.buffer(*x).into_iter().map(|x| if *squared { relu2(x) } else { x });
                vec![emitted(emit, self.plan.buffer(*x).cols, y.collect())]
            }
            Kernel::Linear { x, in_features, segments } => {
                segments.iter().map(|segment| self.linear(*x, *in_features, segment)).collect()
            }
            Kernel::Dequantize { acc, x_scale, weight_scale, relu2: squared, out } => {
                let (x_scale, scale) = (self.buffer(*x_scale), self.tensor(weight_scale));
                let cols = scale.len();
                let y = self.buffer(*acc).into_iter().enumerate().map(|(i, acc)| {
                    let y = acc * x_scale[i / cols] * scale[i % cols];
                    if *squared { relu2(y) } else { y }
                });
                vec![Expected::Float(*out, y.collect())]
            }
            Kernel::Conv1d { x, weights, state, out } => {
                let y = self.conv(&self.buffer(*x), weights, *state);
                vec![Expected::Float(*out, y)]
            }
            Kernel::SsmScan { xbc, dt, weights, shape, state, out } => {
                let y = self.scan(&self.buffer(*xbc), &self.buffer(*dt), weights, shape, *state);
                vec![Expected::Float(*out, y)]
            }
            Kernel::GatedRmsNorm { x, z, weight, group_size, eps, emit } => {
                let cols = self.plan.buffer(*x).cols;
                let y = self.gated_norm(self.buffer(*x), *z, weight.as_ref(), (cols, *group_size), *eps);
                vec![emitted(emit, cols, y)]
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
                let cols = shape.heads * shape.head_dim;
                let xbc = self.conv(&self.buffer(*xbc), conv, *conv_state);
                let y = self.scan(&xbc, &self.buffer(*dt), ssm, shape, *ssm_state);
                let y = self.gated_norm(y, *z, norm_weight.as_ref(), (cols, *group_size), *eps);
                vec![emitted(emit, cols, y)]
            }
            Kernel::Attention { .. } => vec![self.attention(kernel)],
        }
    }

    fn linear(&self, x: Activation, k: usize, segment: &Segment) -> Expected {
        let weight = self.weight(&segment.weight, segment.format, k);
        let (n, rows) = (segment.out_features, weight.rows());
        assert_eq!(n, rows);
        let (data, scale) = match x {
            Activation::Float { data } => (data, None),
            Activation::Quantized { data, scale } => (data, Some(self.buffer(scale))),
        };
        let stride = self.plan.buffer(data).cols;
        let x = self.buffer(data);
        let tokens = x.len() / stride;
        let sums = (0..tokens).flat_map(|t| (0..n).map(move |row| (t, row)));
        if segment.epilogue == Epilogue::Accumulator {
            let exact = |(t, row): (usize, usize)| -> i64 {
                (0..k).map(|i| weight.integer(row, i) * x[t * stride + i] as i64).sum()
            };
            return Expected::Integer(segment.out, sums.map(exact).collect());
        }
        let before = self.buffer(segment.out);
        let y = sums.enumerate().map(|(index, (t, row))| {
            let values = weight.dequantized(row);
            let x_scale = scale.as_ref().map_or(1.0, |scale| scale[t]);
            let y = values.iter().zip(&x[t * stride..]).map(|(w, x)| w * x).sum::<f64>() * x_scale;
            match segment.epilogue {
                Epilogue::Relu2 => relu2(y),
                Epilogue::Accumulate => before[index] + y,
                _ => y,
            }
        });
        Expected::Float(segment.out, y.collect())
    }

    fn conv(&self, x: &[f64], weights: &ConvWeights, state: StateId) -> Vec<f64> {
        let (channels, kernel, window) = (weights.channels, weights.kernel, self.state(state));
        let taps = self.tensor(&weights.weight);
        let bias = weights.bias.as_ref().map_or_else(|| vec![0.0; channels], |bias| self.tensor(bias));
        let input = |t: isize, c: usize| match usize::try_from(t) {
            Ok(t) => x[t * channels + c],
            Err(_) => window[(c as isize * (kernel as isize - 1) + kernel as isize - 1 + t) as usize],
        };
        let out = |(t, c): (usize, usize)| {
            let past = kernel as isize - 1;
            let sum: f64 = (0..kernel).map(|j| taps[c * kernel + j] * input(t as isize - past + j as isize, c)).sum();
            silu(bias[c] + sum)
        };
        let tokens = x.len() / channels;
        (0..tokens).flat_map(|t| (0..channels).map(move |c| (t, c))).map(out).collect()
    }

    fn scan(&self, xbc: &[f64], dt: &[f64], weights: &SsmWeights, shape: &SsmShape, state: StateId) -> Vec<f64> {
        let SsmShape { heads, head_dim, groups, state_size, .. } = *shape;
        let (a_log, d, bias) = (self.tensor(&weights.a_log), self.tensor(&weights.d), self.tensor(&weights.dt_bias));
        let inner = heads * head_dim;
        let cols = inner + 2 * groups * state_size;
        let mut s = self.state(state);
        let mut y = Vec::new();
        for t in 0..xbc.len() / cols {
            let row = &xbc[t * cols..][..cols];
            for h in 0..heads {
                let group = h / (heads / groups);
                let dt = (1.0 + (dt[t * heads + h] + bias[h]).exp()).ln();
                let dt = dt.clamp(f64::from(shape.dt_min), shape.dt_max.map_or(f64::INFINITY, f64::from));
                let decay = (dt * -a_log[h].exp()).exp();
                for p in 0..head_dim {
                    let x = row[h * head_dim + p];
                    let mut sum = d[h] * x;
                    for n in 0..state_size {
                        let s = &mut s[(h * head_dim + p) * state_size + n];
                        *s = *s * decay + dt * x * row[inner + group * state_size + n];
                        sum += *s * row[inner + (groups + group) * state_size + n];
                    }
                    y.push(sum);
                }
            }
        }
        y
    }

    fn gated_norm(
        &self,
        mut y: Vec<f64>,
        z: BufferId,
        weight: Option<&String>,
        (cols, group_size): (usize, usize),
        eps: f32,
    ) -> Vec<f64> {
        y.iter_mut().zip(self.buffer(z)).for_each(|(y, z)| *y *= silu(z));
        let ones = vec![1.0; group_size];
        normalize(&mut y, group_size, &ones, eps);
        let weight = self.ones_or(weight, cols);
        y.iter_mut().enumerate().for_each(|(i, y)| *y *= weight[i % cols]);
        y
    }

    fn attention(&self, kernel: &Kernel) -> Expected {
        let Kernel::Attention { q, k, v, state, heads, kv_heads, head_dim, scale, emit } = kernel else {
            unreachable!()
        };
        let dtype = self.plan.state(*state).dtype;
        let rounded = |head: &[f64]| -> Vec<f64> {
            // In f32: a half is a half there.
            let absmax = head.iter().fold(0.0f32, |most, x| most.max(x.abs() as f32));
            let round = |x: &f64| match dtype {
                DType::F16 => half::f16::from_f32(*x as f32).to_f64(),
                DType::Bf16 => half::bf16::from_f32(*x as f32).to_f64(),
                DType::I8 if absmax > 0.0 => {
                    f64::from((*x as f32 * (127.0 / absmax)).round_ties_even() * (absmax / 127.0))
                }
                _ => *x,
            };
            head.iter().map(round).collect()
        };
        let (past, width) = (self.state(*state), kv_heads * head_dim);
        let (past_keys, past_values) = past.split_at(past.len() / 2);
        let joined = |past: &[f64], new: BufferId| -> Vec<f64> {
            past.iter().copied().chain(self.buffer(new).chunks(*head_dim).flat_map(rounded)).collect()
        };
        let (keys, values) = (joined(past_keys, *k), joined(past_values, *v));
        let (q, position) = (self.buffer(*q), past_keys.len() / width);
        let mut y = Vec::new();
        for (index, query) in q.chunks(*head_dim).enumerate() {
            let (t, h) = (index / heads, index % heads);
            let start = h / (heads / kv_heads) * head_dim;
            let at = |matrix: &[f64], token: usize, i: usize| matrix[token * width + start + i];
            let score = |token| {
                let dot: f64 = query.iter().enumerate().map(|(i, q)| q * at(&keys, token, i)).sum();
                (dot * f64::from(*scale)).exp()
            };
            let scores: Vec<f64> = (0..=position + t).map(score).collect();
            let total: f64 = scores.iter().sum();
            y.extend((0..*head_dim).map(|i| {
                let terms = scores.iter().enumerate().map(|(token, score)| score * at(&values, token, i));
                terms.sum::<f64>() / total
            }));
        }
        emitted(emit, heads * head_dim, y)
    }

    fn weight(&self, name: &str, format: WeightFormat, k: usize) -> Weight {
        let values = self.tensor(&format!("{name}.weight"));
        let optional = |suffix| {
            let name = format!("{name}.{suffix}");
            self.store.tensor(&name).map(|tensor| to_f64(tensor.dtype, tensor.bytes))
        };
        Weight { format, k, values, scale: optional("scale"), group_scale: optional("group_scale") }
    }
}

struct Weight {
    format: WeightFormat,
    k: usize,
    values: Vec<f64>,
    scale: Option<Vec<f64>>,
    group_scale: Option<Vec<f64>>,
}

impl Weight {
    fn stride(&self) -> usize {
        let padded = self.k.next_multiple_of(K_ALIGN);
        match self.format {
            WeightFormat::Float { .. } => self.k,
            WeightFormat::W8 => padded,
            WeightFormat::W4TwoLevel { .. } | WeightFormat::W4Group { .. } => padded / 2,
        }
    }

    fn rows(&self) -> usize {
        self.values.len() / self.stride()
    }

    fn nibble(&self, row: usize, i: usize) -> i64 {
        let byte = self.values[row * self.stride() + i / 32 * 16 + i % 16] as i64;
        (if i % 32 < 16 { byte & 15 } else { byte >> 4 }) - 8
    }

    fn group(&self, row: usize, i: usize, group_size: usize) -> f64 {
        self.group_scale.as_ref().unwrap()[row * self.k.div_ceil(group_size) + i / group_size]
    }

    /// The integer that multiplies an activation.
    fn integer(&self, row: usize, i: usize) -> i64 {
        match self.format {
            WeightFormat::W8 => self.values[row * self.stride() + i] as i64,
            WeightFormat::W4TwoLevel { group_size } => self.nibble(row, i) * self.group(row, i, group_size) as i64,
            _ => panic!("not an integer format"),
        }
    }

    fn dequantized(&self, row: usize) -> Vec<f64> {
        let value = |i: usize| match self.format {
            WeightFormat::Float { .. } => self.values[row * self.k + i],
            WeightFormat::W4Group { group_size } => self.nibble(row, i) as f64 * self.group(row, i, group_size),
            _ => self.integer(row, i) as f64 * self.scale.as_ref().unwrap()[row],
        };
        (0..self.k).map(value).collect()
    }
}

fn normalize(y: &mut [f64], cols: usize, weight: &[f64], eps: f32) {
    for row in y.chunks_mut(cols) {
        let mean = row.iter().map(|y| y * y).sum::<f64>() / cols as f64;
        let factor = 1.0 / (mean + f64::from(eps)).sqrt();
        row.iter_mut().zip(weight).for_each(|(y, weight)| *y *= factor * weight);
    }
}

fn emitted(emit: &Emit, cols: usize, mut y: Vec<f64>) -> Expected {
    if let Some(block) = emit.hadamard_block {
        for values in y.chunks_mut(block) {
            let sum = |j: usize| -> f64 {
                let sign = |i: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                values.iter().enumerate().map(|(i, value)| value * sign(i)).sum()
            };
            let rotated: Vec<f64> = (0..block).map(|j| sum(j) / (block as f64).sqrt()).collect();
            values.copy_from_slice(&rotated);
        }
    }
    match emit.to {
        Activation::Float { data } => Expected::Float(data, y),
        Activation::Quantized { data, scale } => Expected::Quantized { data, scale, cols, values: y },
    }
}
