//! Each rule, start => goal: the rule alone makes them equal, and they are equal on random numbers.

use super::meaning::{HEAD_DIM, Matrix, STATE_SIZE, Value, evaluate};
use super::{folding, fusing};
use crate::egraph::leaves::{LeafKind, Leaves};
use crate::egraph::{Nemo, Rule};
use egg::{EGraph, RecExpr, Runner};
use ir::types::{Act, Granularity, PLAIN, Storage, Weight};
use ir::weights::{Rotation, RotationKind};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const TOKENS: usize = 5;
const COLS: usize = 8;
const HEADS: usize = COLS / HEAD_DIM;
const CHANNELS: usize = COLS + 2 * STATE_SIZE;

/// One leaf of the proofs: its letter, its kind, its value.
struct Given {
    name: &'static str,
    kind: LeafKind,
    value: Value,
}

fn random(rng: &mut Pcg64, rows: usize, cols: usize) -> Matrix {
    (0..rows).map(|_| (0..cols).map(|_| rng.random_range(-1.0..1.0)).collect()).collect()
}

fn integers(rng: &mut Pcg64, rows: usize, cols: usize) -> Value {
    let q = (0..rows).map(|_| (0..cols).map(|_| f64::from(rng.random_range(-127..=127))).collect()).collect();
    Value::Quantized { q, scale: random(rng, 1, rows).remove(0) }
}

/// The product of reflections `1 - 2 v v^T / |v|^2`.
fn orthogonal(rng: &mut Pcg64, size: usize) -> Matrix {
    let mut matrix: Matrix = (0..size).map(|i| (0..size).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..size {
        let v = random(rng, 1, size).remove(0);
        let squared: f64 = v.iter().map(|v| v * v).sum();
        for row in &mut matrix {
            let along: f64 = row.iter().zip(&v).map(|(m, v)| m * v).sum();
            row.iter_mut().zip(&v).for_each(|(m, v)| *m -= 2.0 * along * v / squared);
        }
    }
    matrix
}

fn act(cols: usize, basis: &str) -> LeafKind {
    LeafKind::Value { act: Act::f32(cols).in_basis(basis), read_later: false }
}

fn weight(storage: Storage, granularity: Granularity) -> LeafKind {
    let (basis_in, basis_out) = (PLAIN.to_owned(), PLAIN.to_owned());
    LeafKind::Weight(Weight { rows: COLS, cols: COLS, storage, granularity, basis_in, basis_out })
}

fn rotation(name: &str, size: usize) -> LeafKind {
    LeafKind::Rotation(Rotation { name: name.to_owned(), kind: RotationKind::Hadamard, size, seed: 0 })
}

/// The leaves that proofs name: activations x, y, z, quantized q, rotated i and j (basis r); b (xbc) and t (dt); weights
/// w and p (8 bits); vector v; attributes n and g; conv c; scan s; rotations r (whole rows) and h (blocks of 4).
fn given(seed: u64) -> Vec<Given> {
    let mut rng = Pcg64::seed_from_u64(seed);
    let rng = &mut rng;
    let quantized = Act::f32(COLS).stored_as(Storage::I8, Granularity::Token);
    let floats = |rng: &mut Pcg64, rows, cols| Value::Float(random(rng, rows, cols));
    let scan = Value::Scan {
        a: random(rng, 1, HEADS).remove(0).iter().map(|a| -a.exp()).collect(),
        d: random(rng, 1, HEADS).remove(0),
        dt_bias: random(rng, 1, HEADS).remove(0),
    };
    let leaf = |name, kind, value| Given { name, kind, value };
    vec![
        leaf("$x", act(COLS, PLAIN), floats(rng, TOKENS, COLS)),
        leaf("$y", act(COLS, PLAIN), floats(rng, TOKENS, COLS)),
        leaf("$z", act(COLS, PLAIN), floats(rng, TOKENS, COLS)),
        leaf("$q", LeafKind::Value { act: quantized, read_later: false }, integers(rng, TOKENS, COLS)),
        leaf("$i", act(COLS, "r"), floats(rng, TOKENS, COLS)),
        leaf("$j", act(COLS, "r"), floats(rng, TOKENS, COLS)),
        leaf("$b", act(CHANNELS, PLAIN), floats(rng, TOKENS, CHANNELS)),
        leaf("$t", act(HEADS, PLAIN), floats(rng, TOKENS, HEADS)),
        leaf("$w", weight(Storage::F32, Granularity::None), floats(rng, COLS, COLS)),
        leaf("$p", weight(Storage::I8, Granularity::Channel), integers(rng, COLS, COLS)),
        leaf("$v", LeafKind::Vector { len: COLS }, floats(rng, 1, COLS)),
        leaf("$n", LeafKind::Norm { eps: 1e-3 }, Value::Eps(1e-3)),
        leaf("$g", LeafKind::Gate { eps: 1e-3, group_size: COLS as i64 }, Value::Eps(1e-3)),
        leaf("$c", LeafKind::Conv { channels: CHANNELS, kernel: 4 }, Value::Conv(random(rng, CHANNELS, 4))),
        leaf(
            "$s",
            LeafKind::Scan { heads: HEADS, head_dim: HEAD_DIM, state_size: STATE_SIZE, storage: Storage::F32 },
            scan,
        ),
        leaf("$r", rotation("r", COLS), Value::Rotation(orthogonal(rng, COLS))),
        leaf("$h", rotation("h", 4), Value::Rotation(orthogonal(rng, 4))),
    ]
}

/// `(relu2 $x)` with each letter replaced by the number of its leaf.
fn parse(text: &str, given: &[Given]) -> RecExpr<Nemo> {
    let words = text.replace(')', " )");
    let numbered = words.split(' ').map(|word| match given.iter().position(|leaf| leaf.name == word) {
        Some(index) => format!("${index}"),
        None => word.to_owned(),
    });
    numbered.collect::<Vec<_>>().join(" ").parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Name, start, goal.
const PROOFS: &[(&str, &str, &str)] = &[
    ("drop-convert", "(convert $x)", "$x"),
    ("dequantize-in-linear", "(dequantize (linear $p i32 $q))", "(linear $p f32 $q)"),
    ("relu2-in-linear", "(emit none f32 (relu2 (linear $p f32 $q)))", "(linear-relu2 $p $q)"),
    ("residual-in-linear", "(add $x (linear $p f32 $q))", "(linear-add $p $x $q)"),
    ("left-residual-in-linear", "(add (linear $w f32 $y) $x)", "(linear-add $w $x $y)"),
    ("rotate-is-emit", "(rotate $h $x)", "(emit $h f32 (copy $x))"),
    ("rotate-in-kernel", "(emit $h f32 (copy (emit none f32 (relu2 $x))))", "(emit $h f32 (relu2 $x))"),
    ("quantize-in-kernel", "(emit none i8 (copy (emit $h f32 (norm $n $v $x))))", "(emit $h i8 (norm $n $v $x))"),
    (
        "add-in-norm",
        "(add (add $x $y) (emit none f32 (norm $n $v (add $x $y))))",
        "(add (sum (norm-add $n $v $x $y)) (emit none f32 (norm-add $n $v $x $y)))",
    ),
    ("select-before-norm", "(select (emit $h f32 (norm $n $v $x)))", "(emit $h f32 (norm $n $v (select $x)))"),
    (
        "fuse-mixer",
        "(emit none f32 (gate $g $v (scan $s (conv $c $b) $t) $z))",
        "(emit none f32 (mixer $c $s $g $v $z $b $t))",
    ),
    ("rotate-weight-input", "(linear $w f32 (unrotate $r $i))", "(linear (rotate-in $r $w) f32 $i)"),
    ("rotate-weight-output", "(rotate $h (linear $w f32 $x))", "(linear (rotate-out $h $w) f32 $x)"),
    ("rotate-embedding", "(rotate $r (embed $w))", "(embed (rotate-in $r $w))"),
    ("cancel-rotation", "(rotate $r (unrotate $r $i))", "$i"),
    ("rotate-before-add", "(rotate $h (add $x $y))", "(add (rotate $h $x) (rotate $h $y))"),
    ("unrotate-after-add", "(add (unrotate $r $i) (unrotate $r $j))", "(unrotate $r (add $i $j))"),
    (
        "rotate-before-norm",
        "(rotate $h (emit none f32 (norm $n none $x)))",
        "(emit none f32 (norm $n none (rotate $h $x)))",
    ),
    (
        "unrotate-after-norm",
        "(emit none f32 (norm $n none (unrotate $r $i)))",
        "(unrotate $r (emit none f32 (norm $n none $i)))",
    ),
    ("rotate-before-select", "(rotate $h (select $x))", "(select (rotate $h $x))"),
    ("unrotate-after-select", "(select (unrotate $r $i))", "(unrotate $r (select $i))"),
];

fn rules() -> Vec<Rule> {
    [fusing(), folding()].concat()
}

#[test]
fn proves_every_rule_once() {
    let mut names: Vec<_> = rules().iter().map(|rule| rule.name.to_string()).collect();
    let mut proved: Vec<_> = PROOFS.iter().map(|(name, _, _)| (*name).to_owned()).collect();
    names.sort();
    proved.sort();
    assert_eq!(names, proved);
}

#[test]
fn every_rule_alone_leads_from_start_to_goal() {
    let given = given(0);
    for (name, start, goal) in PROOFS {
        let rule = rules().into_iter().find(|rule| rule.name.as_str() == *name).unwrap();
        let leaves = Leaves(given.iter().map(|leaf| leaf.kind.clone()).collect());
        let runner: Runner<Nemo, Leaves> = Runner::new(leaves.clone())
            .with_egraph(EGraph::new(leaves))
            .with_expr(&parse(start, &given))
            .with_iter_limit(3)
            .run([&rule]);
        let found = runner.egraph.lookup_expr(&parse(goal, &given));
        let root = runner.egraph.find(runner.roots[0]);
        assert_eq!(found.map(|id| runner.egraph.find(id)), Some(root), "{name}: {start} => {goal}");
    }
}

#[test]
fn every_rule_keeps_the_numbers() {
    for seed in 0..8 {
        let given = given(seed);
        let values: Vec<Value> = given.iter().map(|leaf| leaf.value.clone()).collect();
        for (name, start, goal) in PROOFS {
            let before = evaluate(&parse(start, &given), &values);
            let after = evaluate(&parse(goal, &given), &values);
            assert!(equal(&before, &after), "{name}, seed {seed}:\n{before:?}\n{after:?}");
        }
    }
}

/// Whether two results agree but for rounding in f64. Quantized values must agree exactly.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => {
            let close = |a: &f64, b: &f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
            let rows = |a: &Vec<f64>, b: &Vec<f64>| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b));
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| rows(a, b))
        }
        _ => a == b,
    }
}

#[test]
fn a_wrong_rule_would_be_noticed() {
    let given = given(1);
    let values: Vec<Value> = given.iter().map(|leaf| leaf.value.clone()).collect();
    let wrong = [
        ("(linear $w f32 (unrotate $r $i))", "(linear (rotate-out $r $w) f32 $i)"),
        ("(emit none f32 (norm $n $v (unrotate $r $i)))", "(unrotate $r (emit none f32 (norm $n $v $i)))"),
        ("(emit none f32 (relu2 (add $x $y)))", "(add (emit none f32 (relu2 $x)) (emit none f32 (relu2 $y)))"),
    ];
    for (start, goal) in wrong {
        let (before, after) = (evaluate(&parse(start, &given), &values), evaluate(&parse(goal, &given), &values));
        assert!(!equal(&before, &after), "{start} => {goal}");
    }
}
