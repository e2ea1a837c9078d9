//! Rule 26: every state is read, used and updated in order, once.

use super::checker::{Checker, product};
use super::graph::key;
use crate::ops::Op;
use crate::types::StateType;
use melior::ir::Value;
use std::collections::{HashMap, HashSet};

/// An op that uses a state: where it comes from, where it goes, what it must be.
struct Use<'c, 'm> {
    from: Value<'c, 'm>,
    to: Value<'c, 'm>,
    kind: &'static str,
    elements: u128,
}

/// Where states are on their way through the graph.
#[derive(Default)]
struct States {
    /// Names that were read.
    read: HashSet<String>,
    /// The state that a value holds before an op used it.
    before: HashMap<usize, String>,
    /// The state that a value holds after.
    after: HashMap<usize, String>,
    used: HashSet<String>,
    updated: HashSet<String>,
}

/// Checks the states of a graph.
pub(super) fn check<'c, 'm>(checker: &mut Checker<'c, 'm>, ops: &[Op<'c, 'm>]) {
    let mut states = States::default();
    for op in ops {
        checker.enter(op.operation());
        match op {
            Op::ReadState(op) => {
                let name = op.name();
                checker.require(!name.is_empty(), || "the state has no name".into());
                let new = states.read.insert(name.clone());
                checker.require(new, || format!("state {name} is read twice"));
                states.before.insert(key(op.value()), name);
            }
            Op::UpdateState(op) => states.update(checker, &op.name(), op.value()),
            _ => {
                for used in uses(checker, *op) {
                    states.use_by_op(checker, &used);
                }
            }
        }
    }
}

impl States {
    fn update(&mut self, checker: &mut Checker<'_, '_>, name: &str, value: Value<'_, '_>) {
        let read = self.read.contains(name);
        checker.require(read, || format!("state {name} is updated but was not read before"));
        match self.after.get(&key(value)) {
            Some(held) => checker.same("the updated state", name, held.as_str()),
            None => checker.refuse("value is no result of an op that used the state"),
        }
        let new = self.updated.insert(name.to_owned());
        checker.require(new, || format!("state {name} is updated twice"));
    }

    fn use_by_op(&mut self, checker: &mut Checker<'_, '_>, used: &Use<'_, '_>) {
        let (from, to) = (checker.state(used.from), checker.state(used.to));
        fits(checker, &from, used);
        checker.require(from == to, || format!("the state changes its type from {from} to {to}"));
        match self.before.get(&key(used.from)) {
            Some(name) => {
                let new = self.used.insert(name.clone());
                checker.require(new, || format!("state {name} is used by two ops"));
                self.after.insert(key(used.to), name.clone());
            }
            None => checker.refuse("the state operand is no result of read_state"),
        }
    }
}

fn fits(checker: &mut Checker<'_, '_>, state: &StateType, used: &Use<'_, '_>) {
    checker.same("the kind of the state", state.kind.as_str(), used.kind);
    checker.same("the elements of the state", state.elements as u128, used.elements);
}

/// The states that an op uses.
fn uses<'c, 'm>(checker: &mut Checker<'c, 'm>, op: Op<'c, 'm>) -> Vec<Use<'c, 'm>> {
    let size = |value: i64| usize::try_from(value).unwrap_or(0);
    match op {
        Op::Conv1d(op) => {
            let weight = checker.weight(op.weight());
            let elements = product(&[weight.rows, weight.cols - 1]);
            vec![Use { from: op.state(), to: op.new_state(), kind: "conv", elements }]
        }
        Op::SsmScan(op) => {
            let elements = product(&[size(op.heads()), size(op.head_dim()), size(op.state_size())]);
            vec![Use { from: op.state(), to: op.new_state(), kind: "ssm", elements }]
        }
        Op::Mixer(op) => {
            let weight = checker.weight(op.conv_weight());
            let conv = product(&[weight.rows, weight.cols - 1]);
            let ssm = product(&[size(op.heads()), size(op.head_dim()), size(op.state_size())]);
            vec![
                Use { from: op.conv_state(), to: op.new_conv_state(), kind: "conv", elements: conv },
                Use { from: op.ssm_state(), to: op.new_ssm_state(), kind: "ssm", elements: ssm },
            ]
        }
        Op::Attention(op) => {
            let elements = product(&[size(op.kv_heads()), size(op.head_dim())]);
            vec![Use { from: op.state(), to: op.new_state(), kind: "kv", elements }]
        }
        _ => Vec::new(),
    }
}
