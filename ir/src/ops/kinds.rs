//! The vocabulary of the op table: arities, type classes and attribute kinds.

// The names below are words of the table's syntax (`one act`, `opt str`), hence lower case.
#![allow(non_camel_case_types)]

use crate::types::NemoType;
use melior::{
    Context,
    ir::{
        Attribute, AttributeLike, TypeLike, Value,
        attribute::{ArrayAttribute, BoolAttribute, FloatAttribute, IntegerAttribute, StringAttribute},
        r#type::IntegerType,
    },
};

/// How many values an operand or result stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one.
    One,
    /// None or one.
    Optional,
    /// Any number.
    Many,
}

/// Which nemo types an operand or result may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeClass {
    /// `!nemo.tokens`
    Tokens,
    /// `!nemo.act`
    Act,
    /// `!nemo.matrix`
    Weight,
    /// `!nemo.vector`
    Vector,
    /// `!nemo.state`
    State,
    /// `!nemo.buffer`
    Buffer,
    /// Any type.
    Any,
}

impl TypeClass {
    /// The mnemonic of the type, `None` for [`TypeClass::Any`].
    pub const fn mnemonic(self) -> Option<&'static str> {
        Some(match self {
            TypeClass::Tokens => "tokens",
            TypeClass::Act => "act",
            TypeClass::Weight => "matrix",
            TypeClass::Vector => "vector",
            TypeClass::State => "state",
            TypeClass::Buffer => "buffer",
            TypeClass::Any => return None,
        })
    }
}

/// A word of the table that says how many.
pub trait ArityWord {
    /// The arity it stands for.
    const ARITY: Arity;
    /// The Rust type of so many `T`.
    type Of<T>;
    /// Flattens to a list.
    fn flatten<T>(values: Self::Of<T>) -> Vec<T>;
    /// Rebuilds from a list; `None` when the number is wrong.
    fn collect<T>(values: Vec<T>) -> Option<Self::Of<T>>;
}

/// Exactly one.
pub struct one;
/// None or one.
pub struct opt;
/// Any number.
pub struct many;

impl ArityWord for one {
    const ARITY: Arity = Arity::One;
    type Of<T> = T;
    fn flatten<T>(value: T) -> Vec<T> {
        vec![value]
    }
    fn collect<T>(mut values: Vec<T>) -> Option<T> {
        if values.len() == 1 { values.pop() } else { None }
    }
}

impl ArityWord for opt {
    const ARITY: Arity = Arity::Optional;
    type Of<T> = Option<T>;
    fn flatten<T>(value: Option<T>) -> Vec<T> {
        value.into_iter().collect()
    }
    fn collect<T>(mut values: Vec<T>) -> Option<Option<T>> {
        (values.len() <= 1).then(|| values.pop())
    }
}

impl ArityWord for many {
    const ARITY: Arity = Arity::Many;
    type Of<T> = Vec<T>;
    fn flatten<T>(values: Vec<T>) -> Vec<T> {
        values
    }
    fn collect<T>(values: Vec<T>) -> Option<Vec<T>> {
        Some(values)
    }
}

/// The values of an operand with arity `A`.
pub type Values<'c, 'a, A> = <A as ArityWord>::Of<Value<'c, 'a>>;
/// The types of a result with arity `A`.
pub type Types<A> = <A as ArityWord>::Of<NemoType>;

/// A word of the table that names an attribute kind.
pub trait AttributeWord {
    /// For the documentation.
    const NAME: &'static str;
    /// The Rust value.
    type Value: Clone;
    /// To MLIR.
    fn to_mlir<'c>(value: &Self::Value, context: &'c Context) -> Attribute<'c>;
    /// From MLIR; `None` when the attribute is of another kind.
    fn from_mlir(attribute: Attribute<'_>) -> Option<Self::Value>;
}

/// A signed 64-bit integer.
pub struct int;
/// A double.
pub struct float;
/// A string.
pub struct string;
/// A boolean.
pub struct boolean;
/// A list of strings.
pub struct strings;
/// A list of integers.
pub struct ints;

impl AttributeWord for int {
    const NAME: &'static str = "i64";
    type Value = i64;
    fn to_mlir<'c>(value: &i64, context: &'c Context) -> Attribute<'c> {
        IntegerAttribute::new(IntegerType::new(context, 64).into(), *value).into()
    }
    fn from_mlir(attribute: Attribute<'_>) -> Option<i64> {
        let integer = IntegerAttribute::try_from(attribute).ok()?;
        let r#type = IntegerType::try_from(attribute.r#type()).ok()?;
        (r#type.is_signless() && r#type.width() == 64).then(|| integer.value())
    }
}

impl AttributeWord for float {
    const NAME: &'static str = "f64";
    type Value = f64;
    fn to_mlir<'c>(value: &f64, context: &'c Context) -> Attribute<'c> {
        FloatAttribute::new(context, melior::ir::Type::float64(context), *value).into()
    }
    fn from_mlir(attribute: Attribute<'_>) -> Option<f64> {
        let number = FloatAttribute::try_from(attribute).ok()?;
        attribute.r#type().is_f64().then(|| number.value())
    }
}

impl AttributeWord for string {
    const NAME: &'static str = "string";
    type Value = String;
    fn to_mlir<'c>(value: &String, context: &'c Context) -> Attribute<'c> {
        StringAttribute::new(context, value).into()
    }
    fn from_mlir(attribute: Attribute<'_>) -> Option<String> {
        crate::border::string_value(attribute)
    }
}

impl AttributeWord for boolean {
    const NAME: &'static str = "bool";
    type Value = bool;
    fn to_mlir<'c>(value: &bool, context: &'c Context) -> Attribute<'c> {
        BoolAttribute::new(context, *value).into()
    }
    fn from_mlir(attribute: Attribute<'_>) -> Option<bool> {
        Some(BoolAttribute::try_from(attribute).ok()?.value())
    }
}

fn list_to_mlir<'c, W: AttributeWord>(values: &[W::Value], context: &'c Context) -> Attribute<'c> {
    let elements: Vec<_> = values.iter().map(|value| W::to_mlir(value, context)).collect();
    ArrayAttribute::new(context, &elements).into()
}

fn list_from_mlir<W: AttributeWord>(attribute: Attribute<'_>) -> Option<Vec<W::Value>> {
    let array = ArrayAttribute::try_from(attribute).ok()?;
    (0..array.len()).map(|index| W::from_mlir(array.element(index).ok()?)).collect()
}

impl AttributeWord for strings {
    const NAME: &'static str = "list of strings";
    type Value = Vec<String>;
    fn to_mlir<'c>(value: &Vec<String>, context: &'c Context) -> Attribute<'c> {
        list_to_mlir::<string>(value, context)
    }
    fn from_mlir(attribute: Attribute<'_>) -> Option<Vec<String>> {
        list_from_mlir::<string>(attribute)
    }
}

impl AttributeWord for ints {
    const NAME: &'static str = "list of i64";
    type Value = Vec<i64>;
    fn to_mlir<'c>(value: &Vec<i64>, context: &'c Context) -> Attribute<'c> {
        list_to_mlir::<int>(value, context)
    }
    fn from_mlir(attribute: Attribute<'_>) -> Option<Vec<i64>> {
        list_from_mlir::<int>(attribute)
    }
}
