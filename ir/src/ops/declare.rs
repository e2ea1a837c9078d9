//! The macro behind the op table.

/// Declares the ops: one row each, from which everything else is derived.
macro_rules! ops {
    ($(
        $(#[doc = $doc:literal])*
        $mnemonic:ident $Op:ident {
            operands { $($operand:ident: $operand_arity:ident $operand_class:ident),* $(,)? }
            attributes { $($attribute:ident: $presence:ident $attribute_kind:ident),* $(,)? }
            results { $($result:ident: $result_arity:ident $result_class:ident),* $(,)? }
        }
    )*) => {
        /// Every op of the dialect, in the order of the reference page.
        pub const TABLE: &[super::OpSpec] = &[$(
            super::OpSpec {
                mnemonic: stringify!($mnemonic),
                name: concat!("nemo.", stringify!($mnemonic)),
                doc: &[$($doc),*],
                operands: &[$(super::ValueSpec {
                    name: stringify!($operand),
                    arity: <kinds::$operand_arity as kinds::ArityWord>::ARITY,
                    class: kinds::TypeClass::$operand_class,
                }),*],
                attributes: &[$(super::AttributeSpec {
                    name: stringify!($attribute),
                    required: matches!(<kinds::$presence as kinds::ArityWord>::ARITY, kinds::Arity::One),
                    kind: <kinds::$attribute_kind as kinds::AttributeWord>::NAME,
                    accepts: |attribute| <kinds::$attribute_kind as kinds::AttributeWord>::from_mlir(attribute).is_some(),
                }),*],
                results: &[$(super::ValueSpec {
                    name: stringify!($result),
                    arity: <kinds::$result_arity as kinds::ArityWord>::ARITY,
                    class: kinds::TypeClass::$result_class,
                }),*],
            }
        ),*];

        /// Typed views: an operation that is known to be of one kind, with named accessors.
        ///
        /// Accessors assume a verified op; on a malformed one they panic, naming the op.
        pub mod views {
            use super::super::{OpSpec, attribute, operand, result};
            use super::kinds;
            use melior::ir::operation::OperationRef;
            $(
                $(#[doc = $doc])*
                #[derive(Clone, Copy)]
                pub struct $Op<'c, 'a>(pub OperationRef<'c, 'a>);

                #[allow(clippy::len_without_is_empty)]
                impl<'c, 'a> $Op<'c, 'a> {
                    /// The row of the op table.
                    pub fn spec() -> &'static OpSpec {
                        OpSpec::find(concat!("nemo.", stringify!($mnemonic))).expect("the table lists its own rows")
                    }
                    $(
                        #[doc = concat!("Operand `", stringify!($operand), "`.")]
                        pub fn $operand(&self) -> kinds::Values<'c, 'a, kinds::$operand_arity> {
                            operand::<kinds::$operand_arity>(&self.0, Self::spec(), stringify!($operand))
                        }
                    )*
                    $(
                        #[doc = concat!("Attribute `", stringify!($attribute), "`.")]
                        pub fn $attribute(&self)
                            -> <kinds::$presence as kinds::ArityWord>::Of<<kinds::$attribute_kind as kinds::AttributeWord>::Value>
                        {
                            let value = attribute::<kinds::$attribute_kind>(&self.0, stringify!($attribute));
                            <kinds::$presence as kinds::ArityWord>::collect(value.into_iter().collect()).unwrap_or_else(|| {
                                panic!("bug: {} was used before it was verified: attribute {}",
                                    Self::spec().name, stringify!($attribute))
                            })
                        }
                    )*
                    $(
                        #[doc = concat!("Result `", stringify!($result), "`.")]
                        pub fn $result(&self) -> kinds::Values<'c, 'a, kinds::$result_arity> {
                            result::<kinds::$result_arity>(&self.0, Self::spec(), stringify!($result))
                        }
                    )*
                }
            )*
        }

        /// Builders: the parts of an op by name, for [`super::Builder::push`].
        pub mod build {
            use super::super::{Build, OpSpec, Parts};
            use super::{kinds, views};
            use kinds::{ArityWord, AttributeWord};
            use melior::{Context, ir::operation::OperationRef};
            use crate::ops::declare::{builder, parts};
            $(
                builder! {
                    $(#[doc = $doc])*
                    $mnemonic $Op
                    operands { $($operand: $operand_arity),* }
                    attributes { $($attribute: $presence $attribute_kind),* }
                    results { $($result: $result_arity),* }
                }
            )*
        }

        /// An operation by its kind.
        #[derive(Clone, Copy)]
        pub enum Op<'c, 'a> {
            $($(#[doc = $doc])* $Op(views::$Op<'c, 'a>),)*
        }

        impl<'c, 'a> Op<'c, 'a> {
            /// The operation itself.
            pub fn operation(&self) -> melior::ir::operation::OperationRef<'c, 'a> {
                match self {
                    $(Op::$Op(view) => view.0,)*
                }
            }

            /// The view of an operation; `None` for ops of other dialects.
            pub fn of(operation: melior::ir::operation::OperationRef<'c, 'a>) -> Option<Self> {
                use melior::ir::operation::OperationLike;
                match operation.name().as_string_ref().as_str().ok()? {
                    $(concat!("nemo.", stringify!($mnemonic)) => Some(Op::$Op(views::$Op(operation))),)*
                    _ => None,
                }
            }
        }
    };
}

/// The builder struct of one op. Ops without operands have no lifetimes to carry.
macro_rules! builder {
    (
        $(#[doc = $doc:literal])* $mnemonic:ident $Op:ident
        operands { }
        attributes { $($attribute:ident: $presence:ident $attribute_kind:ident),* }
        results { $($result:ident: $result_arity:ident),* }
    ) => {
        $(#[doc = $doc])*
        pub struct $Op {
            $(
                #[doc = concat!("Attribute `", stringify!($attribute), "`.")]
                pub $attribute: <kinds::$presence as ArityWord>::Of<<kinds::$attribute_kind as AttributeWord>::Value>,
            )*
            $(
                #[doc = concat!("Type of result `", stringify!($result), "`.")]
                pub $result: kinds::Types<kinds::$result_arity>,
            )*
        }

        impl<'c: 'b, 'b> Build<'c, 'b> for $Op {
            parts!(self $mnemonic $Op {} { $($attribute: $presence $attribute_kind),* } { $($result: $result_arity),* });
        }
    };
    (
        $(#[doc = $doc:literal])* $mnemonic:ident $Op:ident
        operands { $($operand:ident: $operand_arity:ident),+ }
        attributes { $($attribute:ident: $presence:ident $attribute_kind:ident),* }
        results { $($result:ident: $result_arity:ident),* }
    ) => {
        $(#[doc = $doc])*
        pub struct $Op<'c, 'b> {
            $(
                #[doc = concat!("Operand `", stringify!($operand), "`.")]
                pub $operand: kinds::Values<'c, 'b, kinds::$operand_arity>,
            )+
            $(
                #[doc = concat!("Attribute `", stringify!($attribute), "`.")]
                pub $attribute: <kinds::$presence as ArityWord>::Of<<kinds::$attribute_kind as AttributeWord>::Value>,
            )*
            $(
                #[doc = concat!("Type of result `", stringify!($result), "`.")]
                pub $result: kinds::Types<kinds::$result_arity>,
            )*
        }

        impl<'c: 'b, 'b> Build<'c, 'b> for $Op<'c, 'b> {
            parts!(self $mnemonic $Op { $($operand: $operand_arity),+ } { $($attribute: $presence $attribute_kind),* } { $($result: $result_arity),* });
        }
    };
}

/// The items of a [`super::Build`] implementation.
macro_rules! parts {
    (
        $this:ident $mnemonic:ident $Op:ident
        { $($operand:ident: $operand_arity:ident),* }
        { $($attribute:ident: $presence:ident $attribute_kind:ident),* }
        { $($result:ident: $result_arity:ident),* }
    ) => {
        type View = views::$Op<'c, 'b>;

        fn parts($this, context: &'c Context) -> Parts<'c, 'b> {
            let _ = context;
            #[allow(unused_mut)]
            let mut attributes = Vec::new();
            $(
                for value in kinds::$presence::flatten($this.$attribute) {
                    attributes.push((stringify!($attribute), kinds::$attribute_kind::to_mlir(&value, context)));
                }
            )*
            Parts {
                spec: OpSpec::find(concat!("nemo.", stringify!($mnemonic))).expect("the table lists its own rows"),
                operands: vec![$(kinds::$operand_arity::flatten($this.$operand)),*],
                attributes,
                results: vec![$(kinds::$result_arity::flatten($this.$result)),*],
            }
        }

        fn view(op: OperationRef<'c, 'b>) -> Self::View {
            views::$Op(op)
        }
    };
}

pub(crate) use {builder, ops, parts};
