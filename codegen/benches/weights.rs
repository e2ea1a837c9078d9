//! Packing, quantizing and rotating on one core, in bytes of bf16 input per second, and a whole artifact on all cores.

use codegen::weights::{
    Contents, Orthogonal, PackedRows, RowBytes, materialize, pack_nibbles, quantizer, to_f32, unpack_nibbles,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use ir::weights::{
    FloatType, Rotation, RotationKind, Rounding, Side, StorageFormat, StoredWeight, TensorSource, WeightExpr,
};
use rand::{RngExt, SeedableRng};
use runtime::artifact::{Metadata, Provenance};
use runtime::plan::{BufferId, ModelInfo, PLAN_VERSION, Plan};
use std::hint::black_box;

const W4: StorageFormat = StorageFormat::W4TwoLevel { group_size: 128 };
const FORMATS: [(&str, StorageFormat); 4] = [
    ("bf16", StorageFormat::Float { dtype: FloatType::Bf16 }),
    ("w8", StorageFormat::W8),
    ("w4-two-level", W4),
    ("w4-group", StorageFormat::W4Group { group_size: 128 }),
];

fn random(count: usize) -> Vec<f32> {
    let mut random = rand_pcg::Pcg64::seed_from_u64(1);
    // The sum of four is normal enough for searches that depend on the data.
    (0..count).map(|_| (0..4).map(|_| random.random_range(-0.02f32..0.02)).sum()).collect()
}

fn bf16_bytes(count: usize) -> Vec<u8> {
    random(count).iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()
}

/// 64 rows of 4096.
const ROWS: usize = 64;
const COLS: usize = 4096;
const INPUT: Throughput = Throughput::Bytes((ROWS * COLS * 2) as u64);

fn convert(c: &mut Criterion) {
    let bytes = bf16_bytes(ROWS * COLS);
    let mut out = vec![0.0; ROWS * COLS];
    let mut group = c.benchmark_group("convert");
    group.throughput(INPUT).bench_function("bf16", |b| b.iter(|| to_f32(FloatType::Bf16, black_box(&bytes), &mut out)));
}

fn pack(c: &mut Criterion) {
    let q: [i8; 32] = std::array::from_fn(|i| (i % 15) as i8 - 7);
    let mut group = c.benchmark_group("nibbles");
    group.throughput(Throughput::Elements(32));
    group.bench_function("pack", |b| b.iter(|| pack_nibbles(black_box(&q))));
    let packed = pack_nibbles(&q);
    group.bench_function("unpack", |b| b.iter(|| unpack_nibbles(black_box(&packed))));
}

fn quantize(c: &mut Criterion) {
    let mut values = random(ROWS * COLS);
    let mut group = c.benchmark_group("quantize");
    group.throughput(INPUT);
    for (name, format) in FORMATS {
        let bytes = RowBytes::new(format, COLS);
        let [mut weight, mut group_scale, mut scale] =
            [bytes.weight, bytes.group_scale, bytes.scale].map(|row| vec![0; row * ROWS]);
        let rounding = quantizer("w", format, Rounding::Rtn).expect("a legal format");
        group.bench_function(name, |b| {
            b.iter(|| {
                let out = PackedRows { weight: &mut weight, group_scale: &mut group_scale, scale: &mut scale };
                rounding.quantize(black_box(&mut values), COLS, out)
            });
        });
    }
}

/// No tensors.
struct Nothing;

impl TensorSource for Nothing {
    fn describe(&self, _: &str) -> Option<(Vec<usize>, FloatType)> {
        None
    }

    fn bytes(&self, name: &str) -> Result<&[u8], Box<dyn std::error::Error + Send + Sync>> {
        Err(name.into())
    }
}

fn rotation(size: usize) -> Rotation {
    Rotation { name: "r".into(), kind: RotationKind::RandomHadamard, size, seed: 1 }
}

fn rotate(c: &mut Criterion) {
    let mut group = c.benchmark_group("rotate");
    for size in [128, 1024, 4096, 4480] {
        let r = Orthogonal::new(&rotation(size), &Nothing).expect("a legal rotation");
        let mut data = random(ROWS * size);
        group.throughput(Throughput::Bytes((ROWS * size * 2) as u64));
        group.bench_function(BenchmarkId::new("rows", size), |b| b.iter(|| r.rotate_rows(black_box(&mut data), false)));
        let strip = &mut data[..32 * size];
        group.throughput(Throughput::Bytes((32 * size * 2) as u64));
        group.bench_function(BenchmarkId::new("columns", size), |b| {
            b.iter(|| r.rotate_columns(black_box(&mut *strip), 32, false));
        });
    }
}

/// One tensor in memory, `[8192, 4096]` bf16.
struct One(Vec<u8>);

const SHAPE: [usize; 2] = [8192, 4096];

impl TensorSource for One {
    fn describe(&self, _: &str) -> Option<(Vec<usize>, FloatType)> {
        Some((SHAPE.to_vec(), FloatType::Bf16))
    }

    fn bytes(&self, _: &str) -> Result<&[u8], Box<dyn std::error::Error + Send + Sync>> {
        Ok(&self.0)
    }
}

fn artifact(c: &mut Criterion) {
    let source = One(bf16_bytes(SHAPE[0] * SHAPE[1]));
    let tensor = WeightExpr::Tensor { name: "w".into(), shape: SHAPE.to_vec(), dtype: FloatType::Bf16 };
    let rotated = |side| {
        let base = Box::new(tensor.clone());
        WeightExpr::Rotate { base, side, rotation: rotation(4096), transpose: false }
    };
    let metadata =
        Metadata { plan: plan(), recipe: String::new(), provenance: Provenance::default(), extra: [].into() };
    let dir = tempfile::tempdir().expect("a folder for artifacts");
    let path = dir.path().join("bench.nemo");
    let mut group = c.benchmark_group("artifact");
    group.sample_size(10).throughput(Throughput::Bytes(source.0.len() as u64));
    let cases = [
        ("w8", tensor.clone(), StorageFormat::W8),
        ("w4-two-level", tensor.clone(), W4),
        ("w4-two-level, rows rotated", rotated(Side::In), W4),
        ("w8, columns rotated", rotated(Side::Out), StorageFormat::W8),
    ];
    for (name, expr, format) in cases {
        let weights = [StoredWeight { name: "w".into(), expr, format, rounding: Rounding::Rtn }];
        let contents = Contents { weights: &weights, parameters: &[], extra: &[], metadata: &metadata };
        group.bench_function(name, |b| {
            b.iter(|| materialize(&contents, &source, &path, &|_, _| ()).expect("a legal artifact"));
        });
    }
}

fn plan() -> Plan {
    Plan {
        version: PLAN_VERSION,
        model: ModelInfo {
            name: "bench".into(),
            vocab_size: 1,
            hidden_size: 1,
            layer_pattern: String::new(),
            max_position_embeddings: None,
            bos_token_id: None,
            eos_token_ids: vec![],
            parameters: 0,
            phase: "0".into(),
        },
        buffers: vec![],
        states: vec![],
        launches: vec![],
        logits: BufferId(0),
    }
}

criterion_group!(benches, convert, pack, quantize, rotate, artifact);
criterion_main!(benches);
