//! The launch plan as a table.

use crate::table::{bytes, table};
use runtime::plan::{Kernel, Plan, Rows, StateKind};

/// The launches of a step, in order.
pub fn launches(plan: &Plan) -> String {
    let mut drawn =
        table(&["#>", "kernel", "origin", "weights>", "bytes/token>", "bytes/sequence>", "operations/token>"]);
    for (index, launch) in plan.launches.iter().enumerate() {
        drawn.add_row([
            index.to_string(),
            kernel_name(&launch.kernel),
            launch.origin.clone(),
            bytes(launch.cost.fixed_bytes),
            bytes(launch.cost.row_bytes),
            bytes(launch.cost.sequence_bytes),
            launch.cost.row_ops.to_string(),
        ]);
    }
    format!("{drawn}\n{} launches a step; {}\n", plan.launches.len(), memory(plan))
}

/// What a step and a sequence need.
pub fn memory(plan: &Plan) -> String {
    let (mut token, mut output) = (0, 0);
    for buffer in &plan.buffers {
        let size = (buffer.cols * buffer.dtype.bytes()) as u64;
        match buffer.rows {
            Rows::Token => token += size,
            Rows::Output => output += size,
        }
    }
    let (mut fixed, mut growing) = (0, 0);
    for state in &plan.states {
        let size = state.bytes() as u64;
        match state.kind {
            StateKind::Kv => growing += 2 * size,
            StateKind::Conv | StateKind::Ssm => fixed += size,
        }
    }
    format!(
        "a sequence takes {} and {} for each token of context; a step takes {} a token and {} an output row",
        bytes(fixed),
        bytes(growing),
        bytes(token),
        bytes(output)
    )
}

/// The name by which plan and kernel table know a kernel.
pub fn kernel_name(kernel: &Kernel) -> String {
    let value = serde_json::to_value(kernel).unwrap_or_default();
    value.get("name").and_then(|name| name.as_str()).unwrap_or("?").to_owned()
}
