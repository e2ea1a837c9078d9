//! However tokens are cut into steps and steps into threads, the logits are the same.

use runtime::cpu;
use runtime::device::{Device, Limits, Outputs, SequenceChunk, SlotId};
use runtime::plan::{DType, WeightFormat};
use runtime::synthetic::{self, Layout, Shape};

fn layouts() -> Vec<Layout> {
    let formats = [
        WeightFormat::Float { dtype: DType::F32 },
        WeightFormat::Float { dtype: DType::Bf16 },
        WeightFormat::Float { dtype: DType::F16 },
        WeightFormat::W8,
        WeightFormat::W4TwoLevel { group_size: 32 },
        WeightFormat::W4Group { group_size: 32 },
    ];
    let layouts = formats.into_iter().enumerate().map(|(index, format)| Layout {
        fused_mixer: index % 2 == 1,
        separate_dequantize: index % 4 == 0,
        hadamard_block: (index % 3 == 0).then_some(16),
        kv_dtype: [DType::F32, DType::Bf16, DType::F16][index % 3],
        ..Layout::of(format)
    });
    layouts.collect()
}

fn options(threads: usize) -> cpu::Options {
    cpu::Options { threads: Some(threads), limits: Limits::default() }
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * i * 7 + 3 * i) as u32 % 101).collect()
}

fn logits_in_chunks(device: &mut dyn Device, slot: SlotId, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let mut logits = Vec::new();
    for tokens in tokens.chunks(chunk) {
        let outputs = Outputs::All;
        let step = device.step(&[SequenceChunk { slot, tokens, outputs }]).unwrap();
        logits.extend_from_slice(step.values);
    }
    logits
}

#[test]
fn chunks_of_any_size_and_any_number_of_threads_give_the_same_bits() {
    for layout in layouts() {
        let (plan, store) = synthetic::model(&Shape::tiny(), &layout, 1);
        let tokens = tokens(150);
        let mut expected = Vec::new();
        for threads in [1, 3] {
            for chunk in [150, 64, 7, 1] {
                let mut device = cpu::Device::new(&plan, &store, &options(threads)).unwrap();
                let slot = device.create_slot().unwrap();
                let logits = logits_in_chunks(&mut device, slot, &tokens, chunk);
                if expected.is_empty() {
                    expected = logits;
                } else {
                    assert_eq!(logits, expected, "{layout:?}, chunks of {chunk}, {threads} threads");
                }
            }
        }
        assert!(expected.iter().all(|logit| logit.is_finite()));
    }
}
