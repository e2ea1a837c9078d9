//! Collects violations and knows the types of values.

use crate::border;
use crate::error::Violation;
use crate::ops::kinds::TypeClass;
use crate::types::{Act, NemoType, StateType, Vector, Weight};
use melior::ir::{
    Type, TypeLike, Value, ValueLike,
    operation::{OperationLike, OperationRef},
};
use std::collections::HashMap;
use std::fmt::Display;

/// What the rules share.
#[derive(Default)]
pub(super) struct Checker<'c, 'm> {
    violations: Vec<Violation>,
    /// The op whose rules are being checked.
    op: Option<OperationRef<'c, 'm>>,
    /// Types read so far, by MLIR's handle: few types, many values.
    types: HashMap<usize, Result<NemoType, String>>,
}

impl<'c, 'm> Checker<'c, 'm> {
    /// Violations from here on are this op's.
    pub(super) fn enter(&mut self, op: OperationRef<'c, 'm>) {
        self.op = Some(op);
    }

    /// Reports a violation.
    pub(super) fn refuse(&mut self, message: impl Into<String>) {
        let (at, line) = self.op.map_or((String::new(), None), |op| place(&op));
        self.violations.push(Violation { at, line, message: message.into() });
    }

    /// Reports a violation unless the rule holds.
    pub(super) fn require(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.refuse(message());
        }
    }

    /// Reports a violation unless two things are equal.
    pub(super) fn same<T: PartialEq + Display>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.refuse(format!("{what} is {found}, expected {expected}"));
        }
    }

    /// Every violation, in the order found.
    pub(super) fn finish(self) -> Vec<Violation> {
        self.violations
    }

    /// How many violations there are so far.
    pub(super) fn count(&self) -> usize {
        self.violations.len()
    }

    /// Reads a type and says what is wrong with it.
    pub(super) fn read(&mut self, r#type: Type<'_>) -> Result<NemoType, String> {
        let key = r#type.to_raw().ptr as usize;
        let read = || {
            let read = NemoType::read(&border::type_text(r#type))?;
            super::value_types::check(&read)?;
            Ok(read)
        };
        self.types.entry(key).or_insert_with(read).clone()
    }

    /// The type of a value of a structurally sound op.
    pub(super) fn type_of(&mut self, value: Value<'_, '_>) -> NemoType {
        self.read(value.r#type()).expect("bug: an unsound op reached the rules")
    }

    /// The type of an activation.
    pub(super) fn act(&mut self, value: Value<'_, '_>) -> Act {
        match self.type_of(value) {
            NemoType::Act(act) => act,
            other => unreachable!("structure let {other} pass for an activation"),
        }
    }

    /// The type of a weight.
    pub(super) fn weight(&mut self, value: Value<'_, '_>) -> Weight {
        match self.type_of(value) {
            NemoType::Weight(weight) => weight,
            other => unreachable!("structure let {other} pass for a weight"),
        }
    }

    /// The type of a vector.
    pub(super) fn vector(&mut self, value: Value<'_, '_>) -> Vector {
        match self.type_of(value) {
            NemoType::Vector(vector) => vector,
            other => unreachable!("structure let {other} pass for a vector"),
        }
    }

    /// The type of a state.
    pub(super) fn state(&mut self, value: Value<'_, '_>) -> StateType {
        match self.type_of(value) {
            NemoType::State(state) => state,
            other => unreachable!("structure let {other} pass for a state"),
        }
    }

    /// A count in an attribute.
    pub(super) fn size(&mut self, name: &str, value: i64) -> Option<usize> {
        let size = usize::try_from(value).ok().filter(|size| super::value_types::SIZES.contains(size));
        self.require(size.is_some(), || format!("{name} is {value}, expected a positive size"));
        size
    }

    /// A number in an attribute that must be finite and above zero.
    pub(super) fn positive(&mut self, name: &str, value: f64) {
        let holds = value.is_finite() && value > 0.0;
        self.require(holds, || format!("{name} is {value}, expected a positive number"));
    }

    /// One of the words that an attribute can be.
    pub(super) fn word(&mut self, name: &str, value: &str, words: &[&str]) {
        let holds = words.contains(&value);
        self.require(holds, || format!("{name} is \"{value}\", expected {}", words.join(", ")));
    }
}

/// Whether a type is of a class.
pub(super) fn is_of(r#type: &NemoType, class: TypeClass) -> bool {
    match class {
        TypeClass::Tokens => matches!(r#type, NemoType::Tokens),
        TypeClass::Act => matches!(r#type, NemoType::Act(_)),
        TypeClass::Weight => matches!(r#type, NemoType::Weight(_)),
        TypeClass::Vector => matches!(r#type, NemoType::Vector(_)),
        TypeClass::State => matches!(r#type, NemoType::State(_)),
        TypeClass::Buffer => matches!(r#type, NemoType::Buffer(_)),
        TypeClass::Any => true,
    }
}

/// An op, the name in its location, and its line in the text it was read from.
fn place(op: &OperationRef<'_, '_>) -> (String, Option<usize>) {
    let location = op.location();
    let op_name = border::identifier_text(op.name());
    let name = border::name_of(location);
    let at = if name.is_empty() { op_name } else { format!("{op_name} \"{name}\"") };
    (at, border::line_of(location))
}

/// A product that cannot overflow: sizes are below 2^31.
pub(super) fn product(sizes: &[usize]) -> u128 {
    sizes.iter().map(|size| *size as u128).product()
}
