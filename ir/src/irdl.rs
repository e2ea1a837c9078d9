//! The dialect's IRDL definition, derived from the op table, and the context it is loaded into.

use crate::ops::kinds::Arity;
use crate::ops::{OpSpec, TABLE, ValueSpec};
use crate::types::STORAGES;
use melior::{
    Context,
    dialect::{DialectHandle, DialectRegistry},
    ir::Module,
    utility::load_irdl_dialects,
};
use std::fmt::Write;

/// A type of the dialect.
#[derive(Clone, Copy, Debug)]
pub struct TypeSpec {
    /// The mnemonic, without `!nemo.`.
    pub mnemonic: &'static str,
    /// What a value of it is.
    pub doc: &'static str,
    /// Names and kinds of its parameters: `size` any integer, `storage` one of the storages, `text` any string. What
    /// the integers and strings may be is rule 5 of [`crate::verify`].
    pub parameters: &'static [(&'static str, &'static str)],
}

/// Every type of the dialect, in the order of the reference page.
pub const TYPES: &[TypeSpec] = &[
    TypeSpec { mnemonic: "tokens", doc: "The token ids of a step, of any number of sequences.", parameters: &[] },
    TypeSpec {
        mnemonic: "act",
        doc: "An activation: one row of `cols` values a token. `basis` is `plain` or names the rotation it lives in.",
        parameters: &[("cols", "size"), ("storage", "storage"), ("granularity", "text"), ("basis", "text")],
    },
    TypeSpec {
        mnemonic: "matrix",
        doc: "A weight, `rows` output features by `cols` input features: `basis_in` is the basis its input must live in, \
              `basis_out` the one its output lives in.",
        parameters: &[
            ("rows", "size"),
            ("cols", "size"),
            ("storage", "storage"),
            ("granularity", "text"),
            ("basis_in", "text"),
            ("basis_out", "text"),
        ],
    },
    TypeSpec {
        mnemonic: "vector",
        doc: "A parameter vector: a norm weight, a bias, a per-head constant.",
        parameters: &[("len", "size"), ("storage", "storage")],
    },
    TypeSpec {
        mnemonic: "state",
        doc: "Memory that lives as long as a sequence. `kind` is `conv`, `ssm` or `kv`; `elements` are those of a sequence, \
              for `kv` those of the keys, or values, of one token.",
        parameters: &[("kind", "text"), ("elements", "size"), ("storage", "storage")],
    },
    TypeSpec {
        mnemonic: "buffer",
        doc: "Memory of one step in a planned module. `rows` is `token` or `output`: one row for each token, or for each token \
              whose logits were asked for.",
        parameters: &[("cols", "size"), ("storage", "storage"), ("rows", "text")],
    },
];

/// The IRDL text of the dialect, as `mlir-opt --irdl-file` reads it.
pub fn irdl_text() -> String {
    let mut text = String::from("irdl.dialect @nemo {\n");
    for spec in TYPES {
        define_type(&mut text, spec.mnemonic, spec.parameters);
    }
    for spec in TABLE {
        define_op(&mut text, spec);
    }
    text.push_str("}\n");
    text
}

fn define_type(text: &mut String, name: &str, parameters: &[(&str, &str)]) {
    let _ = writeln!(text, "  irdl.type @{name} {{");
    for (parameter, constraint) in parameters {
        match *constraint {
            "size" => {
                let _ = writeln!(text, "    %{parameter} = irdl.base \"#builtin.integer\"");
            }
            "storage" => {
                for (index, (_, storage)) in STORAGES.iter().enumerate() {
                    let _ = writeln!(text, "    %{parameter}_{index} = irdl.is {storage}");
                }
                let all: Vec<_> = (0..STORAGES.len()).map(|index| format!("%{parameter}_{index}")).collect();
                let _ = writeln!(text, "    %{parameter} = irdl.any_of({})", all.join(", "));
            }
            _ => {
                let _ = writeln!(text, "    %{parameter} = irdl.base \"#builtin.string\"");
            }
        }
    }
    let named: Vec<_> = parameters.iter().map(|(parameter, _)| format!("{parameter}: %{parameter}")).collect();
    if !named.is_empty() {
        let _ = writeln!(text, "    irdl.parameters({})", named.join(", "));
    }
    text.push_str("  }\n");
}

/// Each operand and attribute gets a constraint of its own: IRDL takes two uses of one to mean equal types or values.
fn define_op(text: &mut String, spec: &OpSpec) {
    let _ = writeln!(text, "  irdl.operation @{} {{", spec.mnemonic);
    define_values(text, "operands", spec.operands);
    define_values(text, "results", spec.results);
    let required: Vec<_> = spec.attributes.iter().filter(|attribute| attribute.required).collect();
    if !required.is_empty() {
        for attribute in &required {
            let _ = writeln!(text, "    %a_{} = irdl.any", attribute.name);
        }
        let named: Vec<_> = required.iter().map(|attribute| format!("\"{0}\" = %a_{0}", attribute.name)).collect();
        let _ = writeln!(text, "    irdl.attributes {{{}}}", named.join(", "));
    }
    text.push_str("  }\n");
}

fn define_values(text: &mut String, keyword: &str, specs: &[ValueSpec]) {
    if specs.is_empty() {
        return;
    }
    let prefix = &keyword[..1];
    let mut named = Vec::new();
    for spec in specs {
        let constraint = match spec.class.mnemonic() {
            Some(mnemonic) => format!("irdl.base @nemo::@{mnemonic}"),
            None => "irdl.any".to_owned(),
        };
        let arity = if spec.arity == Arity::One { "" } else { "optional " };
        for slot in 0..spec.slots() {
            let name = if spec.arity == Arity::Many { format!("{}_{slot}", spec.name) } else { spec.name.to_owned() };
            let _ = writeln!(text, "    %{prefix}_{name} = {constraint}");
            named.push(format!("{name}: {arity}%{prefix}_{name}"));
        }
    }
    let _ = writeln!(text, "    irdl.{keyword}({})", named.join(", "));
}

/// A context that knows the `nemo`, `func` and `builtin` dialects and nothing else.
pub fn context() -> Context {
    let context = Context::new_with_threading(false);
    let registry = DialectRegistry::new();
    // SAFETY: the C function returns the handle of a dialect that is linked in; handles are static.
    let irdl = unsafe { DialectHandle::from_raw(mlir_sys::mlirGetDialectHandle__irdl__()) };
    irdl.insert_dialect(&registry);
    DialectHandle::func().insert_dialect(&registry);
    context.append_dialect_registry(&registry);
    context.load_all_available_dialects();
    let definition =
        Module::parse(&context, &irdl_text()).expect("bug: the op table makes IRDL that MLIR cannot parse");
    assert!(load_irdl_dialects(&definition), "bug: MLIR refuses the dialect made from the op table");
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_into_mlir() {
        context();
    }

    #[test]
    fn defines_every_type_class_that_an_op_uses() {
        for spec in TABLE {
            for value in spec.operands.iter().chain(spec.results) {
                let defined =
                    value.class.mnemonic().is_none_or(|mnemonic| TYPES.iter().any(|spec| spec.mnemonic == mnemonic));
                assert!(defined, "{}: {}", spec.name, value.name);
            }
        }
    }
}
