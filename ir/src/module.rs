//! Modules: making, reading, printing and walking them.

use crate::border;
use crate::error::{IrError, Violation};
use crate::ops::{Builder, Op};
use crate::types::NemoType;
use melior::{
    Context,
    dialect::func,
    ir::{
        Attribute, Block, BlockLike, BlockRef, Identifier, Location, Module, Region, RegionLike, Type,
        attribute::{StringAttribute, TypeAttribute},
        operation::{OperationLike, OperationMutLike, OperationPrintingFlags, OperationRef},
        r#type::FunctionType,
    },
};

/// The function that holds the graph of a step: `(tokens) -> logits`.
pub const FORWARD: &str = "forward";

/// Starts an empty graph: a module with a function [`FORWARD`] that takes tokens and returns `logits`.
/// The caller appends ops to [`forward`] and ends with [`finish`].
pub fn start<'c>(context: &'c Context, logits: &NemoType) -> Module<'c> {
    let location = Location::unknown(context);
    let module = Module::new(location);
    let tokens = NemoType::Tokens.to_mlir(context);
    let body = Block::new(&[(tokens, location)]);
    let region = Region::new();
    region.append_block(body);
    let signature = FunctionType::new(context, &[tokens], &[logits.to_mlir(context)]);
    module.body().append_operation(func::func(
        context,
        StringAttribute::new(context, FORWARD),
        TypeAttribute::new(signature.into()),
        region,
        &[],
        location,
    ));
    module
}

/// Ends the graph: returns `logits` from the function.
pub fn finish<'c>(builder: &Builder<'c, '_>, logits: melior::ir::Value<'c, '_>) {
    let location = Location::unknown(builder.context());
    builder.block().append_operation(func::r#return(&[logits], location));
}

/// The block of the function [`FORWARD`].
///
/// # Errors
/// When the module has none.
pub fn forward<'c, 'm>(module: &'m Module<'c>) -> Result<BlockRef<'c, 'm>, IrError> {
    find_forward(module).and_then(|op| op.region(0).ok()?.first_block()).ok_or(IrError::NoForward)
}

/// The type that the function [`FORWARD`] returns.
///
/// # Errors
/// When the module has no such function.
pub fn logits_type(module: &Module<'_>) -> Result<NemoType, IrError> {
    let op = find_forward(module).ok_or(IrError::NoForward)?;
    let signature = op.attribute("function_type").map_err(|_| IrError::NoForward)?;
    TypeAttribute::try_from(signature)
        .ok()
        .and_then(|attribute| FunctionType::try_from(attribute.value()).ok())
        .and_then(|signature| NemoType::of(signature.result(0).ok()?))
        .ok_or(IrError::NoForward)
}

fn find_forward<'c, 'm>(module: &'m Module<'c>) -> Option<OperationRef<'c, 'm>> {
    let mut next = module.body().first_operation();
    while let Some(op) = next {
        let name = op.attribute("sym_name").ok().and_then(border::string_value);
        if name.as_deref() == Some(FORWARD) {
            // SAFETY: the operation lives in the module, which outlives 'm.
            return Some(unsafe { OperationRef::from_raw(op.to_raw()) });
        }
        next = op.next_in_block();
    }
    None
}

/// The operations of a block, in order.
pub fn operations<'c, 'a>(block: BlockRef<'c, 'a>) -> Vec<OperationRef<'c, 'a>> {
    let mut all = Vec::new();
    let mut next = block.first_operation();
    while let Some(op) = next {
        next = op.next_in_block();
        // SAFETY: the operation lives in the block, which outlives 'a.
        all.push(unsafe { OperationRef::from_raw(op.to_raw()) });
    }
    all
}

/// The nemo ops of a module's graph, in order.
///
/// # Errors
/// When the module has no graph.
pub fn ops<'c, 'm>(module: &'m Module<'c>) -> Result<Vec<Op<'c, 'm>>, IrError> {
    Ok(operations(forward(module)?).into_iter().filter_map(Op::of).collect())
}

/// The op that defines a value; `None` for the argument of the graph.
pub fn defining<'c, 'a>(value: melior::ir::Value<'c, 'a>) -> Option<Op<'c, 'a>> {
    use melior::ir::{ValueLike, operation::OperationResult};
    let result = OperationResult::try_from(value).ok()?;
    // SAFETY: a value lives as long as the operation that defines it.
    Op::of(unsafe { OperationRef::from_raw(mlir_sys::mlirOpResultGetOwner(result.to_raw())) })
}

/// The nemo type of a value.
///
/// # Panics
/// On a value of another dialect's type: a bug in the compiler, for verified IR has none.
pub fn type_of(value: melior::ir::Value<'_, '_>) -> NemoType {
    use melior::ir::ValueLike;
    NemoType::of(value.r#type()).unwrap_or_else(|| panic!("bug: {value} is no value of the nemo dialect"))
}

/// Name in a location: of a tensor, layer or linear. Empty when the op has none.
pub fn location_name(op: &OperationRef<'_, '_>) -> String {
    border::name_of(op.location())
}

/// Sets a string attribute of the module, for example its stage.
pub fn set_string<'c>(context: &'c Context, module: &mut Module<'c>, name: &str, value: &str) {
    module.as_operation_mut().set_attribute(name, StringAttribute::new(context, value).into());
}

/// A string attribute of the module.
pub fn get_string(module: &Module<'_>, name: &str) -> Option<String> {
    let attribute: Attribute<'_> = module.as_operation().attribute(name).ok()?;
    border::string_value(attribute)
}

/// Copies the attributes of one module to another: what a pass does that starts its new module itself.
pub fn copy_attributes<'c>(from: &Module<'c>, to: &mut Module<'c>) {
    let attributes: Vec<(Identifier<'c>, Attribute<'c>)> = from.as_operation().attributes().collect();
    for (name, value) in attributes {
        let name = border::identifier_text(name);
        to.as_operation_mut().set_attribute(&name, value);
    }
}

/// The text of a module, with locations; types are written once, as aliases.
pub fn print(module: &Module<'_>) -> String {
    let flags = OperationPrintingFlags::new().enable_debug_info(true, false);
    crate::alias::with_aliases(&border::operation_text(&module.as_operation(), &flags))
}

/// Nesting of brackets in text that [`parse`] accepts; MLIR's parser recurses, and the stack ends somewhere.
const MAX_NESTING: usize = 64;

/// Reads a module.
///
/// # Errors
/// When the text is not MLIR of the nemo and func dialects; carries MLIR's diagnostics.
pub fn parse<'c>(context: &'c Context, text: &str) -> Result<Module<'c>, IrError> {
    if let Some(violation) = unreadable(text) {
        return Err(IrError::Parse(vec![violation]));
    }
    let (module, diagnostics) = border::with_diagnostics(context, || Module::parse(context, text));
    module.ok_or(IrError::Parse(diagnostics))
}

/// Why text must not reach MLIR's parser: a NUL would end it early, deep nesting would overflow its stack, and affine
/// expressions, which nemo has no use for, recurse without brackets.
fn unreadable(text: &str) -> Option<Violation> {
    let mut depth = 0_usize;
    for (index, line) in text.lines().enumerate() {
        // To MLIR, a carriage return ends a comment, too.
        let code: String = line.split('\r').map(code).collect();
        depth = nesting(&code, depth);
        let message = if line.contains('\0') {
            "a NUL character".to_owned()
        } else if depth > MAX_NESTING {
            format!("brackets nest deeper than {MAX_NESTING}")
        } else if code.contains("affine_") {
            "affine maps and sets are not part of the nemo dialect".to_owned()
        } else {
            continue;
        };
        return Some(Violation { at: String::new(), line: Some(index + 1), message });
    }
    None
}

/// A line without comments, string contents and arrows.
fn code(line: &str) -> String {
    let mut code = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    let mut in_string = false;
    while let Some(character) = characters.next() {
        match (in_string, character) {
            (true, '\\') => drop(characters.next()),
            (_, '"') => in_string = !in_string,
            (true, _) => {}
            (false, '/') if characters.peek() == Some(&'/') => break,
            (false, '-') if characters.peek() == Some(&'>') => drop(characters.next()),
            (false, _) => code.push(character),
        }
    }
    code
}

/// The deepest nesting in a line that starts at `depth`, if it is too deep, else the nesting at its end.
fn nesting(code: &str, mut depth: usize) -> usize {
    for character in code.chars() {
        match character {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return depth;
        }
    }
    depth
}

/// Whether two types are the same: MLIR keeps one of each in a context.
pub fn same_type(a: Type<'_>, b: Type<'_>) -> bool {
    a == b
}
