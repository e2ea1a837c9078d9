//! Building, printing, reading back and rewriting a small graph.

use ir::melior::ir::BlockLike;
use ir::module::{finish, forward, ops, parse, print, start};
use ir::ops::{Builder, Op, build};
use ir::rewrite::{Action, rewrite};
use ir::types::{Act, Granularity, NemoType, PLAIN, Storage, Weight};
use ir::{IrError, irdl};

fn weight(rows: usize, cols: usize) -> NemoType {
    NemoType::Weight(Weight {
        rows,
        cols,
        storage: Storage::Bf16,
        granularity: Granularity::None,
        basis_in: PLAIN.into(),
        basis_out: PLAIN.into(),
    })
}

fn act(cols: usize) -> NemoType {
    NemoType::Act(Act::f32(cols))
}

/// An embedding of width 32, a norm that nothing uses, and an lm_head over 96 tokens.
fn small(context: &ir::melior::Context) -> Result<ir::melior::ir::Module<'_>, IrError> {
    let module = start(context, &act(96));
    let block = forward(&module)?;
    let b = Builder::new(context, block);
    let at = b.location("embeddings");
    let table = b.push(build::Weight { tensor: "embeddings.weight".into(), value: weight(96, 32) }, at)?.value();
    let tokens = block.argument(0).unwrap().into();
    let x = b.push(build::Embed { tokens, table, name: "embeddings".into(), precision: None, y: act(32) }, at)?.y();
    let unused =
        build::RmsNorm { x, delta: None, weight: None, eps: 1e-5, hadamard_block: None, y: act(32), sum: None };
    b.push(unused, b.location("norm_f"))?;
    let at = b.location("lm_head");
    let head = b.push(build::Weight { tensor: "lm_head.weight".into(), value: weight(96, 32) }, at)?.value();
    let linear = build::Linear {
        x,
        weight: head,
        residual: None,
        name: "lm_head".into(),
        precision: None,
        epilogue: None,
        y: act(96),
    };
    let logits = b.push(linear, at)?.y();
    finish(&b, logits);
    Ok(module)
}

#[test]
fn prints_what_it_parses() {
    let context = irdl::context();
    let module = small(&context).unwrap();
    let text = print(&module);
    let again = parse(&context, &text).unwrap();
    assert_eq!(print(&again), text);
    ir::verify::verify(&context, &again).unwrap();
    insta::assert_snapshot!(text);
}

#[test]
fn drops_unused_ops_when_rewriting() {
    let context = irdl::context();
    let module = small(&context).unwrap();
    let copy = rewrite::<IrError>(&context, &module, |_, _| Ok(Action::Keep)).unwrap();
    assert_eq!(ops(&module).unwrap().len(), 5);
    assert_eq!(ops(&copy).unwrap().len(), 4);
    assert!(!ops(&copy).unwrap().iter().any(|op| matches!(op, Op::RmsNorm(_))));
}

#[test]
fn refuses_an_operand_of_the_wrong_class() {
    let context = irdl::context();
    let text = "func.func @forward(%t: !nemo.tokens) -> !nemo.tokens {\n  %0 = \"nemo.relu2\"(%t) : (!nemo.tokens) -> !nemo.act<4 : i64, f32, \"none\", \"plain\">\n  return %t : !nemo.tokens\n}";
    let error = parse(&context, text).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("expected base type"), "{error}");
}

#[test]
fn refuses_an_unknown_storage() {
    let context = irdl::context();
    let text = "func.func @forward(%t: !nemo.act<4 : i64, i13, \"none\", \"plain\">) { return }";
    assert!(parse(&context, text).is_err());
}
