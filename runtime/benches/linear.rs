//! One linear in every format, for one token (bound by reading weights) and for many (bound by arithmetic), beside the
//! speed at which this machine reads memory.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use runtime::cpu;
use runtime::device::{Device, LaunchByLaunch, Outputs, SequenceChunk};
use runtime::plan::{DType, Kernel, WeightFormat};
use runtime::synthetic::{self, Layout, Shape};
use std::time::{Duration, Instant};

const FORMATS: [(&str, WeightFormat); 5] = [
    ("f32", WeightFormat::Float { dtype: DType::F32 }),
    ("bf16", WeightFormat::Float { dtype: DType::Bf16 }),
    ("w8", WeightFormat::W8),
    ("w4-two-level", WeightFormat::W4TwoLevel { group_size: 128 }),
    ("w4-group", WeightFormat::W4Group { group_size: 128 }),
];

/// An up_proj whose weights exceed the cache even in 4 bits.
fn shape() -> Shape {
    Shape {
        layer_pattern: "-".to_owned(),
        hidden_size: 4096,
        intermediate_size: 21504,
        vocab_size: 64,
        ..Shape::mini()
    }
}

fn read_bandwidth(c: &mut Criterion) {
    let data = vec![1u64; 64 << 20];
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Bytes(data.len() as u64 * 8));
    group.bench_function("all-cores", |b| {
        b.iter(|| -> u64 {
            let chunks = data.par_chunks(1 << 16);
            chunks.map(|chunk| chunk.iter().fold(0u64, |sum, word| sum.wrapping_add(*word))).sum()
        });
    });
    group.finish();
}

/// Time of the first linear launch alone, in whole steps of `rows` tokens.
fn time_linear(device: &mut cpu::Device<'_>, rows: usize, iterations: u64) -> Duration {
    let slot = device.create_slot().expect("a slot");
    let launches = device.plan().launches.clone();
    let linear = launches.iter().position(|launch| matches!(launch.kernel, Kernel::Linear { .. })).expect("a linear");
    let tokens = vec![7; rows];
    let mut elapsed = Duration::ZERO;
    for _ in 0..iterations {
        device.reset_slot(slot).expect("a slot");
        device.begin(&[SequenceChunk { slot, tokens: &tokens, outputs: Outputs::None }]).expect("a step");
        for index in 0..=linear {
            let start = Instant::now();
            device.run_launch(index).expect("a launch");
            if index == linear {
                elapsed += start.elapsed();
            }
        }
    }
    device.release_slot(slot).expect("a slot");
    elapsed
}

fn linears(c: &mut Criterion) {
    let shape = shape();
    let elements = (shape.hidden_size * shape.intermediate_size) as u64;
    for (name, format) in FORMATS {
        let (plan, store) = synthetic::model(&shape, &Layout::of(format), 1);
        let mut device = cpu::Device::new(&plan, &store, &cpu::Options::default()).expect("a valid plan");
        let bits = match format {
            WeightFormat::Float { dtype } => dtype.bytes() as u64 * 8,
            WeightFormat::W8 => 8,
            _ => 4,
        };
        let mut group = c.benchmark_group("gemv");
        group.throughput(Throughput::Bytes(elements * bits / 8));
        group.bench_function(name, |b| b.iter_custom(|n| time_linear(&mut device, 1, n)));
        group.finish();
        let mut group = c.benchmark_group("gemm-128-tokens");
        group.throughput(Throughput::Elements(2 * elements * 128));
        group.bench_function(name, |b| b.iter_custom(|n| time_linear(&mut device, 128, n)));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500));
    targets = read_bandwidth, linears
}
criterion_main!(benches);
