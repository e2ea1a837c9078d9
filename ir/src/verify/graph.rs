//! Rules 22 to 25: what must hold between ops.

use super::checker::Checker;
use crate::ops::Op;
use crate::types::{NemoType, PLAIN, Storage, is_word};
use crate::weights::RotationKind;
use melior::ir::{
    Value, ValueLike,
    operation::{OperationLike, OperationRef},
};
use std::collections::{HashMap, HashSet};

/// What a basis name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Basis {
    kind: String,
    size: i64,
    /// `None` where a launch applies the Hadamard matrix itself, which has none.
    seed: Option<i64>,
}

/// The bases that the ops of a module name: rule 22.
#[derive(Default)]
pub(super) struct Bases(HashMap<String, Basis>);

impl Bases {
    /// Collects them and reports names that mean two things.
    pub(super) fn collect<'c, 'm>(checker: &mut Checker<'c, 'm>, ops: &[Op<'c, 'm>]) -> Self {
        let mut bases = Self::default();
        for op in ops {
            checker.enter(op.operation());
            match op {
                Op::Rotate(op) => bases.rotation(checker, op.basis(), op.kind(), op.size(), op.seed()),
                Op::RotateWeight(op) => bases.rotation(checker, op.basis(), op.kind(), op.size(), op.seed()),
                Op::RmsNorm(op) => bases.emitted(checker, op.y(), op.hadamard_block()),
                Op::GatedRmsNorm(op) => bases.emitted(checker, op.y(), op.hadamard_block()),
                Op::Mixer(op) => bases.emitted(checker, op.y(), op.hadamard_block()),
                Op::Attention(op) => bases.emitted(checker, op.y(), op.hadamard_block()),
                Op::Map(op) => bases.emitted(checker, op.y(), op.hadamard_block()),
                _ => {}
            }
        }
        bases
    }

    /// The size of the blocks of a basis that is not the plain one.
    pub(super) fn size(&self, basis: &str) -> Option<usize> {
        self.0.get(basis).and_then(|basis| usize::try_from(basis.size).ok()).filter(|size| *size > 0)
    }

    fn rotation(&mut self, checker: &mut Checker<'_, '_>, name: String, kind: String, size: i64, seed: i64) {
        let known = RotationKind::parse(&kind).is_some();
        checker.require(known, || format!("kind is \"{kind}\", expected hadamard, random-hadamard or klt"));
        let named = is_word(&name) && name != PLAIN;
        checker.require(named, || format!("basis is \"{name}\", expected a word other than {PLAIN}"));
        if known && named {
            self.define(checker, name, Basis { kind, size, seed: Some(seed) });
        }
    }

    fn emitted(&mut self, checker: &mut Checker<'_, '_>, y: Value<'_, '_>, block: Option<i64>) {
        if let Some(size) = block {
            let name = checker.act(y).basis;
            self.define(checker, name, Basis { kind: RotationKind::Hadamard.as_str().into(), size, seed: None });
        }
    }

    fn define(&mut self, checker: &mut Checker<'_, '_>, name: String, basis: Basis) {
        let known = self.0.entry(name.clone()).or_insert_with(|| basis.clone());
        let seeds_agree = known.seed.is_none() || basis.seed.is_none() || known.seed == basis.seed;
        let agree = known.kind == basis.kind && known.size == basis.size && seeds_agree;
        known.seed = known.seed.or(basis.seed);
        let (kind, size) = (known.kind.clone(), known.size);
        checker.require(agree, || {
            format!(
                "basis {name} is {} of {} here, {kind} of {size} (or of another seed) before",
                basis.kind, basis.size
            )
        });
    }
}

/// What a row of an activation stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    Token,
    Output,
}

/// Rules 23 to 25.
pub(super) fn check<'c, 'm>(checker: &mut Checker<'c, 'm>, ops: &[Op<'c, 'm>]) {
    let mut names = HashSet::new();
    let mut flow = Flow::default();
    for op in ops {
        checker.enter(op.operation());
        let name = match op {
            Op::Linear(op) => Some(op.name()),
            Op::Embed(op) => Some(op.name()),
            _ => None,
        };
        if let Some(name) = name {
            let new = names.insert(name.clone());
            checker.require(new, || format!("the name {name} is taken by an earlier linear or embedding"));
        }
        flow.rows(checker, *op);
        flow.signs(checker, *op);
    }
}

/// What is known of values beyond their types.
#[derive(Default)]
struct Flow {
    rows: HashMap<usize, Rows>,
    not_negative: HashSet<usize>,
}

impl Flow {
    /// Rule 25.
    fn rows<'c, 'm>(&mut self, checker: &mut Checker<'c, 'm>, op: Op<'c, 'm>) {
        let operation = op.operation();
        let operands: Vec<Rows> =
            operation.operands().filter_map(|value| self.rows.get(&key(value)).copied()).collect();
        let mixed = operands.windows(2).any(|pair| pair[0] != pair[1]);
        checker.require(!mixed, || "operands have token rows and output rows, expected one of them".into());
        let mut rows = operands.first().copied().unwrap_or(Rows::Token);
        let first_output = rows == Rows::Output;
        if matches!(op, Op::SelectOutputs(_)) {
            checker.require(!first_output, || "x has output rows already".into());
            rows = Rows::Output;
        }
        let has_state = matches!(op, Op::Conv1d(_) | Op::SsmScan(_) | Op::Mixer(_) | Op::Attention(_));
        checker
            .require(!(has_state && first_output), || "an op with a state takes token rows, found output rows".into());
        for value in activations(checker, operation) {
            self.rows.insert(key(value), rows);
        }
    }

    /// Rule 24.
    fn signs<'c, 'm>(&mut self, checker: &mut Checker<'c, 'm>, op: Op<'c, 'm>) {
        let from = |value: Value<'c, 'm>| self.not_negative.contains(&key(value));
        let not_negative = match op {
            Op::Relu2(_) => true,
            Op::Linear(op) => op.epilogue().is_some(),
            Op::Map(op) => op.hadamard_block().is_none() && (op.relu2() || from(op.x())),
            Op::Convert(op) => from(op.x()),
            Op::SelectOutputs(op) => from(op.x()),
            Op::Quantize(op) => from(op.x()),
            Op::Dequantize(op) => from(op.x()),
            _ => false,
        };
        for value in activations(checker, op.operation()) {
            let unsigned = checker.act(value).storage == Storage::U8;
            checker.require(!unsigned || not_negative, || {
                "the result is stored as ui8, expected i8: only what relu2 made is never negative".into()
            });
            if not_negative {
                self.not_negative.insert(key(value));
            }
        }
    }
}

/// The results of an op that are activations.
fn activations<'c, 'm>(checker: &mut Checker<'c, 'm>, operation: OperationRef<'c, 'm>) -> Vec<Value<'c, 'm>> {
    let results = operation.results().map(Value::from);
    results.filter(|value| matches!(checker.type_of(*value), NemoType::Act(_))).collect()
}

/// Identifies a value.
pub(super) fn key(value: Value<'_, '_>) -> usize {
    value.to_raw().ptr as usize
}
