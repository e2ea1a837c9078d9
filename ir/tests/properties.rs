//! What holds for every type and every legal graph.

use ir::IrError;
use ir::melior::{
    Context,
    ir::{BlockLike, Module, Value},
};
use ir::module::{finish, forward, ops, parse, print, start};
use ir::ops::{Builder, build};
use ir::rewrite::{Action, rewrite};
use ir::stage::Stage;
use ir::types::{Act, BufferType, GROUP_ALIGN, Granularity, NemoType, PLAIN, StateType, Storage, Vector, Weight};
use ir::verify::verify;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Runs a property on the same cases every time.
fn run<S: Strategy>(cases: u32, strategy: &S, property: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(strategy, |value| {
            property(value);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..9, 1_usize..1 << 31]
}

fn storage() -> impl Strategy<Value = Storage> {
    use Storage::*;
    prop::sample::select(vec![I4, I8, U8, I32, F16, Bf16, F32])
}

fn granularity() -> impl Strategy<Value = Granularity> {
    prop_oneof![
        Just(Granularity::None),
        Just(Granularity::Token),
        Just(Granularity::TokenChannel),
        Just(Granularity::Channel),
        size().prop_map(Granularity::Group),
        size().prop_map(Granularity::TwoLevel),
    ]
}

fn nemo_type() -> impl Strategy<Value = NemoType> {
    let word = || "[A-Za-z0-9_.-]{1,12}";
    prop_oneof![
        Just(NemoType::Tokens),
        (size(), storage(), granularity(), word()).prop_map(|(cols, storage, granularity, basis)| {
            NemoType::Act(Act { cols, storage, granularity, basis })
        }),
        (size(), size(), storage(), granularity(), word(), word()).prop_map(
            |(rows, cols, storage, granularity, basis_in, basis_out)| {
                NemoType::Weight(Weight { rows, cols, storage, granularity, basis_in, basis_out })
            }
        ),
        (size(), storage()).prop_map(|(len, storage)| NemoType::Vector(Vector { len, storage })),
        (word(), size(), storage()).prop_map(|(kind, elements, storage)| NemoType::State(StateType {
            kind,
            elements,
            storage
        })),
        (size(), storage(), word()).prop_map(|(cols, storage, rows)| NemoType::Buffer(BufferType {
            cols,
            storage,
            rows
        })),
    ]
}

#[test]
fn types_are_read_back_as_printed_by_rust_and_by_mlir() {
    let context = ir::irdl::context();
    run(500, &nemo_type(), |expected| {
        assert_eq!(NemoType::parse(&expected.to_string()), Some(expected.clone()));
        assert_eq!(NemoType::of(expected.to_mlir(&context)), Some(expected));
    });
}

/// What happens next to the activation of a random graph.
#[derive(Clone, Debug)]
enum Step {
    Relu2,
    Norm { with_weight: bool },
    Linear { rows: usize, bits: u64, two_level: bool },
    RotateAndBack { kind: &'static str, size: usize, seed: i64 },
    AddToItself,
    Select,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec!["hadamard", "random-hadamard", "klt"]);
    prop_oneof![
        Just(Step::Relu2),
        any::<bool>().prop_map(|with_weight| Step::Norm { with_weight }),
        (1_usize..5, prop::sample::select(vec![4_u64, 8, 16]), any::<bool>())
            .prop_map(|(rows, bits, two_level)| Step::Linear { rows: rows * 16, bits, two_level }),
        (kind, prop::sample::select(vec![2_usize, 4, 16]), any::<i64>())
            .prop_map(|(kind, size, seed)| Step::RotateAndBack { kind, size, seed }),
        Just(Step::AddToItself),
        Just(Step::Select),
    ]
}

/// A graph under construction; `x` is an f32 activation in the plain basis.
struct Graph<'c, 'b> {
    b: Builder<'c, 'b>,
    x: Value<'c, 'b>,
    cols: usize,
    ops: usize,
    selected: bool,
}

impl<'c: 'b, 'b> Graph<'c, 'b> {
    fn act(&self) -> Act {
        Act::f32(self.cols)
    }

    fn float(&self, rows: usize, name: &str) -> Result<(Value<'c, 'b>, Weight), IrError> {
        let (basis_in, basis_out) = (PLAIN.to_owned(), PLAIN.to_owned());
        let (storage, granularity) = (Storage::Bf16, Granularity::None);
        let weight = Weight { rows, cols: self.cols, storage, granularity, basis_in, basis_out };
        let op = build::Weight { tensor: name.into(), value: NemoType::Weight(weight.clone()) };
        Ok((self.b.push(op, self.b.location(name))?.value(), weight))
    }

    fn apply(&mut self, step: &Step) -> Result<(), IrError> {
        let name = format!("op{}", self.ops);
        self.ops += 1;
        let at = self.b.location(&name);
        let (x, y) = (self.x, NemoType::Act(self.act()));
        self.x = match step {
            Step::Relu2 => self.b.push(build::Relu2 { x, y }, at)?.y(),
            Step::AddToItself => self.b.push(build::Add { a: x, b: x, y }, at)?.y(),
            Step::Select if self.selected => x,
            Step::Select => {
                self.selected = true;
                self.b.push(build::SelectOutputs { x, y }, at)?.y()
            }
            Step::Norm { with_weight } => {
                let value = NemoType::Vector(Vector { len: self.cols, storage: Storage::F16 });
                let vector = build::Weight { tensor: name, value };
                let weight = if *with_weight { Some(self.b.push(vector, at)?.value()) } else { None };
                let norm = build::RmsNorm { x, delta: None, weight, eps: 1e-5, hadamard_block: None, y, sum: None };
                self.b.push(norm, at)?.y()
            }
            Step::RotateAndBack { kind, size, seed } => {
                let rotate = |x, transpose, y| build::Rotate {
                    x,
                    basis: name.clone(),
                    kind: (*kind).into(),
                    size: *size as i64,
                    seed: *seed,
                    transpose,
                    y: NemoType::Act(y),
                };
                let rotated = self.b.push(rotate(x, false, self.act().in_basis(&name)), at)?.y();
                self.b.push(rotate(rotated, true, self.act()), at)?.y()
            }
            Step::Linear { rows, bits, two_level } => self.linear(&name, *rows, *bits, *two_level)?,
        };
        Ok(())
    }

    fn linear(&mut self, name: &str, rows: usize, bits: u64, two_level: bool) -> Result<Value<'c, 'b>, IrError> {
        let at = self.b.location(name);
        let (mut weight, float) = self.float(rows, name)?;
        let mut x = self.x;
        let (storage, granularity, precision) = match bits {
            4 if two_level => (Storage::I4, Granularity::TwoLevel(GROUP_ALIGN), "w4a8"),
            4 => (Storage::I4, Granularity::Group(4 * GROUP_ALIGN), "w4a8-group"),
            8 => (Storage::I8, Granularity::Channel, "w8a8"),
            _ => (Storage::Bf16, Granularity::None, "float"),
        };
        if bits < 16 {
            let value = NemoType::Weight(Weight { storage, granularity, ..float });
            weight = self.b.push(build::QuantizeWeight { base: weight, rounding: "rtn".into(), value }, at)?.value();
            let y = NemoType::Act(self.act().stored_as(Storage::I8, Granularity::Token));
            x = self.b.push(build::Quantize { x, y }, at)?.y();
        }
        self.cols = rows;
        let linear = build::Linear {
            x,
            weight,
            residual: None,
            name: name.into(),
            precision: Some(precision.into()),
            epilogue: None,
            y: NemoType::Act(self.act()),
        };
        Ok(self.b.push(linear, at)?.y())
    }
}

/// The graph of some steps, and how many ops it has.
fn build<'c>(context: &'c Context, steps: &[Step]) -> Result<(Module<'c>, usize), IrError> {
    let cols =
        steps.iter().rev().find_map(|step| if let Step::Linear { rows, .. } = step { Some(*rows) } else { None });
    let mut module = start(context, &NemoType::Act(Act::f32(cols.unwrap_or(32))));
    let block = forward(&module)?;
    let b = Builder::new(context, block);
    let tokens: Value<'c, '_> = block.argument(0).unwrap().into();
    let mut graph = Graph { b, x: tokens, cols: 32, ops: 0, selected: false };
    let (table, _) = graph.float(64, "table")?;
    let (name, precision) = ("embeddings".into(), Some("float".into()));
    let embed = build::Embed { tokens, table, name, precision, y: NemoType::Act(Act::f32(32)) };
    graph.x = b.push(embed, b.location("embeddings"))?.y();
    for step in steps {
        graph.apply(step)?;
    }
    finish(&b, graph.x);
    let count = ops(&module)?.len();
    Stage::Quantized.set(context, &mut module);
    Ok((module, count))
}

#[test]
fn legal_graphs_verify_and_are_read_back_as_printed() {
    let context = ir::irdl::context();
    run(200, &prop::collection::vec(step(), 0..12), |steps| {
        let (module, _) = build(&context, &steps).unwrap();
        let text = print(&module);
        verify(&context, &module).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let again = parse(&context, &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        verify(&context, &again).unwrap();
        assert_eq!(print(&again), text);
        assert_eq!(Stage::of(&again), Some(Stage::Quantized));
    });
}

#[test]
fn a_rewrite_that_keeps_every_op_changes_nothing() {
    let context = ir::irdl::context();
    run(100, &prop::collection::vec(step(), 0..12), |steps| {
        let (module, count) = build(&context, &steps).unwrap();
        let copy = rewrite::<IrError>(&context, &module, |_, _| Ok(Action::Keep)).unwrap();
        assert_eq!(print(&copy), print(&module));
        assert_eq!(ops(&copy).unwrap().len(), count);
    });
}
