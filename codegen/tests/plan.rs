//! Plans of small models, checked by the runtime's own validation.

mod support;

use codegen::plan::{Compiled, Error, plan_of};
use ir::melior::{Context, ir::Module};
use ir::pass::Pass;
use ir::weights::RotationKind;
use passes::{LowerToPlan, Phase, PipelineOptions};
use runtime::plan::{Cost, Kernel};
use std::fmt::Write;
use support::{SMALL, Zeros, imported, piped};

fn compiled<'c>(context: &'c Context, module: &Module<'c>) -> Compiled {
    let planned = LowerToPlan.run(context, module).unwrap().expect("the module is not planned yet");
    ir::verify::verify(context, &planned).unwrap();
    let compiled = plan_of(&planned).unwrap();
    compiled.plan.validate(&Zeros::of(&compiled)).unwrap();
    compiled
}

fn kernels(compiled: &Compiled) -> Vec<String> {
    let name = |kernel: &Kernel| serde_json::to_value(kernel).unwrap()["name"].as_str().unwrap().to_owned();
    compiled.plan.launches.iter().map(|launch| name(&launch.kernel)).collect()
}

/// Everything but the model, one line each.
fn lines(compiled: &Compiled) -> String {
    let mut text = String::new();
    for (index, buffer) in compiled.plan.buffers.iter().enumerate() {
        writeln!(text, "buffer {index} {} {} {:?} {}", buffer.dtype, buffer.cols, buffer.rows, buffer.name).unwrap();
    }
    for (index, state) in compiled.plan.states.iter().enumerate() {
        writeln!(text, "state {index} {:?} {} {:?} {}", state.kind, state.dtype, state.shape, state.name).unwrap();
    }
    for launch in &compiled.plan.launches {
        let Cost { fixed_bytes, row_bytes, sequence_bytes, row_ops } = launch.cost;
        writeln!(
            text,
            "{}: {fixed_bytes} + {row_bytes} rows + {sequence_bytes} sequences bytes, {row_ops} rows operations",
            launch.origin
        )
        .unwrap();
        writeln!(text, "  {}", serde_json::to_string(&launch.kernel).unwrap()).unwrap();
    }
    for parameter in &compiled.parameters {
        writeln!(text, "parameter {} = {}", parameter.name, serde_json::to_string(&parameter.expr).unwrap()).unwrap();
    }
    text
}

#[test]
fn plans_a_float_graph() {
    let context = ir::irdl::context();
    let compiled = compiled(&context, &imported(&context, SMALL));
    insta::assert_snapshot!(lines(&compiled));
}

#[test]
fn plans_every_phase_with_and_without_rotations() {
    for phase in [Phase::Reference, Phase::Conservative, Phase::Aggressive, Phase::Mixed] {
        for rotations in [None, Some(RotationKind::Hadamard), Some(RotationKind::RandomHadamard)] {
            let context = ir::irdl::context();
            let options = PipelineOptions { phase: Some(phase), rotations, ..PipelineOptions::default() };
            let planned = piped(&context, SMALL, &options);
            let compiled = plan_of(&planned).unwrap();
            compiled.plan.validate(&Zeros::of(&compiled)).unwrap();
            let names = kernels(&compiled);
            assert!(!names.contains(&"dequantize".to_owned()), "{names:?}");
        }
    }
}

#[test]
fn shares_one_launch_between_linears_of_one_input() {
    let context = ir::irdl::context();
    let compiled = compiled(&context, &imported(&context, SMALL));
    let origins: Vec<_> = compiled.plan.launches.iter().map(|launch| launch.origin.as_str()).collect();
    assert!(origins.contains(&"layers.0.mixer.in_proj.{z,xbc,dt}"), "{origins:?}");
    assert!(origins.contains(&"layers.2.mixer.{q_proj,k_proj,v_proj}"), "{origins:?}");
}

#[test]
fn keeps_memory_independent_of_the_number_of_layers() {
    let context = ir::irdl::context();
    let long =
        SMALL.replace("M-*-", "M-*-M-*-M-*-M-*-").replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 16");
    let short = compiled(&context, &imported(&context, SMALL));
    let long = compiled(&context, &imported(&context, &long));
    assert_eq!(short.plan.buffers, long.plan.buffers);
}

#[test]
fn gives_the_same_plan_for_every_naming_scheme() {
    let context = ir::irdl::context();
    let text = ir::module::print(&imported(&context, SMALL));
    let renamed = text.replace("backbone.norm_f.weight", "model.norm.weight").replace("backbone.", "model.");
    let renamed = ir::module::parse(&context, &renamed).unwrap();
    assert_eq!(compiled(&context, &renamed).plan, compiled(&context, &imported(&context, SMALL)).plan);
}

#[test]
fn refuses_a_module_that_is_not_planned() {
    let context = ir::irdl::context();
    let error = plan_of(&imported(&context, SMALL)).unwrap_err();
    assert!(matches!(error, Error::Stage { .. }), "{error}");
}

#[test]
fn refuses_launch_arguments_of_another_kernel() {
    let context = ir::irdl::context();
    let planned = LowerToPlan.run(&context, &imported(&context, SMALL)).unwrap().unwrap();
    let text = ir::module::print(&planned).replace("kernel = \"embed\"", "kernel = \"add\"");
    let error = plan_of(&ir::module::parse(&context, &text).unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("launch embeddings: missing field"), "{error}");
}
