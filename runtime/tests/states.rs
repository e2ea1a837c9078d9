//! States in fewer bits: what they change, and what they do not.

use runtime::cpu;
use runtime::device::{Device, LaunchByLaunch, Outputs, SequenceChunk, SlotId};
use runtime::memory::Footprint;
use runtime::plan::{DType, Plan, StateId, StateKind, WeightFormat};
use runtime::synthetic::{self, Layout, MemoryStore, Shape};

const NARROW: [DType; 3] = [DType::F16, DType::Bf16, DType::I8];

fn model(ssm_dtype: DType, kv_dtype: DType, fused_mixer: bool) -> (Plan, MemoryStore) {
    let layout = Layout { ssm_dtype, kv_dtype, fused_mixer, ..Layout::of(WeightFormat::Float { dtype: DType::F32 }) };
    synthetic::model(&Shape::tiny(), &layout, 8)
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * i * 5 + 3 * i + 2) as u32 % 101).collect()
}

fn device<'a>(plan: &'a Plan, store: &'a MemoryStore, threads: usize) -> cpu::Device<'a> {
    cpu::Device::new(plan, store, &cpu::Options { threads: Some(threads), ..Default::default() }).unwrap()
}

fn logits(device: &mut dyn Device, slot: SlotId, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let step = |tokens| device.step(&[SequenceChunk { slot, tokens, outputs: Outputs::All }]).unwrap().values.to_vec();
    tokens.chunks(chunk).flat_map(step).collect()
}

fn run(plan: &Plan, store: &MemoryStore, threads: usize, chunk: usize) -> Vec<f32> {
    let mut device = device(plan, store, threads);
    let slot = device.create_slot().unwrap();
    logits(&mut device, slot, &tokens(90), chunk)
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let size: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
    let apart: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (apart / size).sqrt()
}

#[test]
fn a_first_step_does_not_depend_on_how_the_scan_state_is_kept() {
    let (plan, store) = model(DType::F32, DType::F32, true);
    let expected = run(&plan, &store, 1, 90);
    for dtype in NARROW {
        let (plan, store) = model(dtype, DType::F32, true);
        assert_eq!(run(&plan, &store, 1, 90), expected, "{dtype}");
    }
}

#[test]
fn runs_repeat_to_the_bit_with_any_number_of_threads_fused_or_not() {
    for dtype in NARROW {
        let (plan, store) = model(dtype, DType::I8, true);
        let expected = run(&plan, &store, 1, 1);
        assert_eq!(run(&plan, &store, 1, 1), expected, "{dtype}");
        assert_eq!(run(&plan, &store, 3, 1), expected, "{dtype}");
        let (mut separate, store) = model(dtype, DType::I8, false);
        separate.states.iter().zip(&plan.states).for_each(|(a, b)| assert_eq!(a.name, b.name));
        separate.model = plan.model.clone();
        assert_eq!(run(&separate, &store, 1, 1), expected, "{dtype}");
    }
}

#[test]
fn fewer_bits_move_the_logits_a_little_and_fewest_bits_most() {
    let (plan, store) = model(DType::F32, DType::F32, true);
    let exact = run(&plan, &store, 1, 1);
    let moved = |ssm, kv| {
        let (plan, store) = model(ssm, kv, true);
        distance(&exact, &run(&plan, &store, 1, 1))
    };
    let [f16, bf16, int8] = NARROW.map(|dtype| moved(dtype, DType::F32));
    assert!(0.0 < f16 && f16 < bf16 && f16 < int8 && bf16 < 0.05 && int8 < 0.05, "{f16} {bf16} {int8}");
    let [f16, bf16, int8] = NARROW.map(|dtype| moved(DType::F32, dtype));
    assert!(0.0 < f16 && f16 < bf16 && f16 < int8 && bf16 < 0.05 && int8 < 0.05, "{f16} {bf16} {int8}");
}

#[test]
fn a_fork_continues_and_a_reset_forgets_states_in_fewer_bits() {
    for dtype in NARROW {
        let (plan, store) = model(dtype, dtype, true);
        let text = tokens(40);
        let mut device = device(&plan, &store, 1);
        let slot = device.create_slot().unwrap();
        let all = logits(&mut device, slot, &text, 1);
        device.reset_slot(slot).unwrap();
        let vocab = plan.model.vocab_size;
        assert_eq!(logits(&mut device, slot, &text[..30], 1), all[..30 * vocab], "{dtype}");
        let fork = device.fork_slot(slot).unwrap();
        logits(&mut device, slot, &[1, 2, 3], 1);
        assert_eq!(logits(&mut device, fork, &text[30..], 1), all[30 * vocab..], "{dtype}");
    }
}

#[test]
fn states_travel_from_device_to_device_as_bytes_that_the_plan_counts() {
    for dtype in NARROW {
        let (plan, store) = model(dtype, dtype, true);
        let mut devices = [(); 2].map(|()| device(&plan, &store, 1));
        devices.iter_mut().for_each(|device| assert_eq!(device.create_slot().unwrap(), SlotId(0)));
        let [one, other] = &mut devices;
        logits(one, SlotId(0), &tokens(9), 3);
        logits(other, SlotId(0), &tokens(18)[9..], 3);
        for (id, state) in plan.states.iter().enumerate() {
            let bytes = one.read_state(SlotId(0), StateId(id as u32)).unwrap().into_owned();
            let tokens = if state.kind == StateKind::Kv { 2 * 9 } else { 1 };
            assert_eq!(bytes.len(), tokens * state.bytes(), "{}", state.name);
            other.write_state(SlotId(0), StateId(id as u32), &bytes).unwrap();
            other.write_state(SlotId(0), StateId(id as u32), &bytes[1..]).unwrap_err();
        }
        let vocab = plan.model.vocab_size;
        let next = |device: &mut cpu::Device<'_>| logits(device, SlotId(0), &[7, 8], 1);
        assert_eq!(next(one)[..vocab], next(other)[..vocab], "{dtype}");
    }
}

#[test]
fn memory_is_planned_as_it_is_taken() {
    for dtype in [DType::F32, DType::F16, DType::Bf16, DType::I8] {
        let (plan, store) = model(dtype, dtype, true);
        let mut device = device(&plan, &store, 1);
        device.create_slot().unwrap();
        let footprint = Footprint::of_plan(&plan, 0);
        assert_eq!(device.state_bytes(), footprint.state_per_sequence, "{dtype}");
        assert_eq!(plan.kv_token_bytes(), footprint.kv_per_token, "{dtype}");
    }
}
