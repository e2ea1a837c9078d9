//! The planned module.

use super::draft::{Argument, Draft};
use super::kernels::Lowered;
use super::memory::{self, Memory};
use ir::IrError;
use ir::melior::{
    Context,
    ir::{Module, Value},
};
use ir::module::{self, defining, finish, forward};
use ir::ops::{Builder, build};
use ir::pass::PassFailure;
use ir::rewrite::Rewriter;
use ir::stage::Stage;
use ir::types::{BufferType, NemoType};

/// Builds the planned module.
pub fn emit<'c>(context: &'c Context, old: &Module<'c>, lowered: &Lowered<'c, '_>) -> Result<Module<'c>, PassFailure> {
    let memory = memory::assign(&lowered.drafts, &lowered.buffers.0, lowered.logits);
    let logits = memory.assigned[&lowered.logits];
    let mut new = module::start(context, &buffer_type(&memory, logits));
    module::copy_attributes(old, &mut new);
    {
        let builder = Builder::new(context, forward(&new)?);
        let mut buffers = Vec::new();
        for (index, buffer) in memory.buffers.iter().enumerate() {
            let allocate = build::Allocate { name: buffer.name.clone(), value: buffer_type(&memory, index) };
            buffers.push(builder.push(allocate, builder.location(&buffer.name))?.value());
        }
        let mut rewriter = Rewriter::new(builder);
        for draft in &lowered.drafts {
            push_launch(&mut rewriter, draft, &memory, &buffers)?;
        }
        finish(&builder, buffers[logits]);
    }
    Stage::Planned.set(context, &mut new);
    Ok(new)
}

fn buffer_type(memory: &Memory, index: usize) -> NemoType {
    let shape = memory.buffers[index].shape;
    NemoType::Buffer(BufferType { cols: shape.cols, storage: shape.storage, rows: shape.rows.as_str().to_owned() })
}

fn push_launch<'c, 'n>(
    rewriter: &mut Rewriter<'c, 'n>,
    draft: &Draft<'c, '_>,
    memory: &Memory,
    buffers: &[Value<'c, 'n>],
) -> Result<(), IrError> {
    let mut arguments = Vec::new();
    for (_, argument) in &draft.arguments {
        arguments.push(match argument {
            Argument::Buffer(id) => buffers[memory.assigned[id]],
            Argument::Value(value) => copied(rewriter, *value)?,
        });
    }
    let builder = rewriter.builder();
    let launch = build::Launch {
        arguments,
        kernel: draft.kernel.to_owned(),
        roles: draft.arguments.iter().map(|(role, _)| role.clone()).collect(),
        parameters: draft.parameters.to_string(),
        fixed_bytes: draft.cost.fixed_bytes as i64,
        row_bytes: draft.cost.row_bytes as i64,
        sequence_bytes: draft.cost.sequence_bytes as i64,
        row_ops: draft.cost.row_ops as i64,
    };
    builder.push(launch, builder.location(&draft.origin)).map(|_| ())
}

/// A weight, parameter or state in the new module, with everything it is made from.
fn copied<'c, 'n>(rewriter: &mut Rewriter<'c, 'n>, old: Value<'c, '_>) -> Result<Value<'c, 'n>, IrError> {
    if let Some(new) = rewriter.find(old) {
        return Ok(new);
    }
    let op = defining(old).unwrap_or_else(|| panic!("bug: {old} is neither weight nor state"));
    use ir::melior::ir::operation::OperationLike;
    for operand in op.operation().operands() {
        copied(rewriter, operand)?;
    }
    rewriter.keep(op.operation())?;
    Ok(rewriter.value(old))
}
