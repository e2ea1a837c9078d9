//! Every kernel agrees with its doc comment, computed naively in f64 from the same inputs.

mod naive;

use naive::{Expected, Step};
use proptest::prelude::*;
use runtime::cpu;
use runtime::device::{Device, LaunchByLaunch, Outputs, SequenceChunk};
use runtime::plan::*;
use runtime::synthetic::{self, Layout, MemoryStore, Shape};

/// Errors of f32 sums grow with the size of their terms, not of the sum.
const TOLERANCE: f64 = 2e-5;

fn check(step: &Step<'_>, expected: &Expected, origin: &str) {
    match expected {
        Expected::Float(id, values) => close(&step.buffer(*id), values, origin),
        Expected::Integer(id, values) => {
            let found: Vec<i64> = step.buffer(*id).iter().map(|v| *v as i64).collect();
            assert_eq!(&found, values, "{origin}");
        }
        Expected::Quantized { data, scale, cols, values } => {
            check_quantized(step, (*data, *scale), *cols, values, origin);
        }
    }
}

fn close(found: &[f64], expected: &[f64], origin: &str) {
    assert_eq!(found.len(), expected.len(), "{origin}");
    let largest = expected.iter().fold(1e-3f64, |max, v| max.max(v.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= TOLERANCE * largest, "{origin}[{index}]: {found}, expected {expected}");
    }
}

fn check_quantized(step: &Step<'_>, (data, scale): (BufferId, BufferId), cols: usize, values: &[f64], origin: &str) {
    let (q, scales) = (step.buffer(data), step.buffer(scale));
    let levels = if step.plan.buffer(data).dtype == DType::U8 { 255.0 } else { 127.0 };
    let padded = step.plan.buffer(data).cols;
    for (t, values) in values.chunks(cols).enumerate() {
        let largest = values.iter().fold(0.0f64, |max, v| max.max(v.abs()));
        assert!((scales[t] * levels - largest).abs() <= TOLERANCE * largest, "{origin}: scale of row {t}");
        let q = &q[t * padded..][..padded];
        assert!(q[cols..].iter().all(|q| *q == 0.0), "{origin}: padding of row {t}");
        for (q, value) in q.iter().zip(values) {
            let error = (q * scales[t] - value).abs();
            assert!(error <= 0.5 * scales[t] + TOLERANCE * largest, "{origin}: {q} * {} is not {value}", scales[t]);
        }
    }
}

/// Runs two steps launch by launch, the second from states that are not zero.
fn check_model(plan: &Plan, store: &MemoryStore, lengths: [usize; 2]) {
    let mut device = cpu::Device::new(plan, store, &cpu::Options::default()).unwrap();
    let slot = device.create_slot().unwrap();
    for (round, length) in lengths.into_iter().enumerate() {
        let tokens: Vec<u32> =
            (0..length).map(|i| (i * 13 + round * 5 + 1) as u32 % plan.model.vocab_size as u32).collect();
        let outputs: Vec<u32> = (0..length as u32).step_by(2).collect();
        let chunk = SequenceChunk { slot, tokens: &tokens, outputs: Outputs::Rows(&outputs) };
        device.begin(&[chunk]).unwrap();
        for (index, launch) in plan.launches.iter().enumerate() {
            let before = Step { plan, store, device: &device, slot, tokens: &tokens, outputs: &outputs };
            let expected = before.run(&launch.kernel);
            device.run_launch(index).unwrap();
            let after = Step { plan, store, device: &device, slot, tokens: &tokens, outputs: &outputs };
            for expected in &expected {
                check(&after, expected, &launch.origin);
            }
        }
        assert_eq!(device.finish().unwrap().rows(), outputs.len());
    }
}

fn formats() -> impl Strategy<Value = WeightFormat> {
    prop_oneof![
        Just(WeightFormat::Float { dtype: DType::F32 }),
        Just(WeightFormat::Float { dtype: DType::Bf16 }),
        Just(WeightFormat::Float { dtype: DType::F16 }),
        Just(WeightFormat::W8),
        Just(WeightFormat::W4TwoLevel { group_size: 32 }),
        Just(WeightFormat::W4TwoLevel { group_size: 64 }),
        Just(WeightFormat::W4Group { group_size: 32 }),
        Just(WeightFormat::W4Group { group_size: 128 }),
    ]
}

/// What states are kept in.
fn kept() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::Bf16), Just(DType::F16), Just(DType::I8)]
}

prop_compose! {
    fn layouts()(
        format in formats(),
        fused_mixer: bool,
        separate_dequantize: bool,
        hadamard_block in prop_oneof![Just(None), Just(Some(2)), Just(Some(8))],
        kv_dtype in kept(),
        ssm_dtype in kept(),
    ) -> Layout {
        Layout { format, segments: None, fused_mixer, separate_dequantize, hadamard_block, kv_dtype, ssm_dtype }
    }
}

prop_compose! {
    fn shapes()(
        hidden_size in 1usize..70,
        groups in 1usize..3,
        heads_per_group in 1usize..3,
        head_dim in 1usize..4,
        state_size in 1usize..40,
        conv_kernel in 1usize..6,
        intermediate in 1usize..20,
        kv_heads in 1usize..3,
        queries_per_kv in 1usize..3,
        attention_dim in 1usize..40,
    ) -> Shape {
        Shape {
            layer_pattern: "M*-".to_owned(),
            hidden_size,
            vocab_size: 37,
            mamba_heads: groups * heads_per_group,
            mamba_head_dim: head_dim * 8,
            groups,
            state_size,
            conv_kernel,
            intermediate_size: intermediate * 8,
            heads: kv_heads * queries_per_kv,
            kv_heads,
            head_dim: attention_dim,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_launch_of_random_models_agrees_with_its_definition(
        shape in shapes(),
        layout in layouts(),
        first in 1usize..9,
        second in 1usize..9,
        seed: u64,
    ) {
        let (plan, store) = synthetic::model(&shape, &layout, seed);
        check_model(&plan, &store, [first, second]);
    }
}

#[test]
fn long_steps_that_take_the_parallel_paths_agree_too() {
    let shape = Shape { hidden_size: 200, intermediate_size: 400, ..Shape::tiny() };
    for format in [WeightFormat::Float { dtype: DType::Bf16 }, WeightFormat::W4TwoLevel { group_size: 128 }] {
        let (plan, store) = synthetic::model(&shape, &Layout { fused_mixer: true, ..Layout::of(format) }, 3);
        check_model(&plan, &store, [150, 33]);
    }
}

/// A plan of one embedding and one launch, for kernels that no synthetic model has.
fn small_plan(kernel: impl FnOnce(BufferId, BufferId) -> Kernel) -> (Plan, MemoryStore) {
    let (mut plan, store) = synthetic::model(&Shape::tiny(), &Layout::of(WeightFormat::Float { dtype: DType::F32 }), 9);
    let other = BufferId(plan.buffers.len() as u32);
    plan.buffers.push(Buffer { name: "other".to_owned(), ..plan.buffers[0].clone() });
    let Kernel::Embed { table, out } = plan.launches[0].kernel.clone() else { unreachable!() };
    let launch = |kernel| Launch { kernel, origin: "test".to_owned(), cost: Cost::default() };
    plan.launches.insert(1, launch(Kernel::Embed { table, out: other }));
    plan.launches.insert(2, launch(kernel(out, other)));
    (plan, store)
}

#[test]
fn add_may_write_either_operand() {
    for case in 0..3 {
        let (plan, store) = small_plan(|a, b| match case {
            0 => Kernel::Add { a, b, out: a },
            1 => Kernel::Add { a, b, out: b },
            _ => Kernel::Add { a, b: a, out: a },
        });
        check_model(&plan, &store, [5, 2]);
    }
}

#[test]
fn a_norm_adds_its_delta_to_the_residual_first() {
    let to = |data| Emit { hadamard_block: Some(16), to: Activation::Float { data } };
    let (mut plan, store) = small_plan(|x, delta| Kernel::RmsNorm {
        x,
        delta: Some(delta),
        weight: None,
        eps: 1e-5,
        emit: to(BufferId(1)),
    });
    plan.buffers[1].cols = plan.buffers[0].cols;
    check_model(&plan, &store, [5, 2]);
}

#[test]
fn relu2_and_dt_limits_follow_their_definition() {
    let to = |data| Emit { hadamard_block: None, to: Activation::Float { data } };
    let (mut plan, store) = small_plan(|x, out| Kernel::Map { x, relu2: true, emit: to(out) });
    for launch in &mut plan.launches {
        if let Kernel::SsmScan { shape, .. } = &mut launch.kernel {
            (shape.dt_min, shape.dt_max) = (0.1, Some(0.2));
        }
    }
    check_model(&plan, &store, [7, 2]);
}
