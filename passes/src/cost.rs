//! What a launch moves and computes, and how long a target takes for it: the roofline that fuse-conversions optimizes
//! for, that lower-to-plan writes into every launch and that `nemoc bench` prints as *predicted* beside *measured*.

use ir::types::{Act, Granularity, NemoType, StateType, Storage, Weight};
use std::ops::{Add, AddAssign};

/// Stored 4- and 8-bit rows and 8-bit activations are padded to a multiple of this many elements.
pub const K_ALIGN: usize = 32;

/// Traffic and arithmetic of a launch, linear in the number of token rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes moved once a launch: weights and scales.
    pub fixed_bytes: u64,
    /// Bytes moved for each token row: activations.
    pub row_bytes: u64,
    /// Bytes moved for each sequence: recurrent states, read and written. Keys and values of earlier tokens are not
    /// counted: they depend on the context length, and no rewrite changes them.
    pub sequence_bytes: u64,
    /// Arithmetic operations for each token row (a multiply-add counts as two).
    pub row_ops: u64,
}

impl Add for Cost {
    type Output = Cost;
    fn add(self, other: Cost) -> Cost {
        Cost {
            fixed_bytes: self.fixed_bytes + other.fixed_bytes,
            row_bytes: self.row_bytes + other.row_bytes,
            sequence_bytes: self.sequence_bytes + other.sequence_bytes,
            row_ops: self.row_ops + other.row_ops,
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), Cost::add)
    }
}

/// Columns of an 8-bit activation in memory.
pub fn padded(cols: usize) -> usize {
    cols.next_multiple_of(K_ALIGN)
}

/// Bytes of one row of an activation, its scale included.
pub fn row_bytes(act: &Act) -> u64 {
    match act.storage {
        Storage::I8 | Storage::U8 => padded(act.cols) as u64 + 4,
        _ => act.cols as u64 * act.storage.bits() / 8,
    }
}

/// Bytes of a stored weight, its scales included.
pub fn weight_bytes(weight: &Weight) -> u64 {
    weight.rows as u64 * weight_row_bytes(weight)
}

/// Bytes of one row of a stored weight: what an embedding reads for a token.
pub fn weight_row_bytes(weight: &Weight) -> u64 {
    let k = weight.cols;
    let stored = if weight.storage.is_float() { k } else { padded(k) };
    let scales = match weight.granularity {
        Granularity::Channel => 4,
        Granularity::TwoLevel(group) => 4 + k.div_ceil(group),
        Granularity::Group(group) => 2 * k.div_ceil(group),
        _ => 0,
    };
    stored as u64 * weight.storage.bits() / 8 + scales as u64
}

/// Operations an element of a norm: square, sum, scale, weight.
const NORM_OPS: u64 = 4;
/// Operations an element of a gate: silu and product.
const GATE_OPS: u64 = 6;

/// How a kernel leaves its result: the activation in memory and the online rotation before it.
#[derive(Clone, Copy, Debug)]
pub struct Emitted<'a> {
    /// In memory.
    pub y: &'a Act,
    /// Columns of a block of the rotation, if there is one.
    pub hadamard_block: Option<usize>,
}

impl Emitted<'_> {
    fn cost(self) -> Cost {
        let rotate = self.hadamard_block.map_or(0, |block| u64::from(block.max(1).ilog2()) + 1);
        let quantize = if self.y.is_quantized() { 3 } else { 0 };
        Cost { row_bytes: row_bytes(self.y), row_ops: self.y.cols as u64 * (rotate + quantize), ..Cost::default() }
    }
}

/// Reading and writing rows, with `operations` on each of `cols` columns.
fn rows(accessed: &[&Act], cols: usize, operations: u64) -> Cost {
    let row_bytes = accessed.iter().map(|act| row_bytes(act)).sum();
    Cost { row_bytes, row_ops: cols as u64 * operations, ..Cost::default() }
}

/// A parameter of this many f32.
fn parameter(len: Option<usize>) -> Cost {
    Cost { fixed_bytes: 4 * len.unwrap_or(0) as u64, ..Cost::default() }
}

/// The embedding.
pub fn embed(table: &Weight, y: &Act) -> Cost {
    rows(&[y], y.cols, 1) + Cost { row_bytes: weight_row_bytes(table), ..Cost::default() }
}

/// Moving rows without arithmetic.
pub fn copy(x: &Act) -> Cost {
    rows(&[x, x], x.cols, 0)
}

/// An elementwise sum.
pub fn add(x: &Act) -> Cost {
    rows(&[x, x, x], x.cols, 1)
}

/// Sums to floats: scales of the row and of each column.
pub fn dequantize(sums: &Act, y: &Act) -> Cost {
    rows(&[sums, y], y.cols, 2) + parameter(Some(y.cols)) + Cost { row_bytes: 4, ..Cost::default() }
}

/// What linears of one input share: reading it.
pub fn linear_input(x: &Act) -> Cost {
    rows(&[x], 0, 0)
}

/// One weight of a linear and its result; a residual is read where the result is written.
pub fn linear_segment(weight: &Weight, y: &Act, residual: bool) -> Cost {
    let written: &[&Act] = if residual { &[y, y] } else { &[y] };
    rows(written, weight.rows, 2 * weight.cols as u64) + Cost { fixed_bytes: weight_bytes(weight), ..Cost::default() }
}

/// Activation, rotation and quantization by themselves.
pub fn map(x: &Act, relu2: bool, emitted: Emitted<'_>) -> Cost {
    rows(&[x], x.cols, if relu2 { 2 } else { 0 }) + emitted.cost()
}

/// A norm; with `delta` the sum is written back.
pub fn norm(x: &Act, delta: bool, weight: Option<usize>, emitted: Emitted<'_>) -> Cost {
    let accessed: &[&Act] = if delta { &[x, x, x] } else { &[x] };
    rows(accessed, x.cols, NORM_OPS + u64::from(delta)) + parameter(weight) + emitted.cost()
}

/// A gated norm.
pub fn gate(x: &Act, z: &Act, weight: Option<usize>, emitted: Emitted<'_>) -> Cost {
    rows(&[x, z], x.cols, NORM_OPS + GATE_OPS) + parameter(weight) + emitted.cost()
}

/// Sizes of a causal convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvSize {
    /// Columns.
    pub channels: usize,
    /// Taps.
    pub kernel: usize,
}

impl ConvSize {
    fn cost(self) -> Cost {
        let (channels, kernel) = (self.channels as u64, self.kernel as u64);
        Cost {
            fixed_bytes: 4 * channels * (kernel + 1),
            sequence_bytes: 2 * 4 * channels * kernel.saturating_sub(1),
            row_ops: channels * (2 * kernel + 4),
            ..Cost::default()
        }
    }
}

/// Sizes of a selective scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanSize {
    /// Heads.
    pub heads: usize,
    /// Columns a head.
    pub head_dim: usize,
    /// Width of the state.
    pub state_size: usize,
    /// What it is kept in.
    pub storage: Storage,
}

impl ScanSize {
    fn cost(self) -> Cost {
        let elements = self.heads as u64 * self.head_dim as u64 * self.state_size as u64;
        Cost {
            fixed_bytes: 3 * 4 * self.heads as u64,
            sequence_bytes: 2 * state_bytes(self.storage, elements, self.state_size as u64),
            row_ops: 5 * elements,
            ..Cost::default()
        }
    }
}

/// A causal convolution.
pub fn conv1d(x: &Act, size: ConvSize) -> Cost {
    copy(x) + size.cost()
}

/// A selective scan.
pub fn ssm_scan(xbc: &Act, dt: &Act, y: &Act, size: ScanSize) -> Cost {
    rows(&[xbc, dt, y], 0, 0) + size.cost()
}

/// Convolution, scan and gated norm in one launch.
pub fn mixer(
    (z, xbc, dt): (&Act, &Act, &Act),
    conv: ConvSize,
    scan: ScanSize,
    weight: Option<usize>,
    emitted: Emitted<'_>,
) -> Cost {
    let gate = rows(&[z, xbc, dt], 0, 0) + rows(&[], z.cols, NORM_OPS + GATE_OPS);
    gate + conv.cost() + scan.cost() + parameter(weight) + emitted.cost()
}

/// What a state is kept in.
///
/// # Panics
/// When the type is no state's: a bug in the compiler.
pub fn state_storage(state: &NemoType) -> Storage {
    match state {
        NemoType::State(state) => state.storage,
        other => panic!("bug: {other} is no state"),
    }
}

/// Bytes of a state; 8-bit elements share an f32 scale by the row.
fn state_bytes(storage: Storage, elements: u64, row: u64) -> u64 {
    let scales = if storage == Storage::I8 { elements / row.max(1) } else { 0 };
    elements * storage.bits() / 8 + 4 * scales
}

/// Bytes that a token appends to a cache of keys and values.
pub fn appended_bytes(cache: &StateType, head_dim: i64) -> u64 {
    2 * state_bytes(cache.storage, cache.elements as u64, head_dim.unsigned_abs())
}

/// Attention apart from reading earlier keys and values.
pub fn attention(q: &Act, k: &Act, v: &Act, appended_bytes: u64, emitted: Emitted<'_>) -> Cost {
    rows(&[q, k, v], 0, 0) + Cost { row_bytes: appended_bytes, ..Cost::default() } + emitted.cost()
}

/// A GPU, as a roofline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Plain reads from memory.
    pub bytes_per_second: f64,
    /// Dense INT8 tensor-core operations.
    pub int8_ops_per_second: f64,
    /// What one more launch in a captured graph costs.
    pub launch_seconds: f64,
}

/// The targets that cost models know. Bandwidth and launch overhead of the H200 were measured; the other figures are
/// peaks of the vendor's data sheets (A100 80GB SXM and H200 data sheets, *NVIDIA Ada GPU Architecture* and *NVIDIA RTX
/// Blackwell GPU Architecture* white papers, dense INT8), their launch overhead is taken to be that of the H200.
pub const TARGETS: [Target; 4] = [
    Target { name: "h200", bytes_per_second: 4.55e12, int8_ops_per_second: 1979e12, launch_seconds: 2.5e-6 },
    Target { name: "rtx4090", bytes_per_second: 1.008e12, int8_ops_per_second: 660.6e12, launch_seconds: 2.5e-6 },
    Target { name: "rtx5090", bytes_per_second: 1.792e12, int8_ops_per_second: 838e12, launch_seconds: 2.5e-6 },
    Target { name: "a100", bytes_per_second: 2.039e12, int8_ops_per_second: 624e12, launch_seconds: 2.5e-6 },
];

/// How many rows and sequences a step has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Token rows.
    pub rows: u64,
    /// Sequences they belong to.
    pub sequences: u64,
}

impl Workload {
    /// One token of one sequence.
    pub const DECODE: Workload = Workload { rows: 1, sequences: 1 };
}

impl Target {
    /// The target of this name.
    pub fn find(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// `max(bytes / bandwidth, operations / peak) + launch overhead` of one launch.
    pub fn seconds(&self, cost: Cost, workload: Workload) -> f64 {
        let bytes = cost.fixed_bytes + cost.row_bytes * workload.rows + cost.sequence_bytes * workload.sequences;
        let operations = cost.row_ops * workload.rows;
        let memory = bytes as f64 / self.bytes_per_second;
        let arithmetic = operations as f64 / self.int8_ops_per_second;
        memory.max(arithmetic) + self.launch_seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::types::PLAIN;

    fn weight(storage: Storage, granularity: Granularity) -> Weight {
        let (basis_in, basis_out) = (PLAIN.into(), PLAIN.into());
        Weight { rows: 10, cols: 200, storage, granularity, basis_in, basis_out }
    }

    #[test]
    fn counts_the_bytes_that_each_weight_format_stores() {
        assert_eq!(weight_bytes(&weight(Storage::Bf16, Granularity::None)), 10 * 400);
        assert_eq!(weight_bytes(&weight(Storage::I8, Granularity::Channel)), 10 * (224 + 4));
        assert_eq!(weight_bytes(&weight(Storage::I4, Granularity::TwoLevel(128))), 10 * (112 + 2 + 4));
        assert_eq!(weight_bytes(&weight(Storage::I4, Granularity::Group(128))), 10 * (112 + 4));
    }

    #[test]
    fn counts_the_bytes_of_states_with_their_scales() {
        let cache = |storage| StateType { kind: "kv".into(), elements: 1024, storage };
        assert_eq!(appended_bytes(&cache(Storage::Bf16), 128), 2 * 2048);
        assert_eq!(appended_bytes(&cache(Storage::I8), 128), 2 * (1024 + 8 * 4));
        let scan = |storage| ScanSize { heads: 2, head_dim: 8, state_size: 32, storage }.cost().sequence_bytes;
        assert_eq!(scan(Storage::F32), 2 * 2048);
        assert_eq!(scan(Storage::F16), 2 * 1024);
        assert_eq!(scan(Storage::I8), 2 * (512 + 16 * 4));
    }

    #[test]
    fn predicts_a_memory_bound_launch_by_its_bytes() {
        let target = Target::find("h200").unwrap();
        let cost = Cost { fixed_bytes: 4_550_000, row_ops: 10, ..Cost::default() };
        let seconds = target.seconds(cost, Workload::DECODE);
        assert!((seconds - (1e-6 + 2.5e-6)).abs() < 1e-12, "{seconds}");
    }
}
