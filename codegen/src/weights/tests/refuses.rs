use super::support::*;
use crate::weights::*;
use ir::weights::{RotationKind, Side};

const W8: StorageFormat = StorageFormat::W8;

/// The message for a weight that cannot be stored; `compile` checks that no file is left.
fn message(checkpoint: &mut Checkpoint, weight: StoredWeight) -> String {
    compile(checkpoint, &[weight], &[]).unwrap_err().to_string()
}

#[test]
fn names_the_missing_tensor() {
    let mut checkpoint = Checkpoint::default();
    let w = Checkpoint::default().random("gone", &[4, 4], FloatType::Bf16);
    let text = message(&mut checkpoint, stored("w", w, W8));
    assert!(text.starts_with("tensor `gone` is missing, `w` is made of it\nhelp: "), "{text}");
}

#[test]
fn says_which_shape_or_type_it_expected() {
    let mut checkpoint = Checkpoint::default();
    checkpoint.random("w", &[4, 8], FloatType::Bf16);
    let other_shape = Checkpoint::default().random("w", &[8, 4], FloatType::Bf16);
    let text = message(&mut checkpoint, stored("w", other_shape, W8));
    assert!(text.starts_with("tensor `w` is Bf16 [4, 8], expected Bf16 [8, 4]\nhelp: "), "{text}");
    let other_type = Checkpoint::default().random("w", &[4, 8], FloatType::F32);
    let text = message(&mut checkpoint, stored("w", other_type, W8));
    assert!(text.starts_with("tensor `w` is Bf16 [4, 8], expected F32 [4, 8]"), "{text}");
}

#[test]
fn notices_bytes_that_do_not_fit_the_description() {
    let mut checkpoint = Checkpoint::default();
    let w = checkpoint.random("w", &[4, 8], FloatType::Bf16);
    checkpoint.0.get_mut("w").unwrap().2.pop();
    let text = message(&mut checkpoint, stored("w", w, W8));
    assert!(text.contains("in 63 bytes"), "{text}");
}

#[test]
fn names_the_row_that_is_not_finite() {
    let mut checkpoint = Checkpoint::default();
    let mut values = random(300 * 1000, 1);
    values[270 * 1000 + 5] = f32::NAN;
    let w = checkpoint.add("w", &[300, 1000], FloatType::Bf16, &values);
    let text = message(&mut checkpoint, stored("w", w.clone(), W8));
    assert!(text.starts_with("row 270 of `w` holds NaN"), "{text}");
    let text = message(&mut checkpoint, stored("w", slice(w, 200, 100), W8));
    assert!(text.starts_with("row 70 of `w` holds NaN"), "{text}");
}

#[test]
fn says_that_gptq_needs_statistics() {
    let mut checkpoint = Checkpoint::default();
    let w = checkpoint.random("w", &[4, 8], FloatType::Bf16);
    let weight = StoredWeight { rounding: Rounding::Gptq, ..stored("w", w, W8) };
    let text = message(&mut checkpoint, weight);
    assert!(text.starts_with("rounding `w` by GPTQ needs calibration statistics\nhelp: "), "{text}");
}

#[test]
fn refuses_expressions_that_do_not_fit_together() {
    let mut checkpoint = Checkpoint::default();
    let w = checkpoint.random("w", &[6, 8], FloatType::Bf16);
    let vector = checkpoint.factors("v", 7);
    let cube = checkpoint.random("cube", &[2, 3, 4], FloatType::F32);
    let empty = checkpoint.random("empty", &[0, 4], FloatType::F32);
    let huge = WeightExpr::Tensor { name: "h".into(), shape: vec![usize::MAX, 3], dtype: FloatType::F32 };
    let r = |size| rotation(RotationKind::Hadamard, size);
    let cases = [
        (slice(w.clone(), 4, 3), "takes 3 rows from row 4 of 6"),
        (slice(w.clone(), usize::MAX, 3), "takes 3 rows"),
        (slice(w.clone(), 1, 0), "takes 0 rows"),
        (scale_columns(w.clone(), vector.clone(), false), "scales 8 columns by factors of shape [7]"),
        (scale_rows(w.clone(), vector.clone(), true), "scales 6 rows by factors of shape [7]"),
        (rotate(w.clone(), Side::In, r(3), false), "has a dimension of 8, rotation `r3` has blocks of 3"),
        (rotate(w.clone(), Side::Out, r(4), false), "has a dimension of 6, rotation `r4` has blocks of 4"),
        (rotate(w.clone(), Side::Out, r(0), false), "blocks of 0"),
        (cube, "expected a vector or a matrix"),
        (empty, "expected a vector or a matrix"),
        (huge, "expected a vector or a matrix"),
        (vector, "has shape [7], expected a matrix"),
    ];
    for (expr, expected) in cases {
        let text = message(&mut checkpoint, stored("w", expr, W8));
        assert!(text.starts_with("`w` ") && text.contains(expected), "{text}");
    }
    for group_size in [0, 48] {
        let text = message(&mut checkpoint, stored("w", w.clone(), StorageFormat::W4TwoLevel { group_size }));
        assert!(text.contains("expected a multiple of 32"), "{text}");
    }
}

#[test]
fn refuses_two_weights_of_one_name() {
    let mut checkpoint = Checkpoint::default();
    let w = checkpoint.random("w", &[6, 8], FloatType::Bf16);
    let twice = [stored("w", w.clone(), W8), stored("w", w, W8)];
    let text = compile(&mut checkpoint, &twice, &[]).unwrap_err().to_string();
    assert!(text.starts_with("two tensors are called `w.weight`"), "{text}");
}
