//! fold-rotations: rotations merge into the weights next to them.
//!
//! ```text
//! %b = nemo.rotate(%a) {transpose = true}            %v = nemo.rotate_weight(%w) {side = "in"}
//! %y = nemo.linear(%b, %w)                     ->    %y = nemo.linear(%a, %v)
//!
//! %y = nemo.linear(%x, %w)                           %v = nemo.rotate_weight(%w) {side = "out"}
//! %z = nemo.rotate(%y)                         ->    %z = nemo.linear(%x, %v)
//! ```
//!
//! The embedding's table is rotated like a weight's input side. Rotations move through the residual add, through norms
//! without a weight (a norm does not change under an orthogonal matrix) and through the selection of rows; a rotation
//! after its own inverse cancels. The pair of a rotation and its inverse in front of a linear does not cancel: half of
//! it goes into the weight, the other half is what runs online, in front of out_proj and down_proj.
//!
//! Does not fire where a norm still has its weight (run fold-norms first) or where a value in a rotated basis is read
//! by anything but a linear. Legal because every rule is an equality of values, proved on random numbers.
//!
//! Buys: all rotations but the online Hadamards cost nothing when the model runs.

use crate::cost::{TARGETS, Workload};
use crate::egraph::{Optimizer, Uses, is_term, rules};
use ir::melior::{Context, ir::Module};
use ir::ops::Op;
use ir::pass::{Pass, PassFailure};
use ir::stage::Stage;

/// See the module documentation.
pub struct FoldRotations;

impl Pass for FoldRotations {
    fn name(&self) -> &'static str {
        "fold-rotations"
    }

    fn requires(&self) -> std::ops::RangeInclusive<Stage> {
        Stage::Imported..=Stage::Annotated
    }

    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        let uses = Uses::of(module)?;
        let joined = |producer: &Op<'_, '_>, consumer: &Op<'_, '_>| {
            is_term(producer, &uses) && is_term(consumer, &uses) && touches(producer, consumer)
        };
        let optimizer = Optimizer {
            rules: rules::folding(),
            joined: &joined,
            alone: &|_| false,
            // Fewer online rotations are better on every target.
            target: &TARGETS[0],
            workload: Workload::DECODE,
            weights_are_final: false,
        };
        Ok(optimizer.run(context, module, &uses)?.0)
    }
}

/// Whether a rotation can move between two ops.
fn touches(producer: &Op<'_, '_>, consumer: &Op<'_, '_>) -> bool {
    let rotates = |op: &Op<'_, '_>| matches!(op, Op::Rotate(_));
    let passes = |op: &Op<'_, '_>| match op {
        Op::RmsNorm(norm) => norm.weight().is_none(),
        Op::SelectOutputs(_) => true,
        _ => false,
    };
    let stops = |op: &Op<'_, '_>| matches!(op, Op::Linear(_) | Op::Embed(_) | Op::Add(_));
    let moves = |op: &Op<'_, '_>| rotates(op) || passes(op) || stops(op);
    match (producer, consumer) {
        _ if rotates(producer) => moves(consumer),
        _ if rotates(consumer) => moves(producer),
        _ => passes(producer) && matches!(consumer, Op::Linear(_) | Op::SelectOutputs(_)),
    }
}
