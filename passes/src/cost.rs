//! What a launch moves and computes, and how long a target takes for it: the roofline that fuse-conversions optimizes
//! for, that lower-to-plan writes into every launch and that `nemoc bench` prints as *predicted* beside *measured*.

use ir::types::{Act, Granularity, Storage, Weight};
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

/// A launch that reads and writes rows and does `operations` on each element of the widest.
pub fn elementwise(reads: &[&Act], writes: &[&Act], operations: u64) -> Cost {
    let all = || reads.iter().chain(writes);
    let widest = all().map(|act| act.cols as u64).max().unwrap_or(0);
    Cost { row_bytes: all().map(|act| row_bytes(act)).sum(), row_ops: widest * operations, ..Cost::default() }
}

/// What emitting a result costs in arithmetic: an online rotation by blocks, and rounding.
pub fn emit_ops(y: &Act, hadamard_block: Option<usize>) -> u64 {
    let rotate = hadamard_block.map_or(0, |block| u64::from(block.max(1).ilog2()) + 1);
    let quantize = if y.is_quantized() { 3 } else { 0 };
    y.cols as u64 * (rotate + quantize)
}

/// One weight of a linear and its result, without reading x; a residual is read where the result is written.
pub fn linear_segment(weight: &Weight, y: &Act, residual: bool) -> Cost {
    let accesses = if residual { 2 } else { 1 };
    Cost {
        fixed_bytes: weight_bytes(weight),
        row_bytes: accesses * row_bytes(y),
        row_ops: 2 * weight.rows as u64 * weight.cols as u64,
        ..Cost::default()
    }
}

/// Reading an activation once.
pub fn read(x: &Act) -> Cost {
    Cost { row_bytes: row_bytes(x), ..Cost::default() }
}

/// The causal convolution apart from reading x and writing the result.
pub fn conv1d(channels: usize, kernel: usize) -> Cost {
    let (channels, kernel) = (channels as u64, kernel as u64);
    Cost {
        fixed_bytes: 4 * channels * (kernel + 1),
        sequence_bytes: 2 * 4 * channels * kernel.saturating_sub(1),
        row_ops: channels * (2 * kernel + 4),
        ..Cost::default()
    }
}

/// The selective scan apart from reading xbc and dt and writing the result.
pub fn ssm_scan(heads: usize, head_dim: usize, state_size: usize) -> Cost {
    let elements = heads as u64 * head_dim as u64 * state_size as u64;
    Cost {
        fixed_bytes: 3 * 4 * heads as u64,
        sequence_bytes: 2 * 4 * elements,
        row_ops: 5 * elements,
        ..Cost::default()
    }
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
    fn predicts_a_memory_bound_launch_by_its_bytes() {
        let target = Target::find("h200").unwrap();
        let cost = Cost { fixed_bytes: 4_550_000, row_ops: 10, ..Cost::default() };
        let seconds = target.seconds(cost, Workload::DECODE);
        assert!((seconds - (1e-6 + 2.5e-6)).abs() < 1e-12, "{seconds}");
    }
}
