//! Rules 1 to 5: what the other rules, and the views they use, rely on.

use super::checker::{Checker, is_of};
use crate::border::{identifier_text, string_value};
use crate::module::{FORWARD, forward, operations};
use crate::ops::kinds::TypeClass;
use crate::ops::{OPERAND_SEGMENTS, Op, OpSpec, RESULT_SEGMENTS, ValueSpec, segment};
use crate::stage::Stage;
use crate::types::{BufferType, NemoType, PLAIN, Storage};
use melior::ir::{
    BlockLike, BlockRef, Module, RegionLike, Type, Value, ValueLike,
    operation::{OperationLike, OperationRef},
};

/// Checks the structure; returns the ops that the other rules may look at.
pub(super) fn check<'c, 'm>(checker: &mut Checker<'c, 'm>, module: &'m Module<'c>) -> Vec<Op<'c, 'm>> {
    attributes_of_module(checker, module);
    let Some(block) = only_block(checker, module) else { return Vec::new() };
    signature(checker, module, block);
    let mut sound = Vec::new();
    for op in operations(block) {
        checker.enter(op);
        let before = checker.count();
        let Some(spec) = OpSpec::find(&identifier_text(op.name())) else {
            let is_return = op.next_in_block().is_none() && identifier_text(op.name()) == "func.return";
            checker.require(is_return, || "only nemo ops and a final return are allowed".into());
            continue;
        };
        check_op(checker, &op, spec);
        if checker.count() == before {
            sound.extend(Op::of(op));
        }
    }
    sound
}

fn attributes_of_module<'c, 'm>(checker: &mut Checker<'c, 'm>, module: &'m Module<'c>) {
    checker.enter(module.as_operation());
    for (name, value) in module.as_operation().attributes() {
        let name = identifier_text(name);
        let holds = name.starts_with("nemo.") && string_value(value).is_some();
        checker.require(holds, || format!("attribute {name} is no string named nemo.*"));
    }
    let stage = Stage::of(module);
    checker.require(stage.is_some(), || {
        format!("nemo.stage names no stage, expected one of {}", Stage::all().map(|s| s.to_string()).join(", "))
    });
}

/// The block of the one function, if the module is as rule 1 says.
fn only_block<'c, 'm>(checker: &mut Checker<'c, 'm>, module: &'m Module<'c>) -> Option<BlockRef<'c, 'm>> {
    let mut next = module.body().first_operation();
    while let Some(op) = next {
        next = op.next_in_block();
        let name = op.attribute("sym_name").ok().and_then(string_value);
        let is_forward = identifier_text(op.name()) == "func.func" && name.as_deref() == Some(FORWARD);
        checker.require(is_forward, || {
            format!("the module holds {}, expected only the function @{FORWARD}", identifier_text(op.name()))
        });
        if !is_forward {
            return None;
        }
    }
    let block = forward(module).ok();
    checker.require(block.is_some(), || format!("the module has no function @{FORWARD} with a body"));
    let block = block?;
    let blocks = block.parent_region().and_then(|region| region.first_block()?.next_in_region());
    checker.require(blocks.is_none(), || format!("@{FORWARD} has more than one block"));
    if blocks.is_some() { None } else { Some(block) }
}

fn signature<'c, 'm>(checker: &mut Checker<'c, 'm>, module: &'m Module<'c>, block: BlockRef<'c, 'm>) {
    let tokens = block.argument(0).is_ok_and(|argument| checker.read(argument.r#type()) == Ok(NemoType::Tokens));
    let holds = tokens && block.argument_count() == 1;
    checker.require(holds, || format!("@{FORWARD} takes something else than one !nemo.tokens"));
    let Some(end) = block.terminator() else { return };
    // SAFETY: the terminator lives in the module, which outlives 'm.
    let end: OperationRef<'c, 'm> = unsafe { OperationRef::from_raw(end.to_raw()) };
    checker.enter(end);
    let returned: Vec<_> = end.operands().map(|value| checker.read(value.r#type())).collect();
    let planned = Stage::of(module) == Some(Stage::Planned);
    let holds = match returned.as_slice() {
        [Ok(NemoType::Buffer(BufferType { storage: Storage::F32, rows, .. }))] => planned && rows == "output",
        [Ok(NemoType::Act(act))] => !planned && act.storage == Storage::F32 && act.basis == PLAIN,
        _ => false,
    };
    let expected = if planned { "one f32 buffer of output rows" } else { "one plain f32 activation" };
    checker.require(holds, || format!("@{FORWARD} returns something else than {expected}"));
}

/// The rules of one op that make its view safe to use.
fn check_op<'c, 'm>(checker: &mut Checker<'c, 'm>, op: &OperationRef<'c, 'm>, spec: &OpSpec) {
    let plain = op.region_count() == 0 && op.successor_count() == 0;
    checker.require(plain, || "the op has regions or successors".into());
    attributes(checker, op, spec);
    let operands: Vec<Value<'_, '_>> = op.operands().collect();
    values(checker, op, spec.operands, &operands, OPERAND_SEGMENTS);
    let results: Vec<Value<'_, '_>> = op.results().map(Value::from).collect();
    values(checker, op, spec.results, &results, RESULT_SEGMENTS);
}

fn attributes<'c, 'm>(checker: &mut Checker<'c, 'm>, op: &OperationRef<'c, 'm>, spec: &OpSpec) {
    for (name, value) in op.attributes() {
        let name = identifier_text(name);
        if name.starts_with("nemo.") || [OPERAND_SEGMENTS, RESULT_SEGMENTS].contains(&name.as_str()) {
            continue;
        }
        match spec.attributes.iter().find(|attribute| attribute.name == name) {
            None => checker.refuse(format!("the op has no attribute {name}")),
            Some(known) => {
                checker.require((known.accepts)(value), || format!("attribute {name} is no {}", known.kind));
            }
        }
    }
    for required in spec.attributes.iter().filter(|attribute| attribute.required) {
        checker.require(op.has_attribute(required.name), || format!("attribute {} is missing", required.name));
    }
}

fn values<'c, 'm>(
    checker: &mut Checker<'c, 'm>,
    op: &OperationRef<'c, 'm>,
    specs: &[ValueSpec],
    values: &[Value<'c, 'm>],
    segments: &str,
) {
    for (index, spec) in specs.iter().enumerate() {
        let Some(range) = segment(op, specs, index, values.len(), segments) else {
            checker.refuse(format!("{segments} does not say which values are {}", spec.name));
            continue;
        };
        for value in &values[range] {
            value_type(checker, spec.name, spec.class, value.r#type());
        }
    }
}

fn value_type(checker: &mut Checker<'_, '_>, name: &str, class: TypeClass, r#type: Type<'_>) {
    match checker.read(r#type) {
        Err(problem) => checker.refuse(format!("{name}: {problem}")),
        Ok(found) => {
            let expected = class.mnemonic().unwrap_or_default();
            checker.require(is_of(&found, class), || format!("{name} is {found}, expected a !nemo.{expected}"));
        }
    }
}
