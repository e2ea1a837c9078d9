use super::support::*;
use crate::weights::*;
use ir::weights::{RotationKind, Side};
use runtime::artifact::{Artifact, Verify};
use runtime::tensors::TensorStore;
use std::sync::atomic::{AtomicU64, Ordering};

const F32: StorageFormat = StorageFormat::Float { dtype: FloatType::F32 };
const FORMATS: [StorageFormat; 5] = [
    F32,
    StorageFormat::Float { dtype: FloatType::Bf16 },
    StorageFormat::W8,
    StorageFormat::W4TwoLevel { group_size: 128 },
    StorageFormat::W4Group { group_size: 32 },
];

/// Relative error that a format may leave on the weights of `support::random`.
fn tolerance(format: StorageFormat) -> f64 {
    match format {
        StorageFormat::Float { dtype: FloatType::F32 } => 2e-6,
        StorageFormat::Float { .. } => 4e-3,
        StorageFormat::W8 => 0.02,
        StorageFormat::W4TwoLevel { .. } | StorageFormat::W4Group { .. } => 0.2,
    }
}

fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let error: f64 = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).powi(2)).sum();
    (error / expected.iter().map(|e| e * e).sum::<f64>()).sqrt()
}

fn check(expr: &WeightExpr, checkpoint: &mut Checkpoint) {
    let weights: Vec<StoredWeight> =
        FORMATS.iter().enumerate().map(|(i, &format)| stored(&format!("w{i}"), expr.clone(), format)).collect();
    let (artifact, summary) = compile(checkpoint, &weights, &[]).unwrap();
    let (shape, expected) = evaluate(expr, checkpoint);
    for (weight, summary) in weights.iter().zip(&summary.weights) {
        assert_eq!(summary.shape[..], shape);
        let found = dequantize_stored(&artifact, &weight.name, weight.format, shape[0], shape[1]).unwrap();
        let error = relative_error(&found, &expected);
        assert!(error <= tolerance(weight.format), "{:?}: {error}", weight.format);
        let reported = summary.error.relative();
        assert!((reported - error).abs() <= 1e-5 + 0.01 * error, "reported {reported}, is {error}: {weight:?}");
    }
}

#[test]
fn stores_a_plain_tensor_of_every_float_type() {
    for dtype in [FloatType::F32, FloatType::F16, FloatType::Bf16] {
        let mut checkpoint = Checkpoint::default();
        let w = checkpoint.random("w", &[70, 256], dtype);
        check(&w, &mut checkpoint);
    }
}

#[test]
fn stores_shapes_that_no_block_divides() {
    for shape in [[1, 1], [3, 33], [1003, 20], [5, 1000], [2, 127], [300, 513]] {
        let mut checkpoint = Checkpoint::default();
        let w = checkpoint.random("w", &shape, FloatType::Bf16);
        check(&w, &mut checkpoint);
    }
}

#[test]
fn stores_slices_and_scales_in_every_order() {
    let mut checkpoint = Checkpoint::default();
    let w = checkpoint.random("w", &[50, 96], FloatType::Bf16);
    let (cols, rows, few) = (checkpoint.factors("c", 96), checkpoint.factors("r", 50), checkpoint.factors("f", 20));
    check(&slice(scale_columns(w.clone(), cols.clone(), false), 7, 20), &mut checkpoint);
    check(&scale_rows(slice(w.clone(), 7, 20), few.clone(), true), &mut checkpoint);
    let sliced_after = slice(scale_rows(scale_columns(w, cols, true), rows, false), 30, 20);
    check(&slice(scale_rows(sliced_after, few, false), 3, 11), &mut checkpoint);
}

#[test]
fn stores_rotated_weights() {
    for kind in [RotationKind::Hadamard, RotationKind::RandomHadamard] {
        for size in [1, 8, 64, 320, 96, 15] {
            let mut checkpoint = Checkpoint::default();
            let w = checkpoint.random("w", &[size * 2, size * 3], FloatType::Bf16);
            let r = rotation(kind, size);
            check(&rotate(w.clone(), Side::In, r.clone(), false), &mut checkpoint);
            check(&rotate(w.clone(), Side::Out, r.clone(), false), &mut checkpoint);
            check(&rotate(rotate(w, Side::Out, r.clone(), true), Side::In, r, true), &mut checkpoint);
        }
    }
}

#[test]
fn stores_everything_at_once() {
    let mut checkpoint = Checkpoint::default();
    let w = checkpoint.random("w", &[100, 160], FloatType::F16);
    let (cols, rows, few) = (checkpoint.factors("c", 160), checkpoint.factors("r", 64), checkpoint.factors("f", 10));
    let w = scale_rows(scale_columns(slice(w, 30, 64), cols.clone(), false), rows, false);
    let w = rotate(w, Side::Out, rotation(RotationKind::RandomHadamard, 32), false);
    let w = rotate(w, Side::In, rotation(RotationKind::Hadamard, 160), false);
    let w = scale_rows(slice(scale_columns(w, cols, true), 30, 10), few, true);
    check(&w, &mut checkpoint);
}

#[test]
fn stores_a_weight_rotated_by_a_calibrated_matrix() {
    let mut checkpoint = Checkpoint::default();
    let w = checkpoint.random("w", &[48, 96], FloatType::Bf16);
    let q = random::orthogonal(48, 5);
    checkpoint.add("rotation.r48", &[48, 48], FloatType::F32, &q);
    let r = rotation(RotationKind::Klt, 48);
    check(&rotate(rotate(w.clone(), Side::In, r.clone(), false), Side::Out, r.clone(), false), &mut checkpoint);
    check(&rotate(rotate(w, Side::In, r.clone(), true), Side::Out, r, true), &mut checkpoint);
}

#[test]
fn stores_weights_smoothed_on_both_sides() {
    for (share, block, once) in [(1, 1, false), (2, 8, false), (2, 8, true), (4, 4, true)] {
        let mut checkpoint = Checkpoint::default();
        let reader = checkpoint.random("r", &[40, 64], FloatType::Bf16);
        let other = checkpoint.random("o", &[24, 64], FloatType::F16);
        let absmax = Box::new(checkpoint.factors("r.absmax", 64));
        let first = WeightExpr::ColumnAbsmax { base: Box::new(slice(other, 3, 20)), other: None };
        let columns = WeightExpr::ColumnAbsmax { base: Box::new(reader.clone()), other: Some(Box::new(first)) };
        let factors = |power, once| WeightExpr::SmoothFactors {
            absmax: absmax.clone(),
            columns: Box::new(columns.clone()),
            alpha: 0.4,
            power,
            share,
            block,
            once,
        };
        check(&scale_columns(reader.clone(), factors(1.0, false), false), &mut checkpoint);
        let writer = checkpoint.random("w", &[if once { 64 / share } else { 64 }, 32], FloatType::Bf16);
        check(&scale_rows(writer, factors(0.5, once), true), &mut checkpoint);
    }
}

#[test]
fn stores_a_weight_larger_than_a_panel() {
    let mut checkpoint = Checkpoint::default();
    let w = checkpoint.random("w", &[2100, 2048], FloatType::Bf16);
    check(&w, &mut checkpoint);
}

#[test]
fn stores_parameters_as_f32_under_their_own_name() {
    let mut checkpoint = Checkpoint::default();
    let conv = checkpoint.random("conv", &[6, 1, 4], FloatType::Bf16);
    let bias = checkpoint.random("bias", &[8], FloatType::F16);
    let factors = checkpoint.factors("f", 8);
    let expr = rotate(
        scale_rows(scale_columns(bias, factors.clone(), true), factors, false),
        Side::Out,
        rotation(RotationKind::Hadamard, 4),
        false,
    );
    let parameters = [
        StoredParameter { name: "m.conv1d.weight".into(), expr: slice(conv, 1, 5) },
        StoredParameter { name: "m.dt_bias".into(), expr: slice(expr, 2, 5) },
    ];
    let (artifact, _) = compile(&mut checkpoint, &[], &parameters).unwrap();
    for (parameter, shape) in parameters.iter().zip([vec![5, 4], vec![5]]) {
        let view = artifact.tensor(&parameter.name).unwrap();
        assert_eq!((view.dtype, view.shape), (DType::F32, &shape[..]));
        let mut found = vec![0.0; shape.iter().product()];
        to_f32(FloatType::F32, view.bytes, &mut found);
        assert!(relative_error(&found, &evaluate(&parameter.expr, &checkpoint).1) < 1e-6);
    }
}

/// Several weights of several waves' worth of kinds.
fn model(checkpoint: &mut Checkpoint) -> Vec<StoredWeight> {
    let w = checkpoint.random("w", &[700, 640], FloatType::Bf16);
    let r = rotation(RotationKind::RandomHadamard, 320);
    let rotated = rotate(rotate(slice(w.clone(), 0, 640), Side::Out, r.clone(), false), Side::In, r, true);
    let one = |i: usize, format| {
        stored(&format!("w{i}"), if i.is_multiple_of(2) { w.clone() } else { rotated.clone() }, format)
    };
    FORMATS.iter().cycle().take(10).enumerate().map(|(i, &format)| one(i, format)).collect()
}

#[test]
fn gives_the_same_file_with_any_number_of_threads() {
    let mut checkpoint = Checkpoint::default();
    let mut weights = model(&mut checkpoint);
    let head = checkpoint.random("head", &[3, 4], FloatType::F32);
    weights.push(stored("head", head, F32));
    let metadata = metadata();
    let contents = Contents { weights: &weights, parameters: &[], extra: &[], metadata: &metadata };
    let dir = tempfile::tempdir().unwrap();
    let written = [1, 3, 8].map(|threads| {
        let path = dir.path().join(format!("{threads}.nemo"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let summary = pool.install(|| materialize(&contents, &checkpoint, &path, &|_, _| ())).unwrap();
        let errors: Vec<ErrorStats> = summary.weights.iter().map(|weight| weight.error).collect();
        (std::fs::read(&path).unwrap(), errors)
    });
    assert!(written[0] == written[1] && written[0] == written[2]);
}

#[test]
fn predicts_every_tensor_and_the_size_without_a_checkpoint() {
    let mut checkpoint = Checkpoint::default();
    let mut weights = model(&mut checkpoint);
    let head = checkpoint.random("head", &[3, 4], FloatType::F32);
    weights.push(stored("head", head, F32));
    let metadata = metadata();
    let extra = [ExtraTensor::file("tokenizer.json", b"{\"a\": 1}".to_vec())];
    let contents = Contents { weights: &weights, parameters: &[], extra: &extra, metadata: &metadata };
    let planned = layout(&contents).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    let (last, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = |done, of| {
        last.fetch_max(done, Ordering::Relaxed);
        total.store(of, Ordering::Relaxed);
    };
    let summary = materialize(&contents, &checkpoint, &path, &progress).unwrap();
    assert_eq!(planned.file_bytes(), std::fs::metadata(&path).unwrap().len());
    assert_eq!(planned.file_bytes(), summary.file_bytes);
    assert_eq!(last.into_inner(), total.into_inner(), "progress ends at the total");
    let artifact = Artifact::open(&path, Verify::Full).unwrap();
    assert_eq!(artifact.tokenizer(), Some(&b"{\"a\": 1}"[..]));
    for placed in planned.tensors() {
        let view = artifact.tensor(&placed.spec.name).unwrap();
        assert_eq!((view.dtype, view.shape), (placed.spec.dtype, &placed.spec.shape[..]), "{}", placed.spec.name);
    }
    let stored: usize = summary.weights.iter().map(|weight| weight.stored_bytes).sum();
    let weights: u64 = planned.tensors().iter().filter(|p| p.spec.name.contains('w')).map(|p| p.bytes).sum();
    assert_eq!(stored as u64, weights, "weights of the summary");
}

/// Counts what is released.
struct Mapped(Checkpoint, AtomicU64);

impl TensorSource for Mapped {
    fn describe(&self, name: &str) -> Option<(Vec<usize>, FloatType)> {
        self.0.describe(name)
    }

    fn bytes(&self, name: &str) -> Result<&[u8], Box<dyn std::error::Error + Send + Sync>> {
        self.0.bytes(name)
    }

    fn release(&self, _: &str, bytes: Range<usize>) {
        self.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

#[test]
fn releases_what_it_has_read() {
    let mut checkpoint = Checkpoint::default();
    let w = checkpoint.random("w", &[64, 640], FloatType::Bf16);
    let head = checkpoint.random("head", &[3, 4], FloatType::F32);
    let r = rotation(RotationKind::Hadamard, 32);
    let weights = [
        stored("slice", slice(w.clone(), 10, 54), StorageFormat::W8),
        stored("rotated", rotate(w, Side::Out, r, false), StorageFormat::W8),
        stored("head", head, F32),
    ];
    let metadata = metadata();
    let contents = Contents { weights: &weights, parameters: &[], extra: &[], metadata: &metadata };
    let source = Mapped(checkpoint, AtomicU64::new(0));
    let dir = tempfile::tempdir().unwrap();
    materialize(&contents, &source, &dir.path().join("m.nemo"), &|_, _| ()).unwrap();
    assert!(source.1.into_inner() >= (54 + 64) * 640 * 2 + 48);
}
