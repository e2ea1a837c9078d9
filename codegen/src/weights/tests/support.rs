//! A checkpoint in memory, a plan that runs, and a slow evaluator of weight expressions.

use crate::weights::random::SplitMix64;
use crate::weights::shape::flat_shape;
use crate::weights::{Contents, Orthogonal, WeightError, from_f32, materialize, to_f32};
use ir::weights::{
    FloatType, Rotation, RotationKind, Rounding, Side, StorageFormat, StoredParameter, StoredWeight, TensorSource,
    WeightExpr,
};
use runtime::artifact::{Artifact, Metadata, Provenance, Verify};
use runtime::plan::{
    Activation, Buffer, BufferId, Cost, DType, Embedding, Epilogue, Kernel, Launch, ModelInfo, PLAN_VERSION, Plan,
    Rows, Segment, WeightFormat,
};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Checkpoint(pub BTreeMap<String, (Vec<usize>, FloatType, Vec<u8>)>);

impl TensorSource for Checkpoint {
    fn describe(&self, name: &str) -> Option<(Vec<usize>, FloatType)> {
        self.0.get(name).map(|(shape, dtype, _)| (shape.clone(), *dtype))
    }

    fn bytes(&self, name: &str) -> Result<&[u8], Box<dyn std::error::Error + Send + Sync>> {
        self.0.get(name).map(|(_, _, bytes)| &bytes[..]).ok_or_else(|| "no such tensor".into())
    }
}

/// Normal values with a few large columns, as weights have them.
pub fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix64(seed);
    (0..count).map(|i| random.normal() as f32 * if i % 61 == 3 { 0.06 } else { 0.02 }).collect()
}

impl Checkpoint {
    pub fn add(&mut self, name: &str, shape: &[usize], dtype: FloatType, values: &[f32]) -> WeightExpr {
        let mut bytes = vec![0; values.len() * dtype.bytes()];
        from_f32(dtype, values, &mut bytes);
        self.0.insert(name.into(), (shape.to_vec(), dtype, bytes));
        WeightExpr::Tensor { name: name.into(), shape: shape.to_vec(), dtype }
    }

    pub fn random(&mut self, name: &str, shape: &[usize], dtype: FloatType) -> WeightExpr {
        let seed = name.bytes().map(u64::from).sum();
        self.add(name, shape, dtype, &random(shape.iter().product(), seed))
    }

    /// Factors away from zero.
    pub fn factors(&mut self, name: &str, count: usize) -> WeightExpr {
        let values: Vec<f32> = random(count, 99).iter().map(|v| 1.0 + v).collect();
        self.add(name, &[count], FloatType::F32, &values)
    }
}

pub fn rotation(kind: RotationKind, size: usize) -> Rotation {
    Rotation { name: format!("r{size}"), kind, size, seed: 42 }
}

pub fn rotate(base: WeightExpr, side: Side, rotation: Rotation, transpose: bool) -> WeightExpr {
    WeightExpr::Rotate { base: base.into(), side, rotation, transpose }
}

pub fn slice(base: WeightExpr, start: usize, count: usize) -> WeightExpr {
    WeightExpr::SliceRows { base: base.into(), start, count }
}

pub fn scale_rows(base: WeightExpr, by: WeightExpr, inverse: bool) -> WeightExpr {
    WeightExpr::ScaleRows { base: base.into(), by: by.into(), inverse }
}

pub fn scale_columns(base: WeightExpr, by: WeightExpr, inverse: bool) -> WeightExpr {
    WeightExpr::ScaleColumns { base: base.into(), by: by.into(), inverse }
}

pub fn stored(name: &str, expr: WeightExpr, format: StorageFormat) -> StoredWeight {
    StoredWeight { name: name.into(), expr, format, rounding: Rounding::Rtn }
}

/// Shape and values, step by step and in f64, with explicit matrices.
pub fn evaluate(expr: &WeightExpr, source: &Checkpoint) -> (Vec<usize>, Vec<f64>) {
    match expr {
        WeightExpr::Tensor { name, shape, dtype } => {
            let mut values = vec![0.0; shape.iter().product()];
            to_f32(*dtype, &source.0[name].2, &mut values);
            (flat_shape(shape), values.into_iter().map(f64::from).collect())
        }
        WeightExpr::SliceRows { base, start, count } => {
            let (mut shape, values) = evaluate(base, source);
            let row = values.len() / shape[0];
            shape[0] = *count;
            (shape, values[start * row..(start + count) * row].to_vec())
        }
        WeightExpr::ScaleColumns { base, by, inverse } => scaled(base, by, *inverse, source, |i, cols| i % cols),
        WeightExpr::ScaleRows { base, by, inverse } => scaled(base, by, *inverse, source, |i, cols| i / cols),
        WeightExpr::ColumnAbsmax { base, other } => {
            let (shape, values) = evaluate(base, source);
            let other = other.as_ref().map_or(vec![0.0; shape[1]], |other| evaluate(other, source).1);
            let column = |j: usize| values.iter().skip(j).step_by(shape[1]).fold(other[j], |max, v| v.abs().max(max));
            (vec![shape[1]], (0..shape[1]).map(column).collect())
        }
        WeightExpr::SmoothFactors { absmax, columns, alpha, power, share, block, once } => {
            let (activations, weights) = (evaluate(absmax, source).1, evaluate(columns, source).1);
            let channels = activations.len();
            // The largest of the channels that share a factor with channel j.
            let largest = |values: &[f64], j: usize| {
                let first = j / (share * block) * share * block + j % block;
                (0..*share).map(|i| values[first + i * block]).fold(0.0, f64::max)
            };
            let raw = |j: usize| largest(&activations, j).powf(*alpha) / largest(&weights, j).powf(1.0 - alpha);
            let all: Vec<f64> = (0..channels).map(raw).collect();
            let mean = (all.iter().map(|value| value.ln()).sum::<f64>() / channels as f64).exp();
            let kept = (0..channels).filter(|j| !once || j % (share * block) < *block);
            let values: Vec<f64> = kept.map(|j| (all[j] / mean).powf(*power)).collect();
            (vec![values.len()], values)
        }
        WeightExpr::Rotate { base, side, rotation, transpose } => {
            let (shape, values) = evaluate(base, source);
            let matrix = Orthogonal::new(rotation, source).unwrap().to_matrix();
            let n = rotation.size;
            let entry = |i: usize, j: usize| f64::from(if *transpose { matrix[j * n + i] } else { matrix[i * n + j] });
            let cols = if shape.len() == 1 { 1 } else { shape[1] };
            let in_rows = *side == Side::In && shape.len() == 2;
            let out = (0..values.len()).map(|at| {
                let (row, col) = (at / cols, at % cols);
                let along = if in_rows { col } else { row };
                let other = |l: usize| if in_rows { row * cols + l } else { l * cols + col };
                let first = along / n * n;
                (0..n).map(|i| values[other(first + i)] * entry(i, along - first)).sum()
            });
            (shape, out.collect())
        }
    }
}

fn scaled(
    base: &WeightExpr,
    by: &WeightExpr,
    inverse: bool,
    source: &Checkpoint,
    factor: impl Fn(usize, usize) -> usize,
) -> (Vec<usize>, Vec<f64>) {
    let (shape, mut values) = evaluate(base, source);
    let by = evaluate(by, source).1;
    let cols = if shape.len() == 1 { 1 } else { shape[1] };
    for (i, value) in values.iter_mut().enumerate() {
        let factor = by[if shape.len() == 1 { i } else { factor(i, cols) }];
        *value *= if inverse { 1.0 / factor } else { factor };
    }
    (shape, values)
}

/// Embeds, selects, multiplies by the head; needs the weights of [`with_head`].
pub fn metadata() -> Metadata {
    let format = WeightFormat::Float { dtype: DType::F32 };
    let buffer = |cols, rows| Buffer { name: "b".into(), dtype: DType::F32, cols, rows };
    let table = Embedding { weight: "head".into(), format, vocab_size: 3, hidden_size: 4 };
    let head = Segment { weight: "head".into(), format, out_features: 3, epilogue: Epilogue::Store, out: BufferId(2) };
    let kernels = [
        Kernel::Embed { table, out: BufferId(0) },
        Kernel::SelectOutputs { x: BufferId(0), out: BufferId(1) },
        Kernel::Linear { x: Activation::Float { data: BufferId(1) }, in_features: 4, segments: vec![head] },
    ];
    let plan = Plan {
        version: PLAN_VERSION,
        model: ModelInfo {
            name: "test".into(),
            vocab_size: 3,
            hidden_size: 4,
            layer_pattern: String::new(),
            max_position_embeddings: None,
            bos_token_id: None,
            eos_token_ids: vec![],
            parameters: 12,
            phase: "0".into(),
        },
        buffers: vec![buffer(4, Rows::Token), buffer(4, Rows::Output), buffer(3, Rows::Output)],
        states: vec![],
        launches: kernels.map(|kernel| Launch { kernel, origin: "test".into(), cost: Cost::default() }).into(),
        logits: BufferId(2),
    };
    Metadata { plan, recipe: String::new(), provenance: Provenance::default(), extra: BTreeMap::new() }
}

/// Writes these weights and a head for the plan, and opens the artifact.
pub fn compile(
    checkpoint: &mut Checkpoint,
    weights: &[StoredWeight],
    parameters: &[StoredParameter],
) -> Result<(Artifact, crate::weights::Summary), WeightError> {
    let head = checkpoint.random("head", &[3, 4], FloatType::F32);
    let mut weights = weights.to_vec();
    weights.push(stored("head", head, StorageFormat::Float { dtype: FloatType::F32 }));
    let metadata = metadata();
    let contents = Contents { weights: &weights, parameters, extra: &[], metadata: &metadata };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.nemo");
    let result = materialize(&contents, checkpoint, &path, &|_, _| ());
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, usize::from(result.is_ok()), "files in the folder");
    let summary = result?;
    Ok((Artifact::open(&path, Verify::Full).unwrap(), summary))
}
