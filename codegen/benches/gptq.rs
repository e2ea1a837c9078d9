//! GPTQ of linears of the 8B model, in parts whose cost scales: sums over tokens (`tokens k^2`), factorizing (`k^3`), rounding
//! rows (`rows k^2`). `NAME/tokens` is sums and factorizing, so two of them tell the one from the other.

use codegen::calibrate::{Prepared, Settings};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ir::weights::StorageFormat;
use rand::{RngExt, SeedableRng};
use std::hint::black_box;

/// The inputs of in_proj, up_proj and attention.
const HIDDEN: usize = 4096;
/// Rows that are rounded; in_proj has 18560.
const ROWS: usize = 256;

fn random(count: usize) -> Vec<f32> {
    let mut random = rand_pcg::Pcg64::seed_from_u64(1);
    (0..count).map(|_| random.random_range(-1.0f32..1.0)).collect()
}

fn prepare(c: &mut Criterion) {
    let mut group = c.benchmark_group("prepare");
    group.sample_size(10);
    for (k, tokens) in [(HIDDEN / 2, 2048), (HIDDEN / 2, 8192), (HIDDEN, 2048)] {
        let inputs = random(tokens * k);
        let id = BenchmarkId::new(format!("k{k}"), tokens);
        group.bench_function(id, |b| b.iter(|| Prepared::of(black_box(&inputs), k, Settings::default())));
    }
}

fn round(c: &mut Criterion) {
    let mut group = c.benchmark_group("round");
    group.sample_size(10);
    let weight = random(ROWS * HIDDEN);
    let prepared = Prepared::of(&random(2048 * HIDDEN), HIDDEN, Settings::default()).expect("random inputs are finite");
    for (name, format) in [("w8", StorageFormat::W8), ("w4", StorageFormat::W4TwoLevel { group_size: 128 })] {
        group.bench_function(BenchmarkId::new(name, ROWS), |b| b.iter(|| prepared.round(format, black_box(&weight))));
    }
}

criterion_group!(benches, prepare, round);
criterion_main!(benches);
