//! What a step moves and computes, and how long a roofline says it takes.

use crate::plan::{Activation, Kernel, Launch, Plan, Rows, StateKind};
use serde::Serialize;
use std::ops::AddAssign;

/// Bytes and operations of one launch, or of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Work {
    /// Bytes that must move: weights, scales, states, keys and values of the context.
    pub floor_bytes: f64,
    /// These, and activations.
    pub bytes: f64,
    /// Arithmetic operations, a multiply-add counts as two.
    pub ops: f64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.floor_bytes += other.floor_bytes;
        self.bytes += other.bytes;
        self.ops += other.ops;
    }
}

/// The shape of a step: the same for each of its sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSize {
    /// Sequences.
    pub sequences: usize,
    /// New tokens of each.
    pub tokens: usize,
    /// Tokens that each had before.
    pub context: usize,
}

/// A GPU, as a roofline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Roofline {
    /// Plain reads from memory.
    pub bytes_per_second: f64,
    /// INT8 operations.
    pub int8_ops_per_second: f64,
    /// What one more launch costs.
    pub launch_seconds: f64,
}

impl Roofline {
    /// `max(bytes / bandwidth, operations / peak) + launch overhead`.
    pub fn seconds(&self, work: Work) -> f64 {
        (work.bytes / self.bytes_per_second).max(work.ops / self.int8_ops_per_second) + self.launch_seconds
    }
}

/// Of a launch, from the cost that the compiler wrote into the plan. Every sequence has one row of logits.
pub fn of_launch(plan: &Plan, launch: &Launch, step: StepSize) -> Work {
    let cost = launch.cost;
    let rows = match output_rows(plan, &launch.kernel) {
        Rows::Token => step.sequences * step.tokens,
        Rows::Output => step.sequences,
    } as f64;
    let floor_bytes = cost.fixed_bytes as f64 + cost.sequence_bytes as f64 * step.sequences as f64;
    let bytes = floor_bytes + cost.row_bytes as f64 * rows;
    let mut work = Work { floor_bytes, bytes, ops: cost.row_ops as f64 * rows };
    work += over_context(plan, &launch.kernel, step);
    work
}

/// Of all launches together.
pub fn of_step(plan: &Plan, step: StepSize) -> Work {
    let mut work = Work::default();
    for launch in &plan.launches {
        work += of_launch(plan, launch, step);
    }
    work
}

/// Seconds of a whole step.
pub fn predict(plan: &Plan, step: StepSize, roofline: &Roofline) -> f64 {
    plan.launches.iter().map(|launch| roofline.seconds(of_launch(plan, launch, step))).sum()
}

/// What attention reads and multiplies, which grows with the context and is in no cost of the plan.
fn over_context(plan: &Plan, kernel: &Kernel, step: StepSize) -> Work {
    let Kernel::Attention { state, heads, head_dim, .. } = kernel else { return Work::default() };
    let state = plan.state(*state);
    debug_assert!(state.kind == StateKind::Kv);
    let token_bytes = (2 * state.bytes()) as f64;
    let (sequences, tokens, context) = (step.sequences as f64, step.tokens as f64, step.context as f64);
    let bytes = sequences * context * token_bytes;
    // Token t sees context + t + 1 keys: scores and weighted values, two operations each.
    let pairs = sequences * tokens * (context + (tokens + 1.0) / 2.0);
    Work { floor_bytes: bytes, bytes, ops: 4.0 * pairs * (heads * head_dim) as f64 }
}

/// What a row of the result of a kernel is.
fn output_rows(plan: &Plan, kernel: &Kernel) -> Rows {
    let written = |to: &Activation| match to {
        Activation::Float { data } | Activation::Quantized { data, .. } => *data,
    };
    let id = match kernel {
        Kernel::Embed { out, .. }
        | Kernel::SelectOutputs { out, .. }
        | Kernel::Add { out, .. }
        | Kernel::Dequantize { out, .. }
        | Kernel::Conv1d { out, .. }
        | Kernel::SsmScan { out, .. } => *out,
        Kernel::Linear { x, .. } => written(x),
        Kernel::RmsNorm { emit, .. }
        | Kernel::Map { emit, .. }
        | Kernel::GatedRmsNorm { emit, .. }
        | Kernel::Mixer { emit, .. }
        | Kernel::Attention { emit, .. } => written(&emit.to),
    };
    plan.buffer(id).rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Cost, WeightFormat};
    use crate::synthetic::{Layout, Shape, model};

    fn plan() -> Plan {
        let (mut plan, _) = model(&Shape::tiny(), &Layout::of(WeightFormat::W8), 1);
        for launch in &mut plan.launches {
            launch.cost = Cost { fixed_bytes: 1000, row_bytes: 10, sequence_bytes: 100, row_ops: 7 };
        }
        plan
    }

    fn find<'p>(plan: &'p Plan, origin: &str) -> &'p Launch {
        plan.launches.iter().find(|launch| launch.origin.contains(origin)).unwrap()
    }

    #[test]
    fn counts_rows_and_sequences() {
        let plan = plan();
        let step = StepSize { sequences: 3, tokens: 5, context: 0 };
        let work = of_launch(&plan, find(&plan, "up_proj"), step);
        assert_eq!(work, Work { floor_bytes: 1300.0, bytes: 1450.0, ops: 105.0 });
    }

    #[test]
    fn the_head_has_one_row_a_sequence() {
        let plan = plan();
        let step = StepSize { sequences: 3, tokens: 5, context: 0 };
        let head = plan.launches.iter().rfind(|launch| launch.origin == "lm_head").unwrap();
        assert_eq!(of_launch(&plan, head, step).ops, 21.0);
    }

    #[test]
    fn attention_grows_with_the_context() {
        let plan = plan();
        let attention = find(&plan, "attention");
        let at = |context| of_launch(&plan, attention, StepSize { sequences: 2, tokens: 1, context });
        let shape = Shape::tiny();
        let token_bytes = (2 * 4 * shape.kv_heads * shape.head_dim) as f64;
        assert_eq!(at(100).bytes - at(0).bytes, 2.0 * 100.0 * token_bytes);
        assert_eq!(at(100).ops - at(0).ops, 2.0 * 100.0 * 4.0 * (shape.heads * shape.head_dim) as f64);
    }

    #[test]
    fn a_roofline_takes_the_slower_of_both() {
        let roofline = Roofline { bytes_per_second: 100.0, int8_ops_per_second: 10.0, launch_seconds: 0.5 };
        assert_eq!(roofline.seconds(Work { floor_bytes: 0.0, bytes: 200.0, ops: 1.0 }), 2.5);
        assert_eq!(roofline.seconds(Work { floor_bytes: 0.0, bytes: 1.0, ops: 40.0 }), 4.5);
    }
}
