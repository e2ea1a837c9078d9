use super::support::*;
use crate::weights::*;
use ir::weights::{Rotation, RotationKind};
use proptest::prelude::*;

fn orthogonal(kind: RotationKind, size: usize, seed: u64) -> Orthogonal {
    let rotation = Rotation { name: "r".into(), kind, size, seed };
    Orthogonal::new(&rotation, &Checkpoint::default()).unwrap()
}

fn kinds() -> impl Strategy<Value = RotationKind> {
    prop_oneof![Just(RotationKind::Hadamard), Just(RotationKind::RandomHadamard)]
}

/// Powers of two, and products with odd numbers.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![(0u32..9).prop_map(|k| 1 << k), (0u32..6, 0usize..10).prop_map(|(k, odd)| (2 * odd + 1) << k)]
}

/// `a [m, k] @ b [k, n]` in f64.
fn product(a: &[f32], b: &[f32], k: usize, n: usize) -> Vec<f32> {
    let rows = a.chunks_exact(k);
    let entry = |row: &[f32], j: usize| (0..k).map(|l| f64::from(row[l]) * f64::from(b[l * n + j])).sum::<f64>() as f32;
    rows.flat_map(|row| (0..n).map(move |j| entry(row, j))).collect()
}

fn transposed(a: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|j| a.iter().skip(j).step_by(cols).copied()).collect()
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        prop_assert!((f - e).abs() < 2e-5, "{}: {} instead of {}", what, f, e);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_rotation_is_orthogonal(kind in kinds(), size in sizes(), seed: u64) {
        let r = orthogonal(kind, size, seed).to_matrix();
        let mut identity = vec![0.0; size * size];
        identity.iter_mut().step_by(size + 1).for_each(|v| *v = 1.0);
        assert_close(&product(&r, &transposed(&r, size), size, size), &identity, "R R^T")?;
    }

    #[test]
    fn rows_and_columns_rotate_as_the_explicit_matrix_says(
        kind in kinds(), size in sizes(), seed: u64, other in 1usize..40, inverse: bool,
    ) {
        let rotation = orthogonal(kind, size, seed);
        let matrix = rotation.to_matrix();
        let right = if inverse { transposed(&matrix, size) } else { matrix };
        let x: Vec<f32> = random(size * other, seed);

        let mut rows = x.clone();
        rotation.rotate_rows(&mut rows, inverse);
        assert_close(&rows, &product(&x, &right, size, size), "rows")?;

        // Columns of x [size, other] are the rows of its transpose.
        let mut columns = x.clone();
        rotation.rotate_columns(&mut columns, other, inverse);
        let expected = product(&transposed(&x, other), &right, size, size);
        assert_close(&transposed(&columns, other), &expected, "columns")?;
    }

    #[test]
    fn the_inverse_undoes_a_rotation(kind in kinds(), size in sizes(), seed: u64) {
        let rotation = orthogonal(kind, size, seed);
        let x = random(size * 3, seed);
        let mut back = x.clone();
        rotation.rotate_rows(&mut back, false);
        rotation.rotate_rows(&mut back, true);
        assert_close(&back, &x, "x R R^T")?;
    }

    #[test]
    fn rotating_both_sides_keeps_the_product(kind in kinds(), size in sizes(), seed: u64) {
        let rotation = orthogonal(kind, size, seed);
        let (n, k) = (size, size * 2);
        let (x, w) = (random(3 * k, seed), random(n * k, !seed));
        let y = product(&x, &transposed(&w, k), k, n);

        let (mut x_rotated, mut w_in) = (x.clone(), w.clone());
        rotation.rotate_rows(&mut x_rotated, false);
        rotation.rotate_rows(&mut w_in, false);
        assert_close(&product(&x_rotated, &transposed(&w_in, k), k, n), &y, "(x R)(W R)^T")?;

        let (mut y_rotated, mut w_out) = (y, w);
        rotation.rotate_rows(&mut y_rotated, false);
        rotation.rotate_columns(&mut w_out, k, false);
        assert_close(&product(&x, &transposed(&w_out, k), k, n), &y_rotated, "x (R^T W)^T")?;
    }
}

#[test]
fn a_power_of_two_is_the_sylvester_hadamard_matrix() {
    let matrix = orthogonal(RotationKind::Hadamard, 8, 1).to_matrix();
    for (at, value) in matrix.iter().enumerate() {
        let sign = if ((at / 8) & (at % 8)).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        assert_eq!(*value, sign * (1.0 / 8f32.sqrt()));
    }
}

#[test]
fn an_odd_factor_is_the_outer_one_of_the_product() {
    let (odd, power) = (3, 32);
    let matrix = orthogonal(RotationKind::Hadamard, odd * power, 9).to_matrix();
    let q = random::orthogonal(odd, !9);
    for (at, value) in matrix.iter().enumerate() {
        let (i, j) = (at / (odd * power), at % (odd * power));
        let sign = if ((i % power) & (j % power)).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        let expected = q[i / power * odd + j / power] * sign / (power as f32).sqrt();
        assert!((value - expected).abs() < 1e-6);
    }
}

#[test]
fn seeds_give_different_rotations_and_the_same_seed_the_same() {
    let of = |seed| orthogonal(RotationKind::RandomHadamard, 96, seed).to_matrix();
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn refuses_a_calibrated_matrix_that_is_no_rotation() {
    let mut checkpoint = Checkpoint::default();
    let mut q = random::orthogonal(16, 5);
    q[35] += 0.5;
    checkpoint.add("rotation.r16", &[16, 16], FloatType::F32, &q);
    let error = Orthogonal::new(&rotation(RotationKind::Klt, 16), &checkpoint).unwrap_err();
    assert!(matches!(error, WeightError::NotOrthogonal { row: 1 | 2, .. }), "{error}");
    q[35] = f32::NAN;
    checkpoint.add("rotation.r16", &[16, 16], FloatType::F32, &q);
    assert!(Orthogonal::new(&rotation(RotationKind::Klt, 16), &checkpoint).is_err());
    let error = Orthogonal::new(&rotation(RotationKind::Klt, 8), &checkpoint).unwrap_err();
    assert!(matches!(error, WeightError::MissingTensor { .. }), "{error}");
}
