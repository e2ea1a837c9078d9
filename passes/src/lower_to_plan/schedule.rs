//! The order of launches, which linears share one, and how long each value lives.

use super::refuse;
use ir::melior::ir::{Module, Value, operation::OperationLike};
use ir::module;
use ir::ops::{Op, views};
use ir::pass::PassFailure;
use std::collections::HashMap;

/// A launch takes at most this many linears: each brings two operands, x up to two, and an op has room for
/// [`ir::ops::MANY`].
const MAX_SEGMENTS: usize = 8;

/// What one launch computes.
#[derive(Clone)]
pub enum Step<'c, 'm> {
    /// An op by itself.
    Single(Op<'c, 'm>),
    /// Linears that share their input.
    Linears(Vec<views::Linear<'c, 'm>>),
}

/// The launches of a graph in order.
pub struct Schedule<'c, 'm> {
    /// In order of execution.
    pub steps: Vec<Step<'c, 'm>>,
    /// What the graph returns.
    pub logits: Value<'c, 'm>,
    /// Values that stand for another one, by key.
    aliases: HashMap<usize, Value<'c, 'm>>,
    /// The last step that reads a value, by key.
    last_use: HashMap<usize, usize>,
}

/// Identifies a value.
pub fn key(value: Value<'_, '_>) -> usize {
    use ir::melior::ir::ValueLike;
    value.to_raw().ptr as usize
}

impl<'c, 'm> Schedule<'c, 'm> {
    /// The schedule of a module's graph.
    pub fn of(module: &'m Module<'c>) -> Result<Self, PassFailure> {
        let logits = returned(module)?;
        let mut schedule = Schedule { steps: Vec::new(), logits, aliases: HashMap::new(), last_use: HashMap::new() };
        let mut groups: HashMap<usize, usize> = HashMap::new();
        for op in module::ops(module)? {
            match op {
                Op::Convert(convert) => {
                    let root = schedule.root(convert.x());
                    schedule.aliases.insert(key(convert.y()), root);
                }
                Op::Linear(linear) if linear.residual().is_none() => schedule.add_linear(linear, &mut groups),
                _ if computes(&op) => schedule.steps.push(Step::Single(op)),
                _ => {}
            }
        }
        schedule.find_last_uses();
        Ok(schedule)
    }

    /// The value whose memory holds `value`.
    pub fn root(&self, value: Value<'c, 'm>) -> Value<'c, 'm> {
        self.aliases.get(&key(value)).copied().unwrap_or(value)
    }

    /// Whether `step` is the last to read `value`.
    pub fn dies_at(&self, value: Value<'c, 'm>, step: usize) -> bool {
        self.last_use.get(&key(self.root(value))).is_none_or(|last| *last <= step)
    }

    fn add_linear(&mut self, linear: views::Linear<'c, 'm>, groups: &mut HashMap<usize, usize>) {
        let x = key(self.root(linear.x()));
        if let Some(Step::Linears(group)) = groups.get(&x).and_then(|step| self.steps.get_mut(*step))
            && group.len() < MAX_SEGMENTS
        {
            group.push(linear);
            return;
        }
        groups.insert(x, self.steps.len());
        self.steps.push(Step::Linears(vec![linear]));
    }

    fn find_last_uses(&mut self) {
        let mut uses = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let operations = match step {
                Step::Single(op) => vec![op.operation()],
                Step::Linears(group) => group.iter().map(|linear| linear.0).collect(),
            };
            for operand in operations.iter().flat_map(OperationLike::operands) {
                uses.push((key(self.root(operand)), index));
            }
        }
        uses.push((key(self.root(self.logits)), self.steps.len()));
        self.last_use.extend(uses);
    }
}

fn returned<'c, 'm>(module: &'m Module<'c>) -> Result<Value<'c, 'm>, PassFailure> {
    let last = module::operations(module::forward(module)?).pop();
    last.and_then(|op| op.operand(0).ok())
        .ok_or_else(|| refuse("the graph returns nothing".into(), "end @forward with the logits"))
}

/// Whether an op runs every step; weights are prepared once and states are operands.
fn computes(op: &Op<'_, '_>) -> bool {
    !(op.prepares_weight() || matches!(op, Op::ReadState(_) | Op::UpdateState(_)))
}
