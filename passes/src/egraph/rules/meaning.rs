//! What terms compute, on small matrices: the definition that rules are proved against.
//!
//! Arithmetic is f64, so that only wrong rules differ, not roundings. Fused terms are written out by themselves, not as
//! the terms they replace.

use crate::egraph::Nemo;
use crate::egraph::language::Format;
use egg::{Id, RecExpr};
use ir::types::Storage;

/// Rows by columns.
pub type Matrix = Vec<Vec<f64>>;

/// What a term stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `none`.
    Absent,
    /// A format.
    Format(Storage),
    /// A float activation, weight, or (one row) vector.
    Float(Matrix),
    /// Integers with a scale a row: a quantized activation or weight.
    Quantized { q: Matrix, scale: Vec<f64> },
    /// Integer sums with the scales of rows and columns.
    Sums { sums: Matrix, rows: Vec<f64>, columns: Vec<f64> },
    /// What a kernel computes, and the sum it writes back.
    Kernel { y: Matrix, sum: Option<Matrix> },
    /// An orthogonal matrix.
    Rotation(Matrix),
    /// Convolution taps `[channels][kernel]`; before the first token come zeros.
    Conv(Matrix),
    /// `A`, `D` and the bias of dt for each head; head_dim and state_size are [`HEAD_DIM`] and [`STATE_SIZE`].
    Scan { a: Vec<f64>, d: Vec<f64>, dt_bias: Vec<f64> },
    /// Added under the root of a norm.
    Eps(f64),
}

/// Channels of a head of the scan in proofs.
pub const HEAD_DIM: usize = 2;
/// Width of its state.
pub const STATE_SIZE: usize = 3;

impl Value {
    fn float(&self) -> &Matrix {
        match self {
            Value::Float(rows) => rows,
            other => panic!("{other:?} is no float"),
        }
    }

    /// The values of a weight or an activation, dequantized.
    fn real(&self) -> Matrix {
        match self {
            Value::Quantized { q, scale } => {
                q.iter().zip(scale).map(|(row, scale)| row.iter().map(|q| q * scale).collect()).collect()
            }
            other => other.float().clone(),
        }
    }

    fn kernel(&self) -> &Matrix {
        match self {
            Value::Kernel { y, .. } => y,
            other => panic!("{other:?} is no kernel"),
        }
    }

    fn rotation(&self) -> &Matrix {
        match self {
            Value::Rotation(matrix) => matrix,
            other => panic!("{other:?} is no rotation"),
        }
    }

    fn eps(&self) -> f64 {
        match self {
            Value::Eps(eps) => *eps,
            other => panic!("{other:?} is no eps"),
        }
    }
}

/// The value of the last term of `expr`.
pub fn evaluate(expr: &RecExpr<Nemo>, leaves: &[Value]) -> Value {
    let mut values: Vec<Value> = Vec::new();
    for node in expr.as_ref() {
        values.push(term(node, &values, leaves));
    }
    values.pop().expect("an expression has terms")
}

fn term(node: &Nemo, values: &[Value], leaves: &[Value]) -> Value {
    let at = |id: &Id| &values[usize::from(*id)];
    let float = |id: &Id| at(id).float();
    let kernel = |y: Matrix| Value::Kernel { y, sum: None };
    match node {
        Nemo::Absent => Value::Absent,
        Nemo::Format(Format(storage)) => Value::Format(*storage),
        Nemo::Leaf(leaf) => leaves[leaf.0].clone(),
        Nemo::RotateIn([r, w]) => Value::Float(rotate(float(w), at(r).rotation())),
        Nemo::RotateOut([r, w]) => Value::Float(transpose(&rotate(&transpose(float(w)), at(r).rotation()))),
        Nemo::Embed([w]) => Value::Float(float(w).iter().rev().cloned().collect()),
        Nemo::Linear([w, format, x]) => linear(at(w), at(format), at(x)),
        Nemo::LinearRelu2([w, x]) => {
            let relu2 = |y: f64| if y > 0.0 { y * y } else { 0.0 };
            Value::Float(map(&multiply(&at(x).real(), &at(w).real()), relu2))
        }
        Nemo::LinearAdd([w, r, x]) => Value::Float(sum(float(r), &multiply(&at(x).real(), &at(w).real()))),
        Nemo::Add([a, b]) => Value::Float(sum(float(a), float(b))),
        Nemo::Select([x]) => Value::Float(float(x)[1..].to_vec()),
        Nemo::Convert([x]) => at(x).clone(),
        Nemo::Dequantize([x]) => dequantize(at(x)),
        Nemo::Rotate([r, x]) => Value::Float(rotate(float(x), at(r).rotation())),
        Nemo::Unrotate([r, x]) => Value::Float(rotate(float(x), &transpose(at(r).rotation()))),
        Nemo::Conv([c, x]) => Value::Float(conv(at(c), float(x))),
        Nemo::Scan([s, xbc, dt]) => Value::Float(scan(at(s), float(xbc), float(dt))),
        Nemo::Emit([r, format, k]) => emit(at(r), at(format), at(k).kernel()),
        Nemo::Copy([x]) => kernel(float(x).clone()),
        Nemo::Relu2([x]) => kernel(map(float(x), |x| x.max(0.0).powi(2))),
        Nemo::Norm([a, w, x]) => kernel(float(x).iter().map(|x| norm(x, at(a).eps(), at(w))).collect()),
        Nemo::NormAdd([a, w, x, delta]) => {
            let sum = sum(float(x), float(delta));
            let y = sum.iter().map(|x| norm(x, at(a).eps(), at(w))).collect();
            Value::Kernel { y, sum: Some(sum) }
        }
        Nemo::Sum([k]) => match at(k) {
            Value::Kernel { sum: Some(sum), .. } => Value::Float(sum.clone()),
            other => panic!("{other:?} writes no sum"),
        },
        Nemo::Gate([a, w, x, z]) => {
            let rows = float(x).iter().zip(float(z));
            kernel(rows.map(|(x, z)| norm(&gated(x, z), at(a).eps(), at(w))).collect())
        }
        Nemo::Mixer([c, s, a, w, z, xbc, dt]) => {
            kernel(mixer([at(c), at(s), at(a), at(w)], float(z), float(xbc), float(dt)))
        }
        Nemo::Attention(_) => panic!("no rule looks into attention"),
    }
}

fn map(x: &Matrix, f: impl Fn(f64) -> f64) -> Matrix {
    x.iter().map(|row| row.iter().map(|x| f(*x)).collect()).collect()
}

fn sum(a: &Matrix, b: &Matrix) -> Matrix {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

fn transpose(x: &Matrix) -> Matrix {
    (0..x[0].len()).map(|column| x.iter().map(|row| row[column]).collect()).collect()
}

/// `x w^T`
fn multiply(x: &Matrix, w: &Matrix) -> Matrix {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    x.iter().map(|x| w.iter().map(|w| dot(x, w)).collect()).collect()
}

/// Blocks of columns times `r`.
fn rotate(x: &Matrix, r: &Matrix) -> Matrix {
    let columns = transpose(r);
    x.iter()
        .map(|row| row.chunks(r.len()).flat_map(|block| multiply(&vec![block.to_vec()], &columns)[0].clone()).collect())
        .collect()
}

fn linear(w: &Value, format: &Value, x: &Value) -> Value {
    match (format, w, x) {
        (
            Value::Format(Storage::I32),
            Value::Quantized { q: w, scale: columns },
            Value::Quantized { q: x, scale: rows },
        ) => Value::Sums { sums: multiply(x, w), rows: rows.clone(), columns: columns.clone() },
        _ => Value::Float(multiply(&x.real(), &w.real())),
    }
}

fn dequantize(x: &Value) -> Value {
    let Value::Sums { sums, rows, columns } = x else { panic!("{x:?} are no sums") };
    let row =
        |(sums, row): (&Vec<f64>, &f64)| sums.iter().zip(columns).map(|(sum, column)| sum * (row * column)).collect();
    Value::Float(sums.iter().zip(rows).map(row).collect())
}

fn emit(rotation: &Value, format: &Value, y: &Matrix) -> Value {
    let y = if *rotation == Value::Absent { y.clone() } else { rotate(y, rotation.rotation()) };
    let largest = |row: &Vec<f64>| row.iter().fold(0.0f64, |max, y| max.max(y.abs()));
    let steps = match format {
        Value::Format(Storage::F32) => return Value::Float(y),
        Value::Format(Storage::U8) => 255.0,
        _ => 127.0,
    };
    let scale: Vec<f64> = y.iter().map(|row| largest(row) / steps).collect();
    let round = |(row, scale): (&Vec<f64>, &f64)| row.iter().map(|y| (y / scale).round_ties_even()).collect();
    Value::Quantized { q: y.iter().zip(&scale).map(round).collect(), scale }
}

fn norm(x: &[f64], eps: f64, weight: &Value) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let weighted = |(index, x): (usize, &f64)| {
        let weight = if *weight == Value::Absent { 1.0 } else { weight.float()[0][index] };
        x / (mean + eps).sqrt() * weight
    };
    x.iter().enumerate().map(weighted).collect()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn gated(x: &[f64], z: &[f64]) -> Vec<f64> {
    x.iter().zip(z).map(|(x, z)| x * silu(*z)).collect()
}

fn taps(conv: &Value) -> &Matrix {
    match conv {
        Value::Conv(taps) => taps,
        other => panic!("{other:?} is no convolution"),
    }
}

fn conv(conv: &Value, x: &Matrix) -> Matrix {
    let taps = taps(conv);
    let value = |t: usize, c: usize| {
        let inputs =
            taps[c].iter().rev().enumerate().filter_map(|(back, tap)| Some(x.get(t.checked_sub(back)?)?[c] * tap));
        silu(inputs.sum())
    };
    (0..x.len()).map(|t| (0..taps.len()).map(|c| value(t, c)).collect()).collect()
}

fn scan(parameters: &Value, xbc: &Matrix, dt: &Matrix) -> Matrix {
    let Value::Scan { a, d, dt_bias } = parameters else { panic!("{parameters:?} is no scan") };
    let heads = a.len();
    let mut state = vec![vec![vec![0.0; STATE_SIZE]; HEAD_DIM]; heads];
    let mut out = Vec::new();
    for (row, dt) in xbc.iter().zip(dt) {
        let (x, bc) = row.split_at(heads * HEAD_DIM);
        let (b, c) = bc.split_at(STATE_SIZE);
        let mut y = Vec::new();
        for head in 0..heads {
            let step = (dt[head] + dt_bias[head]).exp().ln_1p();
            for p in 0..HEAD_DIM {
                let input = x[head * HEAD_DIM + p];
                let cells = &mut state[head][p];
                for (n, cell) in cells.iter_mut().enumerate() {
                    *cell = *cell * (step * a[head]).exp() + step * input * b[n];
                }
                y.push(cells.iter().zip(c).map(|(cell, c)| cell * c).sum::<f64>() + d[head] * input);
            }
        }
        out.push(y);
    }
    out
}

/// One token after the other, with the window of the convolution and the state of the scan at hand.
fn mixer([c, s, a, w]: [&Value; 4], z: &Matrix, xbc: &Matrix, dt: &Matrix) -> Matrix {
    let taps = taps(c);
    let Value::Scan { a: rates, d, dt_bias } = s else { panic!("{s:?} is no scan") };
    let heads = rates.len();
    let mut window = vec![vec![0.0; taps[0].len()]; taps.len()];
    let mut state = vec![[0.0; STATE_SIZE]; heads * HEAD_DIM];
    let mut out = Vec::new();
    for t in 0..xbc.len() {
        let mut mixed = Vec::new();
        for (channel, inputs) in window.iter_mut().enumerate() {
            inputs.rotate_left(1);
            *inputs.last_mut().expect("a convolution has taps") = xbc[t][channel];
            mixed.push(silu(inputs.iter().zip(&taps[channel]).map(|(x, tap)| x * tap).sum()));
        }
        let (b, c) = (heads * HEAD_DIM, heads * HEAD_DIM + STATE_SIZE);
        let mut y = vec![0.0; heads * HEAD_DIM];
        for (channel, cells) in state.iter_mut().enumerate() {
            let head = channel / HEAD_DIM;
            let step = (dt[t][head] + dt_bias[head]).exp().ln_1p();
            y[channel] = d[head] * mixed[channel];
            for n in 0..STATE_SIZE {
                cells[n] = cells[n] * (step * rates[head]).exp() + step * mixed[channel] * mixed[b + n];
                y[channel] += cells[n] * mixed[c + n];
            }
            y[channel] *= z[t][channel] / (1.0 + (-z[t][channel]).exp());
        }
        out.push(norm(&y, a.eps(), w));
    }
    out
}
