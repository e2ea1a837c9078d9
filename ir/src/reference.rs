//! The reference page of the dialect, `docs/ops.md`, generated from the op table and the types.

use crate::irdl::{TYPES, TypeSpec};
use crate::ops::kinds::Arity;
use crate::ops::{OpSpec, TABLE, ValueSpec};
use crate::types::STORAGES;
use std::fmt::Write;

/// The page, as Markdown.
pub fn page() -> String {
    let storages: Vec<_> = STORAGES.iter().map(|(_, name)| format!("`{name}`")).collect();
    let mut text = format!(
        "# The nemo dialect\n\n\
         Generated from `ir/src/ops/table.rs` and `ir/src/irdl.rs`; `make bless` rewrites it. What else legal IR must be is \
         the list of rules in `ir/src/verify/mod.rs`.\n\n\
         A `?` marks what may be absent, `...` any number of values. Storages are {}.\n\n## Types\n\n",
        storages.join(", ")
    );
    for spec in TYPES {
        describe_type(&mut text, spec);
    }
    text.push_str("\n## Ops\n");
    for spec in TABLE {
        describe_op(&mut text, spec);
    }
    text
}

fn describe_type(text: &mut String, spec: &TypeSpec) {
    let names: Vec<_> = spec.parameters.iter().map(|(name, _)| *name).collect();
    let parameters = if names.is_empty() { String::new() } else { format!("<{}>", names.join(", ")) };
    let _ = writeln!(text, "- `!nemo.{}{parameters}`: {}", spec.mnemonic, spec.doc);
}

fn describe_op(text: &mut String, spec: &OpSpec) {
    let doc: Vec<_> = spec.doc.iter().map(|line| line.trim()).collect();
    let _ = writeln!(text, "\n### {}\n\n{}\n", spec.name, doc.join("\n"));
    let _ = writeln!(text, "```mlir\n{}\n```", form(spec));
    if !spec.attributes.is_empty() {
        text.push('\n');
    }
    for attribute in spec.attributes {
        let optional = if attribute.required { "" } else { ", may be absent" };
        let _ = writeln!(text, "- `{}`: {}{optional}", attribute.name, attribute.kind);
    }
}

/// The op as it is written: `%y = "nemo.add"(%a, %b) : (act, act) -> act`.
fn form(spec: &OpSpec) -> String {
    let mut form = String::new();
    if !spec.results.is_empty() {
        let _ = write!(form, "{} = ", list(spec.results, |value| format!("%{}", value.name)));
    }
    let _ = write!(form, "\"{}\"({})", spec.name, list(spec.operands, |value| format!("%{}", value.name)));
    if !spec.attributes.is_empty() {
        let mark = |required| if required { "" } else { "?" };
        let names: Vec<_> = spec.attributes.iter().map(|a| format!("{}{}", a.name, mark(a.required))).collect();
        let _ = write!(form, " {{{}}}", names.join(", "));
    }
    let class = |value: &ValueSpec| value.class.mnemonic().unwrap_or("any").to_owned();
    let results = list(spec.results, class);
    let results = if spec.results.len() == 1 { results } else { format!("({results})") };
    let _ = write!(form, " : ({}) -> {results}", list(spec.operands, class));
    form
}

fn list(specs: &[ValueSpec], show: impl Fn(&ValueSpec) -> String) -> String {
    let mark = |arity| match arity {
        Arity::One => "",
        Arity::Optional => "?",
        Arity::Many => "...",
    };
    let shown: Vec<_> = specs.iter().map(|spec| format!("{}{}", show(spec), mark(spec.arity))).collect();
    shown.join(", ")
}
