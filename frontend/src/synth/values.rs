//! The values of random weights.
//!
//! | tensor | values |
//! |---|---|
//! | embedding, head, linears that read the residual | normal, standard deviation 0.02 |
//! | linears that write it | normal, 0.02 / sqrt(2 * layers) |
//! | conv1d | uniform within 1 / sqrt(kernel), bias a tenth of that |
//! | A_log | log of uniform 1 to 16 |
//! | D | 1 ± 0.1 |
//! | dt_bias | inverse softplus of dt, log-uniform 0.001 to 0.1 |
//! | norm weights | 1 ± 0.1 |
//!
//! As in trained models, a few channels stand out: four residual channels are written eight times as large (rows of the
//! writing linears, columns of the embedding), and four MLP channels have up_proj rows times 8 and down_proj columns
//! over 64, which cancel behind squared ReLU.
//!
//! Linears take four values from each 64-bit hash through a table of normal quantiles, which keeps generation faster
//! than disks. The tails end at 3.7 standard deviations.

use super::dtype;
use crate::config::Config;
use crate::names::{Role, TensorSpec};
use half::bf16;
use ir::weights::FloatType;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::LazyLock;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const STD: f64 = 0.02;
const TABLE: usize = 4096;
const LARGE_CHANNELS: u64 = 4;
/// Smaller models have no room for channels that stand out.
const LARGE_CHANNELS_FROM: usize = 64;
/// 2^64 over the golden ratio: the increment of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Values of the standard normal distribution at equally likely ranks.
static QUANTILES: LazyLock<[f64; TABLE]> = LazyLock::new(normal_quantiles);

/// Makes the bytes of one tensor.
pub(super) struct Generator {
    role: Role,
    rows: usize,
    columns: usize,
    element: FloatType,
    kernel: f64,
    key: u64,
    /// Quantiles of the tensor's distribution, bf16 bits.
    table: Box<[u16; TABLE]>,
    large_rows: Channels,
    large_columns: Channels,
}

/// Channels that stand out, and by how much.
struct Channels {
    indices: Vec<usize>,
    scale: f32,
}

impl Generator {
    pub fn new(tensor: &TensorSpec, config: &Config, seed: u64) -> Generator {
        let rows = tensor.shape[0];
        let std = match tensor.role {
            Role::OutProj | Role::DownProj | Role::OProj => STD / (2.0 * config.layers.len() as f64).sqrt(),
            _ => STD,
        };
        let residual = |scale| Channels::new(seed, "residual", config.hidden_size, scale);
        let mlp = |scale| {
            let layer = format!("mlp {:?}", tensor.layer);
            Channels::new(seed, &layer, config.intermediate_size, scale)
        };
        let (large_rows, large_columns) = match tensor.role {
            Role::Embedding => (Channels::none(), residual(8.0)),
            Role::OutProj | Role::OProj => (residual(8.0), Channels::none()),
            Role::UpProj => (mlp(8.0), Channels::none()),
            Role::DownProj => (residual(8.0), mlp(1.0 / 64.0)),
            _ => (Channels::none(), Channels::none()),
        };
        Generator {
            role: tensor.role,
            rows,
            columns: tensor.shape[1..].iter().product(),
            element: dtype(tensor.role),
            kernel: config.mamba.conv_kernel as f64,
            key: xxh3_64_with_seed(tensor.name.as_bytes(), seed),
            table: Box::new(QUANTILES.map(|q| bf16::from_f64(q * std).to_bits())),
            large_rows,
            large_columns,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn row_bytes(&self) -> usize {
        self.columns * self.element.bytes()
    }

    /// Replaces `out` by the bytes of these rows.
    pub fn fill(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        out.resize(rows.len() * self.row_bytes(), 0);
        let lines = out.par_chunks_exact_mut(self.row_bytes()).enumerate();
        // Rows of a vector are single elements: hand them to threads in batches.
        lines.with_min_len(1 + 4096 / self.row_bytes()).for_each(|(i, line)| {
            let row = rows.start + i;
            let key = mix(self.key ^ mix(row as u64));
            if self.is_linear() {
                self.fill_linear_row(row, key, line);
            } else {
                self.fill_other_row(key, line);
            }
        });
    }

    fn is_linear(&self) -> bool {
        use Role::*;
        matches!(self.role, Embedding | LmHead | InProj | OutProj | UpProj | DownProj | QProj | KProj | VProj | OProj)
    }

    fn fill_linear_row(&self, row: usize, key: u64, line: &mut [u8]) {
        let value = |bits: u64| self.table[bits as usize % TABLE];
        let mut words = line.chunks_exact_mut(8);
        let mut counter = key;
        for word in &mut words {
            counter = counter.wrapping_add(GOLDEN);
            let hash = mix(counter);
            let four = [hash, hash >> 16, hash >> 32, hash >> 48].map(value);
            word.copy_from_slice(bytemuck::bytes_of(&four.map(u16::to_le)));
        }
        let hash = mix(counter.wrapping_add(GOLDEN));
        for (i, last) in words.into_remainder().chunks_exact_mut(2).enumerate() {
            last.copy_from_slice(&value(hash >> (16 * i)).to_le_bytes());
        }
        if self.large_rows.indices.contains(&row) {
            (0..self.columns).for_each(|column| scale(line, column, self.large_rows.scale));
        }
        for &column in &self.large_columns.indices {
            scale(line, column, self.large_columns.scale);
        }
    }

    fn fill_other_row(&self, key: u64, line: &mut [u8]) {
        for (i, bytes) in line.chunks_exact_mut(self.element.bytes()).enumerate() {
            let hash = mix(key.wrapping_add(GOLDEN.wrapping_mul(i as u64 + 1)));
            // 53 bits: uniform over [0, 1).
            let value = self.other((hash >> 11) as f64 / (1u64 << 53) as f64);
            match self.element {
                FloatType::F32 => bytes.copy_from_slice(&(value as f32).to_le_bytes()),
                _ => bytes.copy_from_slice(&bf16::from_f64(value).to_le_bytes()),
            }
        }
    }

    /// A value of a tensor that is no linear, from a uniform variable.
    fn other(&self, uniform: f64) -> f64 {
        let centered = 2.0 * uniform - 1.0;
        match self.role {
            Role::ALog => (1.0 + 15.0 * uniform).ln(),
            Role::DtBias => {
                let dt = 0.001 * 100f64.powf(uniform);
                dt + (-(-dt).exp_m1()).ln()
            }
            Role::Conv1d => centered / self.kernel.sqrt(),
            Role::Conv1dBias => 0.1 * centered / self.kernel.sqrt(),
            _ => 1.0 + 0.1 * centered,
        }
    }
}

impl Channels {
    fn none() -> Channels {
        Channels { indices: Vec::new(), scale: 1.0 }
    }

    /// A few channels of `width`, the same for every tensor that asks with this name.
    fn new(seed: u64, name: &str, width: usize, scale: f32) -> Channels {
        if width < LARGE_CHANNELS_FROM {
            return Channels::none();
        }
        let key = xxh3_64_with_seed(name.as_bytes(), seed);
        let mut indices: Vec<usize> =
            (0..LARGE_CHANNELS).map(|i| (mix(key.wrapping_add(i)) % width as u64) as usize).collect();
        indices.sort_unstable();
        indices.dedup();
        Channels { indices, scale }
    }
}

/// Multiplies one bf16 value by a power of two.
fn scale(line: &mut [u8], column: usize, by: f32) {
    let bytes = &mut line[2 * column..2 * column + 2];
    let value = bf16::from_le_bytes([bytes[0], bytes[1]]);
    bytes.copy_from_slice(&bf16::from_f32(value.to_f32() * by).to_le_bytes());
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every input bit changes every output bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Integrates the density and notes where it passes each rank.
fn normal_quantiles() -> [f64; TABLE] {
    const STEP: f64 = 1e-4;
    let (mut x, mut below) = (-6.0f64, 0.0);
    std::array::from_fn(|rank| {
        let target = (rank as f64 + 0.5) / TABLE as f64;
        while below < target {
            below += STEP * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
            x += STEP;
        }
        x
    })
}
