//! What legal IR is.
//!
//! MLIR checks names, numbers of operands, required attributes, type classes, dominance and the function's signature
//! against the IRDL definition ([`crate::irdl`]); a module that fails there is not looked at further. Then come the
//! rules below. Every violation is collected, with its op; an op that breaks rules 1 to 5 is not checked against the
//! others.
//!
//! **Structure** (`structure`)
//! 1. A module holds one function, `@forward`, with one block, from one `!nemo.tokens` to one value: a float activation
//!    in the plain basis or, in a planned module, an f32 buffer with output rows.
//! 2. The block holds nemo ops and ends with `return`. Ops have no regions and no successors.
//! 3. The module's attributes are named `nemo.*` and are strings; `nemo.stage`, if present, names a stage.
//! 4. An op's attributes are those of its row in the op table, each of its kind. Attributes named `nemo.*` are notes: any
//!    op may carry them, they mean nothing.
//!
//! **Types** (`value_types`)
//! 5. Sizes are positive and below 2^31; words are of `[A-Za-z0-9_.-]`. Activations are stored as `f32`, as `i8` or `ui8`
//!    with a scale per `token`, or as `i32` accumulators with `token_channel`. Weights are floats, `i8` per `channel`, or
//!    `i4` in `group_N` or `two_level_N`, N a multiple of 32. Vectors are floats, and so are states, of kind `conv`, `ssm`
//!    or `kv`. Buffers are `f32`, `i8`, `ui8` or `i32`, their rows `token` or `output`.
//!
//! **Weights** (`weights`)
//! 6. A `weight` is a float tensor in the plain basis; its name is not empty.
//! 7. `slice_rows` stays inside its base and changes nothing but the number of rows.
//! 8. `scale_columns` and `scale_rows` take one factor per column (row) of a float weight whose side is in the plain
//!    basis, and keep shape and bases; the result may be wider floats, for products of bf16 do not fit bf16.
//! 9. `rotate_weight` takes a float weight from the plain basis to `basis`, or with `transpose` back, on one side; blocks
//!    of `size` divide that side. The floats of its result, too, are of any width.
//! 10. `quantize_weight` changes nothing but storage and granularity, to an integer one; `rounding` is `rtn` or `gptq`.
//!
//! **Shapes, bases and formats of activations** (`linear`, `elementwise`, `mixers`, `emit`)
//! 11. `linear` multiplies x by a weight of as many columns, in the basis x lives in; the result has the weight's rows and
//!     output basis. Floats multiply floats and give `f32`; 8-bit x multiplies integer weights of at most 65536 columns
//!     and gives `i32` or `f32`, but `group_N` weights give `f32` only, for their scales act inside the sum.
//! 12. `epilogue` is `relu2`, on a plain `f32` result, and not together with `residual`, which has the type of the
//!     `f32` result.
//! 13. `embed` gives `f32` rows of its table, in the basis of the table's columns.
//! 14. `add` takes and gives one `f32` type: equal sizes, equal bases. `relu2` is f32, in the plain basis.
//!     `select_outputs` keeps the type.
//! 15. `rotate` takes f32 from the plain basis to `basis`, or with `transpose` back; blocks of `size` divide the columns.
//! 16. `quantize` takes f32 to 8 bits, `dequantize` integers to f32; both keep columns and basis. `convert` keeps its f32
//!     type; `from` and `to` are two different precisions.
//! 17. `rms_norm` takes f32; with `weight` only in the plain basis, for a rotated norm has no per-column weight. `delta`
//!     and `sum` come together and have the type of x.
//! 18. `gated_rms_norm`, `conv1d`, `ssm_scan` and `mixer` take f32 in the plain basis; columns, heads, groups and
//!     parameters agree as [`crate::ops`] says; groups divide what they divide.
//! 19. `attention` takes f32; q and k share a basis, whose blocks divide `head_dim`, as do those of the basis of v, in which
//!     the result leaves; `kv_heads` divides `heads`.
//! 20. The result of a fused launch (`rms_norm`, `gated_rms_norm`, `mixer`, `attention`, `map`) is f32 or 8 bits. With
//!     `hadamard_block`, a power of two that divides the columns, it goes from the plain to another basis; without, it
//!     stays in its basis.
//! 21. Numbers are finite; `eps`, `scale` and counts are positive; `dt_max` is above `dt_min`.
//!
//! **The graph** (`graph`, `states`)
//! 22. A basis name means one rotation: kind, size and seed agree wherever it is named. `plain` names none.
//! 23. Names of linears and embeddings are unique: weights are stored under them.
//! 24. `ui8` holds what cannot be negative: the result of relu2, not rotated since.
//! 25. Values with one row per token do not mix with values after `select_outputs`; ops with a state take token rows.
//! 26. A state is read once, by one op that has it as operand, and updated at most once, by that op's result and under
//!     the same name. It is of the op's kind and size.
//!
//! **Stages** (`stages`)
//! 27. Imported and annotated modules have no integer activations, no quantized weights and no `convert`.
//! 28. From annotated on, every `linear` and `embed` says its `precision`: `float`, `w8a8`, `w4a8` or `w4a8-group`; in a
//!     quantized module, the weight's format is the one that the precision names.
//! 29. A planned module has weight ops, `read_state`, `allocate` and `launch` only; no other module has `allocate`
//!     or `launch`. A launch has one unique role per operand, parameters that are a JSON object, and costs that
//!     are not negative.
//!
//! **Smoothing** (`weights`)
//! 30. `column_absmax` gives an f32 number per column of a float weight in the plain basis; `other` has as many.
//! 31. `smooth_factors` takes as many numbers for columns as for activations; `alpha` is from 0 to 1, `power` positive; runs
//!     of `share` times `block` divide the channels; the result is f32 and has a factor per channel or, shorter by
//!     `share`, one per channel of a block.

mod checker;
mod elementwise;
mod emit;
mod graph;
mod linear;
mod mixers;
mod plan;
mod stages;
mod states;
mod structure;
mod value_types;
mod weights;

use crate::border::with_diagnostics;
use crate::error::IrError;
use crate::ops::Op;
use crate::stage::Stage;
use checker::Checker;
use graph::Bases;
use melior::{Context, ir::Module, ir::operation::OperationLike};

/// What assign-precision can decide for a linear or an embedding.
pub const PRECISIONS: [&str; 4] = ["float", "w8a8", "w4a8", "w4a8-group"];

/// Checks a module against every rule above.
///
/// # Errors
/// [`IrError::Invalid`] with every broken rule.
pub fn verify(context: &Context, module: &Module<'_>) -> Result<(), IrError> {
    let (ok, diagnostics) = with_diagnostics(context, || module.as_operation().verify());
    if !ok {
        return Err(IrError::Invalid(diagnostics));
    }
    let mut checker = Checker::default();
    let ops = structure::check(&mut checker, module);
    let bases = Bases::collect(&mut checker, &ops);
    for op in &ops {
        check_op(&mut checker, &bases, *op);
    }
    graph::check(&mut checker, &ops);
    states::check(&mut checker, &ops);
    if let Some(stage) = Stage::of(module) {
        stages::check(&mut checker, stage, &ops);
    }
    let violations = checker.finish();
    if violations.is_empty() { Ok(()) } else { Err(IrError::Invalid(violations)) }
}

/// The rules of one op.
fn check_op<'c, 'm>(checker: &mut Checker<'c, 'm>, bases: &Bases, op: Op<'c, 'm>) {
    checker.enter(op.operation());
    match op {
        Op::Weight(op) => weights::tensor(checker, op),
        Op::SliceRows(op) => weights::slice_rows(checker, op),
        Op::ScaleColumns(op) => weights::scale_columns(checker, op),
        Op::ScaleRows(op) => weights::scale_rows(checker, op),
        Op::ColumnAbsmax(op) => weights::column_absmax(checker, op),
        Op::SmoothFactors(op) => weights::smooth_factors(checker, op),
        Op::RotateWeight(op) => weights::rotate(checker, op),
        Op::QuantizeWeight(op) => weights::quantize(checker, op),
        Op::ReadState(_) | Op::UpdateState(_) => {} // rule 26 looks at the whole graph
        Op::Embed(op) => linear::embed(checker, op),
        Op::Linear(op) => linear::linear(checker, op),
        Op::SelectOutputs(op) => elementwise::select_outputs(checker, op),
        Op::Add(op) => elementwise::add(checker, op),
        Op::Relu2(op) => elementwise::relu2(checker, op),
        Op::Rotate(op) => elementwise::rotate(checker, op),
        Op::Quantize(op) => elementwise::quantize(checker, op),
        Op::Dequantize(op) => elementwise::dequantize(checker, op),
        Op::Convert(op) => elementwise::convert(checker, op),
        Op::Map(op) => elementwise::map(checker, op),
        Op::RmsNorm(op) => mixers::rms_norm(checker, op),
        Op::GatedRmsNorm(op) => mixers::gated_rms_norm(checker, op),
        Op::Conv1d(op) => mixers::conv1d(checker, op),
        Op::SsmScan(op) => mixers::ssm_scan(checker, op),
        Op::Mixer(op) => mixers::mixer(checker, op),
        Op::Attention(op) => mixers::attention(checker, bases, op),
        Op::Allocate(_) => {} // its type says all
        Op::Launch(op) => plan::launch(checker, op),
    }
}
