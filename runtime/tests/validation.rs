//! A plan that is not consistent with itself and its tensors is refused before anything runs.

use runtime::cpu;
use runtime::plan::*;
use runtime::synthetic::{self, Layout, MemoryStore, Shape};

fn models() -> [(Plan, MemoryStore); 3] {
    let fused = |format| Layout { fused_mixer: true, hadamard_block: Some(16), ..Layout::of(format) };
    let separate = Layout { separate_dequantize: true, ..Layout::of(WeightFormat::W8) };
    [
        synthetic::model(&Shape::tiny(), &separate, 1),
        synthetic::model(&Shape::tiny(), &fused(WeightFormat::W4TwoLevel { group_size: 32 }), 1),
        synthetic::model(&Shape::tiny(), &fused(WeightFormat::W4Group { group_size: 64 }), 1),
    ]
}

fn message((plan, store): &(Plan, MemoryStore)) -> String {
    plan.validate(store).expect_err("the plan should be refused").to_string()
}

fn launch<'a>(plan: &'a mut Plan, origin: &str) -> &'a mut Kernel {
    &mut plan.launches.iter_mut().find(|launch| launch.origin == origin).unwrap().kernel
}

#[test]
fn accepts_every_layout() {
    for (plan, store) in models() {
        plan.validate(&store).unwrap();
        let json = serde_json::to_string(&plan).unwrap();
        let read: Plan = serde_json::from_str(&json).unwrap();
        assert_eq!(read, plan);
    }
}

#[test]
fn every_tensor_of_a_plan_is_needed_in_its_type_and_shape() {
    use runtime::tensors::TensorStore;
    for (plan, store) in models() {
        let json = serde_json::to_string(&plan).unwrap();
        for suffix in ["weight", "scale", "group_scale"] {
            let name = format!("layers.0.in_proj.z.{suffix}");
            let Some(tensor) = store.tensor(&name) else { continue };
            let (dtype, shape, bytes) = (tensor.dtype, tensor.shape.to_vec(), tensor.bytes.to_vec());
            let mut damaged = store.clone();
            damaged.remove(&name);
            assert!(message(&(plan.clone(), damaged.clone())).contains(&format!("tensor {name} is missing")));
            damaged.insert(&name, dtype, &shape, bytes[1..].to_vec());
            assert!(message(&(plan.clone(), damaged.clone())).contains(&name));
            damaged.insert(&name, DType::I32, &shape, bytes.clone());
            assert!(message(&(plan.clone(), damaged.clone())).contains("expected"));
            damaged.insert(&name, dtype, &[&shape[..], &[1]].concat(), bytes);
            assert!(message(&(plan.clone(), damaged)).contains("layers.0.in_proj"));
        }
        for name in ["layers.0.A_log", "layers.0.conv.bias", "layers.0.mixer.norm", "embedding.weight", "final.norm"] {
            assert!(json.contains(name.trim_end_matches(".weight")));
            let mut damaged = store.clone();
            damaged.remove(name);
            assert!(message(&(plan.clone(), damaged)).contains(name));
        }
    }
}

#[test]
fn refuses_ids_outside_the_tables() {
    for (mut plan, store) in models() {
        let Kernel::RmsNorm { x, .. } = launch(&mut plan, "layers.0.norm") else { unreachable!() };
        *x = BufferId(4000);
        assert!(message(&(plan, store)).contains("launch 1 (layers.0.norm) uses buffer 4000"));
    }
    for (mut plan, store) in models() {
        let Kernel::Attention { state, .. } = launch(&mut plan, "layers.2.attention") else { unreachable!() };
        *state = StateId(77);
        assert!(message(&(plan, store)).contains("uses state 77"));
    }
    for (mut plan, store) in models() {
        plan.logits = BufferId(u32::MAX);
        assert!(message(&(plan, store)).contains("logits uses buffer"));
    }
}

#[test]
fn refuses_buffers_of_another_width_type_or_row_kind() {
    for (plan, store) in models() {
        for index in 0..plan.buffers.len() {
            let mut wider = plan.clone();
            wider.buffers[index].cols += 1;
            message(&(wider, store.clone()));
            let mut other_type = plan.clone();
            other_type.buffers[index].dtype = DType::F16;
            message(&(other_type, store.clone()));
            let mut other_rows = plan.clone();
            let rows = &mut other_rows.buffers[index].rows;
            *rows = if *rows == Rows::Token { Rows::Output } else { Rows::Token };
            message(&(other_rows, store.clone()));
        }
    }
}

#[test]
fn refuses_states_of_another_shape_type_or_kind_and_states_used_twice() {
    for (plan, store) in models() {
        for index in 0..plan.states.len() {
            let mut damaged = plan.clone();
            damaged.states[index].shape[0] += 1;
            message(&(damaged, store.clone()));
            let mut damaged = plan.clone();
            damaged.states[index].dtype = DType::U8;
            message(&(damaged, store.clone()));
            let mut damaged = plan.clone();
            damaged.states[index].shape = vec![usize::MAX, 2];
            assert!(message(&(damaged, store.clone())).contains("absurd"));
        }
    }
    let [(mut plan, store), ..] = models();
    let Kernel::Conv1d { state: first, .. } = *launch(&mut plan, "layers.0.conv1d") else { unreachable!() };
    let Kernel::Conv1d { state, .. } = launch(&mut plan, "layers.3.conv1d") else { unreachable!() };
    *state = first;
    assert!(message(&(plan, store)).contains("state layers.0.conv_state is used twice"));
}

#[test]
fn refuses_a_window_in_fewer_bits() {
    let [(mut plan, store), ..] = models();
    let window = plan.states.iter_mut().find(|state| state.kind == StateKind::Conv).unwrap();
    window.dtype = DType::I8;
    assert!(message(&(plan, store)).contains("state layers.0.conv_state"));
}

#[test]
fn refuses_reading_what_was_never_written_and_writing_what_is_read() {
    let [(mut plan, store), ..] = models();
    plan.launches.remove(0);
    assert!(message(&(plan, store)).contains("reads buffer hidden before any launch has written it"));

    let [(mut plan, store), ..] = models();
    let Kernel::GatedRmsNorm { x, emit, .. } = launch(&mut plan, "layers.0.gated_norm") else { unreachable!() };
    emit.to = Activation::Float { data: *x };
    assert!(message(&(plan, store)).contains("buffer scanned is used twice"));

    let [(mut plan, store), ..] = models();
    let Kernel::RmsNorm { x, emit, .. } = launch(&mut plan, "layers.0.norm") else { unreachable!() };
    emit.to = Activation::Float { data: *x };
    assert!(message(&(plan, store)).contains("buffer hidden is used twice"));

    let [(mut plan, store), ..] = models();
    plan.launches.pop();
    assert!(message(&(plan, store)).contains("logits"));
}

#[test]
fn refuses_numbers_that_make_no_sense() {
    type Damage = (&'static str, fn(&mut Kernel));
    let damage: [Damage; 7] = [
        ("layers.0.in_proj", |kernel| {
            if let Kernel::Linear { in_features, .. } = kernel {
                *in_features = 0;
            }
        }),
        ("layers.0.in_proj", |kernel| {
            if let Kernel::Linear { segments, .. } = kernel {
                segments.clear();
            }
        }),
        ("layers.0.in_proj", |kernel| {
            if let Kernel::Linear { in_features, .. } = kernel {
                *in_features = usize::MAX;
            }
        }),
        ("layers.0.scan", |kernel| {
            if let Kernel::SsmScan { shape, .. } = kernel {
                shape.groups = 0;
            }
        }),
        ("layers.0.gated_norm", |kernel| {
            if let Kernel::GatedRmsNorm { emit, .. } = kernel {
                emit.hadamard_block = Some(24);
            }
        }),
        ("layers.0.gated_norm", |kernel| {
            if let Kernel::GatedRmsNorm { group_size, .. } = kernel {
                *group_size = 7;
            }
        }),
        ("layers.2.attention", |kernel| {
            if let Kernel::Attention { kv_heads, .. } = kernel {
                *kv_heads = 3;
            }
        }),
    ];
    for (origin, damage) in damage {
        let [(mut plan, store), ..] = models();
        damage(launch(&mut plan, origin));
        assert!(message(&(plan, store)).contains(origin));
    }
}

#[test]
fn refuses_a_plan_of_a_future_version() {
    let [(mut plan, store), ..] = models();
    plan.version = PLAN_VERSION + 1;
    assert!(message(&(plan.clone(), store.clone())).contains("format version 2, this build reads up to 1"));
    let refused = cpu::Device::new(&plan, &store, &cpu::Options::default());
    assert!(refused.is_err());
}
