//! lower-to-plan: a legal graph, fused or not, quantized or not, becomes buffers and launches.
//!
//! ```text
//! %n = nemo.rms_norm(%x)                       nemo.launch(%b0, %b1, %b2) {kernel = "rms_norm",
//! %q = nemo.linear(%n, %wq)             ->         roles = ["x", "emit/to/data", "emit/to/scale"], ...}
//! %k = nemo.linear(%n, %wk)                    nemo.launch(%b1, %b2, %wq, %b3, %wk, %b4) {kernel = "linear", ...}
//! ```
//!
//! Each op becomes one launch, except that
//! - linears that share their input become one launch with several segments;
//! - `convert` says that two values are equal, so it becomes nothing;
//! - a residual (of `linear`, of `rms_norm` with `delta`, of `add`) is updated in place when nothing reads it later,
//!   and copied first when something does.
//!
//! Values whose lifetimes do not overlap share a buffer of the same width and type.
//!
//! A launch names its kernel and carries its arguments as JSON; `roles[i]` is the path in that JSON that operand i is
//! for. Buffers and states have no number yet, so code generation inserts them there; for weights and parameters the
//! JSON already holds the name under which the artifact stores the operand's expression.
//!
//! Refuses what no kernel computes: an online rotation that is no Hadamard of a power of two, a `linear` with both
//! relu2 and a residual, a stand-alone `dequantize` of 8-bit values, logits that are not one row per output.
//!
//! Buys: the plan. Grouped linears read their input once; reused buffers keep the memory of a step to what is live.

mod draft;
mod emit;
mod kernels;
mod linear;
mod memory;
mod ops;
mod schedule;

use crate::cost::{Target, Workload};
use ir::melior::{Context, ir::Module};
use ir::pass::{Pass, PassError, PassFailure};
use ir::stage::Stage;

/// See the module documentation.
pub struct LowerToPlan;

const NAME: &str = "lower-to-plan";

impl Pass for LowerToPlan {
    fn name(&self) -> &'static str {
        NAME
    }

    fn requires(&self) -> std::ops::RangeInclusive<Stage> {
        Stage::Imported..=Stage::Planned
    }

    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        if Stage::of(module) == Some(Stage::Planned) {
            return Ok(None);
        }
        let schedule = schedule::Schedule::of(module)?;
        let lowered = kernels::lower(&schedule)?;
        emit::emit(context, module, &lowered).map(Some)
    }
}

/// What a cost model expects of a graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Number of launches.
    pub launches: usize,
    /// Time of a step.
    pub seconds: f64,
}

/// Predicts the plan that a graph would become.
///
/// # Errors
/// When it cannot become one.
pub fn predict(module: &Module<'_>, target: &Target, workload: Workload) -> Result<Prediction, PassFailure> {
    let schedule = schedule::Schedule::of(module)?;
    let drafts = kernels::lower(&schedule)?.drafts;
    let seconds = drafts.iter().map(|draft| target.seconds(draft.cost, workload)).sum();
    Ok(Prediction { launches: drafts.len(), seconds })
}

fn refuse(message: String, help: &str) -> PassFailure {
    PassError { pass: NAME, message, help: Some(help.to_owned()) }.into()
}
