//! fuse-conversions: conversions between formats and bases vanish, or become part of the launch next to them.
//!
//! ```text
//! %s = nemo.linear(%q, %w)          i32
//! %o = nemo.dequantize(%s)          f32        %x1 = nemo.linear(%q, %w, residual = %x)     f32
//! %x1 = nemo.add(%x, %o)            f32
//! %c = nemo.convert(%x1)            f32   ->
//! %n = nemo.rms_norm(%c)            f32        %n = nemo.rms_norm(%x1)                       i8
//! %n1 = nemo.quantize(%n)           i8
//! %n2 = nemo.quantize(%n)           i8
//! ```
//!
//! An e-graph of each region holds every way that the rules ([`crate::egraph::rules`]) find to compute it: dequantize,
//! relu2 and the residual add in a linear; the residual add in a norm; online rotation and quantization in the norm,
//! mixer, attention or activation that computes their input; convolution, scan and gated norm as one launch; rows
//! selected before the norm. The cheapest by the roofline of a named target is built; the report says what it beat.
//!
//! Does not fire across linears and on what it has no rule for; such ops stay as they are. Legal because every rule is
//! an equality of values, proved on random numbers, and the verifier checks types and bases of the result. States are
//! updated by exactly one op before and after.
//!
//! Buys: no stand-alone conversion at a border between layers, and three to four times fewer launches.

use crate::cost::{Target, Workload};
use crate::egraph::{Optimizer, Report, Uses, is_term, rules};
use crate::lower_to_plan::{Prediction, predict};
use ir::melior::{Context, ir::Module};
use ir::module::defining;
use ir::ops::Op;
use ir::pass::{Pass, PassFailure};
use ir::stage::Stage;
use std::cell::RefCell;

/// See the module documentation.
pub struct FuseConversions {
    target: Target,
    workload: Workload,
    report: RefCell<Option<Report>>,
}

impl FuseConversions {
    /// Optimizes for one token of one sequence on `target`.
    pub fn new(target: Target) -> Self {
        Self { target, workload: Workload::DECODE, report: RefCell::new(None) }
    }

    /// Optimizes for another step.
    pub fn with_workload(self, workload: Workload) -> Self {
        Self { workload, ..self }
    }

    fn predict(&self, module: &Module<'_>) -> Option<Prediction> {
        predict(module, &self.target, self.workload).ok()
    }

    /// What the last run chose and what that beat.
    pub fn report(&self) -> Option<Report> {
        self.report.borrow().clone()
    }
}

impl Default for FuseConversions {
    fn default() -> Self {
        Self::new(crate::cost::TARGETS[0])
    }
}

impl Pass for FuseConversions {
    fn name(&self) -> &'static str {
        "fuse-conversions"
    }

    fn requires(&self) -> std::ops::RangeInclusive<Stage> {
        Stage::Imported..=Stage::Quantized
    }

    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        let uses = Uses::of(module)?;
        let joined = |producer: &Op<'_, '_>, consumer: &Op<'_, '_>| {
            is_term(producer, &uses) && is_term(consumer, &uses) && fuses(producer, consumer)
        };
        let optimizer = Optimizer {
            rules: rules::fusing(),
            joined: &joined,
            alone: &|op| matches!(op, Op::Convert(_)),
            target: &self.target,
            workload: self.workload,
            weights_are_final: true,
        };
        let (rewritten, mut report) = optimizer.run(context, module, &uses)?;
        report.before = self.predict(module);
        report.after = self.predict(rewritten.as_ref().unwrap_or(module));
        *self.report.borrow_mut() = Some(report);
        Ok(rewritten)
    }

    fn choices(&self) -> Option<String> {
        self.report().map(|report| report.to_string())
    }
}

/// Whether a rule's left side can hold both ops.
fn fuses(producer: &Op<'_, '_>, consumer: &Op<'_, '_>) -> bool {
    let emits = |op: &Op<'_, '_>| {
        matches!(
            op,
            Op::RmsNorm(_)
                | Op::GatedRmsNorm(_)
                | Op::Mixer(_)
                | Op::Attention(_)
                | Op::Relu2(_)
                | Op::Rotate(_)
                | Op::Map(_)
        )
    };
    match (producer, consumer) {
        // The residual stream runs through converts from layer to layer, but no rule reaches from one add to the next.
        (Op::Convert(convert), Op::Add(_)) => !matches!(defining(convert.x()), Some(Op::Add(_) | Op::Embed(_))),
        (Op::Convert(_), _) | (_, Op::Convert(_)) => true,
        (Op::Linear(_), Op::Dequantize(_) | Op::Relu2(_) | Op::Add(_) | Op::Map(_)) => true,
        (Op::Dequantize(_), Op::Relu2(_) | Op::Add(_) | Op::Map(_)) => true,
        (Op::Add(_), Op::RmsNorm(_)) => true,
        (Op::RmsNorm(_), Op::SelectOutputs(_)) => true,
        (Op::SelectOutputs(_), Op::Quantize(_) | Op::Rotate(_)) => true,
        (Op::Conv1d(_), Op::SsmScan(_)) | (Op::SsmScan(_), Op::GatedRmsNorm(_)) => true,
        (producer, Op::Quantize(_) | Op::Rotate(_)) => emits(producer),
        _ => false,
    }
}
