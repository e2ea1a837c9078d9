//! Each op but linears and embeddings as a launch.

use super::draft::{Buffers, Draft, Place, Rows, VirtualId};
use super::linear::act;
use super::schedule::{Schedule, Step, key};
use super::{ops, refuse};
use crate::cost;
use ir::melior::ir::{Value, operation::OperationLike};
use ir::ops::Op;
use ir::pass::PassFailure;
use ir::types::{NemoType, Storage};
use std::collections::HashMap;

/// A graph on its way to a plan.
pub struct Lowering<'s, 'c, 'm> {
    pub(super) schedule: &'s Schedule<'c, 'm>,
    /// Index of the step being lowered.
    pub(super) step: usize,
    pub(super) buffers: Buffers,
    places: HashMap<usize, Place>,
    pub(super) drafts: Vec<Draft<'c, 'm>>,
}

/// All launches, and the buffers they name.
pub struct Lowered<'c, 'm> {
    /// In order of execution.
    pub drafts: Vec<Draft<'c, 'm>>,
    /// Memory before reuse.
    pub buffers: Buffers,
    /// Where the logits are.
    pub logits: VirtualId,
}

/// Lowers every step of a schedule.
pub fn lower<'c, 'm>(schedule: &Schedule<'c, 'm>) -> Result<Lowered<'c, 'm>, PassFailure> {
    let mut lowering =
        Lowering { schedule, step: 0, buffers: Buffers::default(), places: HashMap::new(), drafts: Vec::new() };
    for (index, step) in schedule.steps.iter().enumerate() {
        lowering.step = index;
        match step {
            Step::Linears(linears) => lowering.linears(linears)?,
            Step::Single(op) => lowering.single(*op)?,
        }
    }
    let logits = match lowering.place(schedule.logits) {
        Place::Float(id) if lowering.rows(id) == Rows::Output => id,
        _ => {
            return Err(refuse(
                "the graph does not return f32 logits of the selected outputs".into(),
                "put select_outputs before the last linear and return its f32 result",
            ));
        }
    };
    Ok(Lowered { drafts: lowering.drafts, buffers: lowering.buffers, logits })
}

impl<'c, 'm> Lowering<'_, 'c, 'm> {
    /// Where a value of the old graph is.
    pub(super) fn place(&self, value: Value<'c, 'm>) -> Place {
        let root = self.schedule.root(value);
        self.places.get(&key(root)).cloned().unwrap_or_else(|| panic!("bug: {root} is used before it is computed"))
    }

    pub(super) fn set_place(&mut self, value: Value<'c, 'm>, place: Place) {
        self.places.insert(key(value), place);
    }

    pub(super) fn float(&self, value: Value<'c, 'm>, reader: &str) -> Result<VirtualId, PassFailure> {
        match self.place(value) {
            Place::Float(id) => Ok(id),
            _ => Err(refuse(
                format!("{reader} reads {}, expected f32", NemoType::Act(act(value))),
                "dequantize it first, or run fuse-conversions",
            )),
        }
    }

    pub(super) fn rows(&self, id: VirtualId) -> Rows {
        self.buffers.0[id.0].shape.rows
    }

    /// The buffer of a value that this step replaces by a sum; a copy when something reads the value later.
    pub(super) fn updated_in_place(&mut self, value: Value<'c, 'm>, writer: &str) -> Result<VirtualId, PassFailure> {
        let x = self.float(value, writer)?;
        if self.schedule.dies_at(value, self.step) {
            return Ok(x);
        }
        let y = act(value);
        let rows = self.rows(x);
        let copy = self.buffers.add(&format!("{writer}.residual"), y.cols, Storage::F32, rows);
        let cost = cost::copy(&y);
        self.push_map(x, false, None, &Place::Float(copy), writer.to_owned(), cost);
        Ok(copy)
    }

    fn single(&mut self, op: Op<'c, 'm>) -> Result<(), PassFailure> {
        match op {
            Op::Embed(op) => self.embed(op),
            Op::Linear(linear) => match linear.residual() {
                Some(residual) => self.accumulating(linear, residual),
                None => self.linears(&[linear]),
            },
            Op::SelectOutputs(select) => self.select_outputs(op, select),
            Op::Add(add) => self.add(op, add),
            Op::RmsNorm(norm) => self.rms_norm(op, norm),
            Op::GatedRmsNorm(norm) => self.gated_rms_norm(op, norm),
            Op::Conv1d(conv) => self.conv1d(op, conv),
            Op::SsmScan(scan) => self.ssm_scan(op, scan),
            Op::Mixer(mixer) => self.mixer(op, mixer),
            Op::Attention(attention) => self.attention(op, attention),
            Op::Relu2(relu2) => self.map(op, relu2.x(), relu2.y(), true, None),
            Op::Quantize(quantize) => self.map(op, quantize.x(), quantize.y(), false, None),
            Op::Rotate(rotate) => self.rotate(op, rotate),
            Op::Map(map) => self.map(op, map.x(), map.y(), map.relu2(), ops::block(map.hadamard_block())),
            Op::Dequantize(dequantize) => self.dequantize(op, dequantize),
            _ => Err(refuse(
                format!("{} has no kernel", op.operation().name().as_string_ref().as_str().unwrap_or_default()),
                "this op belongs to another stage",
            )),
        }
    }
}
