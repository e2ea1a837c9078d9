//! However tokens are cut into steps and steps into threads, the logits are the same.

use runtime::cpu;
use runtime::device::{
    Device, DeviceError, LaunchByLaunch, Limits, Observer, Outputs, SequenceChunk, SlotId, step_observed,
};
use runtime::plan::{Activation, BufferId, DType, Kernel, Launch, StateId, WeightFormat};
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
        kv_dtype: [DType::F32, DType::Bf16, DType::F16, DType::I8][index % 4],
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

#[test]
fn sequences_of_one_batch_do_not_disturb_each_other() {
    for layout in layouts() {
        let (plan, store) = synthetic::model(&Shape::tiny(), &layout, 2);
        let mut device = cpu::Device::new(&plan, &store, &options(2)).unwrap();
        let texts: [&[u32]; 3] = [&tokens(40), &tokens(9)[3..], &tokens(23)[1..]];
        let alone: Vec<Vec<f32>> = texts
            .iter()
            .map(|text| {
                let slot = device.create_slot().unwrap();
                let logits = logits_in_chunks(&mut device, slot, text, 512);
                device.release_slot(slot).unwrap();
                logits
            })
            .collect();
        let slots: Vec<SlotId> = texts.iter().map(|_| device.create_slot().unwrap()).collect();
        let chunk = |i: usize, range: std::ops::Range<usize>| SequenceChunk {
            slot: slots[i],
            tokens: &texts[i][range],
            outputs: Outputs::All,
        };
        let vocab = plan.model.vocab_size;
        let first = device.step(&[chunk(1, 0..5), chunk(0, 0..39)]).unwrap().values.to_vec();
        let second = device.step(&[chunk(0, 39..40), chunk(2, 0..22), chunk(1, 5..6)]).unwrap().values.to_vec();
        assert_eq!(first, [&alone[1][..5 * vocab], &alone[0][..39 * vocab]].concat(), "{layout:?}");
        assert_eq!(second, [&alone[0][39 * vocab..], &alone[2], &alone[1][5 * vocab..]].concat(), "{layout:?}");
    }
}

#[test]
fn a_fork_continues_the_same_prefix_and_a_reset_forgets_it() {
    for layout in layouts() {
        let (plan, store) = synthetic::model(&Shape::tiny(), &layout, 3);
        let mut device = cpu::Device::new(&plan, &store, &options(1)).unwrap();
        let text = tokens(70);
        let slot = device.create_slot().unwrap();
        let all = logits_in_chunks(&mut device, slot, &text, 70);
        let vocab = plan.model.vocab_size;

        device.reset_slot(slot).unwrap();
        assert_eq!(device.position(slot).unwrap(), 0);
        logits_in_chunks(&mut device, slot, &text[..66], 33);
        let fork = device.fork_slot(slot).unwrap();
        logits_in_chunks(&mut device, slot, &[5, 6, 7], 1);
        assert_eq!(device.position(fork).unwrap(), 66);
        assert_eq!(logits_in_chunks(&mut device, fork, &text[66..], 2), all[66 * vocab..], "{layout:?}");

        device.reset_slot(fork).unwrap();
        assert_eq!(logits_in_chunks(&mut device, fork, &text, 70), all, "{layout:?}");
    }
}

#[test]
fn only_the_rows_asked_for_have_logits() {
    let (plan, store) = synthetic::model(&Shape::tiny(), &layouts()[3], 4);
    let mut device = cpu::Device::new(&plan, &store, &options(1)).unwrap();
    let text = tokens(20);
    let slot = device.create_slot().unwrap();
    let all = logits_in_chunks(&mut device, slot, &text, 20);
    let vocab = plan.model.vocab_size;
    for (outputs, rows) in
        [(Outputs::None, vec![]), (Outputs::Last, vec![19]), (Outputs::Rows(&[0, 7, 19]), vec![0, 7, 19])]
    {
        device.reset_slot(slot).unwrap();
        let logits = device.step(&[SequenceChunk { slot, tokens: &text, outputs }]).unwrap();
        assert_eq!(logits.rows(), rows.len());
        for (index, row) in rows.into_iter().enumerate() {
            assert_eq!(logits.row(index), &all[row * vocab..][..vocab]);
        }
    }
}

#[test]
fn refuses_bad_batches_and_leaves_the_slots_alone() {
    let (plan, store) = synthetic::model(&Shape::tiny(), &layouts()[0], 5);
    let mut device = cpu::Device::new(&plan, &store, &options(1)).unwrap();
    let slot = device.create_slot().unwrap();
    let expected = logits_in_chunks(&mut device, slot, &[1, 2, 3], 3);
    device.reset_slot(slot).unwrap();
    let outputs = Outputs::Last;
    let chunk = |tokens| SequenceChunk { slot, tokens, outputs };
    let ghost = SequenceChunk { slot: SlotId(9), ..chunk(&[1]) };
    let rows = |rows| SequenceChunk { outputs: Outputs::Rows(rows), ..chunk(&[1, 2]) };
    let long = vec![1; 513];
    let cases: [(&[SequenceChunk<'_>], &str); 8] = [
        (&[], "the batch is empty"),
        (&[chunk(&[])], "has no tokens"),
        (&[chunk(&[1, 101])], "token id 101 at position 1 is out of range"),
        (&[chunk(&[1]), chunk(&[2])], "appears twice"),
        (&[ghost], "slot 9 does not exist"),
        (&[rows(&[2])], "logits of row 2"),
        (&[rows(&[1, 0])], "logits of row 0"),
        (&[chunk(&long)], "the step has 513 tokens, room is for 512"),
    ];
    for (batch, message) in cases {
        let error = device.step(batch).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("\nhelp: "), "{error}");
        assert_eq!(device.position(slot).unwrap(), 0);
    }
    assert_eq!(logits_in_chunks(&mut device, slot, &[1, 2, 3], 3), expected);
}

#[test]
fn refuses_a_context_beyond_its_limit_and_names_the_bytes() {
    let (plan, store) = synthetic::model(&Shape::tiny(), &layouts()[0], 6);
    let limits = Limits { context: Some(10), ..Limits::default() };
    let mut device = cpu::Device::new(&plan, &store, &cpu::Options { threads: Some(1), limits }).unwrap();
    let slot = device.create_slot().unwrap();
    logits_in_chunks(&mut device, slot, &tokens(10), 10);
    let error = device.step(&[SequenceChunk { slot, tokens: &[1], outputs: Outputs::Last }]).unwrap_err();
    // One layer of 2 kv heads of 16 f32, keys and values: 256 bytes a token.
    assert!(error.to_string().contains("11 tokens, the limit is 10 (2816 bytes"), "{error}");
    assert_eq!(device.position(slot).unwrap(), 10);
}

#[test]
fn refuses_states_beyond_the_memory_given() {
    let (plan, store) = synthetic::model(&Shape::tiny(), &layouts()[0], 7);
    let mut device = cpu::Device::new(&plan, &store, &options(1)).unwrap();
    device.create_slot().unwrap();
    let fixed = device.state_bytes();
    let limits = Limits { state_bytes: Some(fixed + 100 * 256), ..Limits::default() };
    let mut device = cpu::Device::new(&plan, &store, &cpu::Options { threads: Some(1), limits }).unwrap();
    let slot = device.create_slot().unwrap();
    // Doubling would go beyond the limit; exactly 100 tokens fit.
    logits_in_chunks(&mut device, slot, &tokens(100), 30);
    assert_eq!(device.state_bytes(), fixed + 100 * 256);
    let error = device.step(&[SequenceChunk { slot, tokens: &[1], outputs: Outputs::Last }]).unwrap_err();
    assert!(matches!(error, DeviceError::StateMemory { .. }), "{error}");
    assert!(matches!(device.fork_slot(slot), Err(DeviceError::StateMemory { .. })));
    device.release_slot(slot).unwrap();
    assert_eq!(device.state_bytes(), 0);
}

#[test]
fn a_step_taken_launch_by_launch_equals_a_whole_one() {
    let (plan, store) = synthetic::model(&Shape::tiny(), &layouts()[1], 8);
    let mut device = cpu::Device::new(&plan, &store, &options(2)).unwrap();
    let (slot, text) = (device.create_slot().unwrap(), tokens(30));
    let expected = logits_in_chunks(&mut device, slot, &text, 30);
    device.reset_slot(slot).unwrap();

    struct Norms(Vec<f32>);
    impl Observer for Norms {
        fn before(&mut self, _: usize, launch: &Launch, device: &dyn LaunchByLaunch) -> Result<(), DeviceError> {
            if let Kernel::Linear { x: Activation::Float { data }, .. } = launch.kernel {
                self.0.push(device.read_floats(data)?.iter().fold(0.0, |max, x| max.max(x.abs())));
            }
            Ok(())
        }
    }
    let mut norms = Norms(Vec::new());
    let batch = [SequenceChunk { slot, tokens: &text, outputs: Outputs::All }];
    let logits = step_observed(&mut device, &batch, &mut norms).unwrap();
    assert_eq!(logits.values, expected);
    assert_eq!(norms.0.len(), 11);
    assert!(norms.0.iter().all(|norm| *norm > 0.0 && norm.is_finite()));
}

#[test]
fn states_can_be_carried_from_one_device_to_another() {
    for layout in layouts() {
        let (plan, store) = synthetic::model(&Shape::tiny(), &layout, 10);
        let mut devices = [1, 2].map(|threads| cpu::Device::new(&plan, &store, &options(threads)).unwrap());
        let [from, to] = &mut devices;
        let (source, target) = (from.create_slot().unwrap(), to.create_slot().unwrap());
        logits_in_chunks(from, source, &tokens(12), 12);
        // The target took other tokens, as many.
        logits_in_chunks(to, target, &tokens(24)[12..], 12);
        for index in 0..plan.states.len() as u32 {
            let state = from.read_state(source, StateId(index)).unwrap().into_owned();
            to.write_state(target, StateId(index), &state).unwrap();
            assert_eq!(to.read_state(target, StateId(index)).unwrap(), state);
        }
        assert_eq!(logits_in_chunks(to, target, &[7, 8], 1), logits_in_chunks(from, source, &[7, 8], 2));
    }
}

#[test]
fn refuses_launches_out_of_order() {
    let (plan, store) = synthetic::model(&Shape::tiny(), &layouts()[0], 11);
    let mut device = cpu::Device::new(&plan, &store, &options(1)).unwrap();
    let slot = device.create_slot().unwrap();
    assert!(device.run_launch(0).is_err());
    device.begin(&[SequenceChunk { slot, tokens: &[1], outputs: Outputs::Last }]).unwrap();
    assert!(device.run_launch(1).is_err());
    device.run_launch(0).unwrap();
    assert!(device.finish().is_err());
    assert!(device.write_buffer(BufferId(0), &[0; 3]).is_err());
    assert!(device.write_state(slot, StateId(0), &[0; 3]).is_err());
    assert!(device.read_buffer(BufferId(999)).is_err());
    assert!(device.read_state(slot, StateId(999)).is_err());
}
