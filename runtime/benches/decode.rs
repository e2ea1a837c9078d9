//! Whole steps of a synthetic model of 44 million parameters: decode of one token (throughput in bytes of weights, to
//! compare with `read` of the `linear` bench) and prefill.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use runtime::cpu;
use runtime::device::{Device, Outputs, SequenceChunk};
use runtime::plan::{DType, WeightFormat};
use runtime::synthetic::{self, Layout, Shape};
use std::time::Duration;

fn steps(c: &mut Criterion) {
    let formats = [
        ("bf16", WeightFormat::Float { dtype: DType::Bf16 }),
        ("w8", WeightFormat::W8),
        ("w4-two-level", WeightFormat::W4TwoLevel { group_size: 128 }),
    ];
    for (name, format) in formats {
        let layout = Layout { fused_mixer: true, ..Layout::of(format) };
        let (plan, store) = synthetic::model(&Shape::mini(), &layout, 1);
        let mut device = cpu::Device::new(&plan, &store, &cpu::Options::default()).expect("a valid plan");
        let slot = device.create_slot().expect("a slot");
        let tokens: Vec<u32> = (0..512).map(|i| i * 13 % 8192).collect();
        for (kind, rows, throughput) in
            [("decode", 1, Throughput::Bytes(store.bytes() as u64)), ("prefill-512", 512, Throughput::Elements(512))]
        {
            let mut group = c.benchmark_group(kind);
            group.throughput(throughput);
            group.bench_function(name, |b| {
                b.iter(|| {
                    // Rarely, because clearing the states takes time of its own.
                    if device.position(slot).expect("a slot") > 256 {
                        device.reset_slot(slot).expect("a slot");
                    }
                    let chunk = SequenceChunk { slot, tokens: &tokens[..rows], outputs: Outputs::Last };
                    device.step(&[chunk]).expect("a step").values[0]
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500));
    targets = steps
}
criterion_main!(benches);
