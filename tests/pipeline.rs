//! The whole pipeline on whole models, from configurations alone.
//!
//! `tests/pipeline/*.snap` shows what each pass does to the first layer of each kind of the 8B model, and what each phase
//! makes of it; the other layers are alike. To accept new snapshots: `make bless`.

#[path = "support/ir_text.rs"]
mod ir_text;
#[path = "support/models.rs"]
mod models;

use ir::melior::Context;
use ir::melior::ir::Module;
use ir::module::ops;
use ir::ops::Op;
use ir::stage::Stage;
use ir::weights::RotationKind;
use ir_text::{difference, lines_where, readable_where};
use models::{CONFIGS, import, run};
use passes::{Phase, PipelineOptions};
use std::collections::HashMap;

const MODEL: &str = "nemotron-h-8b-base-8k";
/// The first Mamba-2, MLP and attention layers of [`MODEL`].
const SHOWN: [&str; 3] = ["layers.0", "layers.1", "layers.7"];

fn phase(phase: Phase) -> PipelineOptions {
    PipelineOptions { phase: Some(phase), ..PipelineOptions::default() }
}

fn rotated(phase: Phase) -> PipelineOptions {
    PipelineOptions { phase: Some(phase), rotations: Some(RotationKind::Hadamard), ..PipelineOptions::default() }
}

/// Whether `backbone.layers.1.norm.weight` is of `layers.1`.
fn is_of_layer(location: &str, layer: &str) -> bool {
    let rest = location.find("layers.").and_then(|start| location[start..].strip_prefix(layer));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The layers in [`SHOWN`] and what belongs to no layer.
fn shown(module: &Module<'_>) -> String {
    let is_shown =
        |location: &str| !location.contains("layers.") || SHOWN.iter().any(|layer| is_of_layer(location, layer));
    readable_where(&ir::module::print(module), is_shown)
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_description("the first of 24 Mamba-2, 24 MLP and 4 attention layers; the others of a kind are alike");
    settings.set_snapshot_path("pipeline");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// What follows `import` in the pipeline, up to `last`.
fn run_until<'c>(context: &'c Context, module: Module<'c>, options: &PipelineOptions, last: &str) -> Module<'c> {
    let mut passes = passes::pipeline(options);
    let end = passes.iter().position(|pass| pass.name() == last).unwrap() + 1;
    passes.truncate(end);
    run(context, module, passes)
}

#[test]
fn shows_what_each_pass_does_to_each_kind_of_layer() {
    let context = ir::irdl::context();
    let mut module = import(&context, MODEL);
    for (index, pass) in passes::pipeline(&rotated(Phase::Mixed)).into_iter().enumerate() {
        let (name, before) = (pass.name(), shown(&module));
        module = run(&context, module, vec![pass]);
        snapshot(&format!("{:02}-{name}", index + 1), &difference(&before, &shown(&module)));
    }
}

#[test]
fn shows_what_each_phase_makes_of_each_kind_of_layer() {
    let context = ir::irdl::context();
    for number in Phase::ALL {
        let module = run_until(&context, import(&context, MODEL), &phase(number), "fuse-conversions");
        snapshot(&format!("phase-{number}"), &shown(&module));
    }
}

/// Why it is enough to show the first layer of each kind.
#[test]
fn treats_every_layer_of_a_kind_alike() {
    let context = ir::irdl::context();
    let module = run_until(&context, import(&context, MODEL), &rotated(Phase::Mixed), "fuse-conversions");
    let text = ir::module::print(&module);
    let pattern = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-";
    let mut first = HashMap::new();
    for (layer, kind) in pattern.chars().enumerate() {
        let found = anonymous(&text, layer);
        assert!(!found.is_empty());
        let expected = first.entry(kind).or_insert_with(|| found.clone());
        assert!(found == *expected, "layer {layer}:\n{}", difference(expected, &found));
    }
}

/// The ops of one layer, without its number and names of values.
fn anonymous(text: &str, layer: usize) -> String {
    let dotted = format!("layers.{layer}");
    let ops = lines_where(text, |location| is_of_layer(location, &dotted));
    let ops = ops.replace(&format!("{dotted}."), "layers.N.").replace(&format!("layers_{layer}_"), "layers_N_");
    let mut parts = ops.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('%');
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

#[test]
fn plans_every_published_model_in_every_phase() {
    let context = ir::irdl::context();
    for model in CONFIGS {
        for number in Phase::ALL {
            let module = run(&context, import(&context, model), passes::pipeline(&phase(number)));
            assert_eq!(Stage::of(&module), Some(Stage::Planned), "{model}, phase {number}");
        }
    }
}

#[test]
fn leaves_only_online_rotations() {
    let context = ir::irdl::context();
    let module = run_until(&context, import(&context, MODEL), &rotated(Phase::Conservative), "fold-rotations");
    for op in ops(&module).unwrap() {
        let Op::Rotate(rotate) = op else { continue };
        let basis = rotate.basis();
        assert!(basis.ends_with(".out_proj") || basis.ends_with(".down_proj"), "{basis} is still rotated online");
        assert!(!rotate.transpose(), "{basis} is rotated back online");
    }
}

#[test]
fn leaves_no_conversion_at_any_block_border_in_phase_3() {
    let context = ir::irdl::context();
    for options in [phase(Phase::Mixed), rotated(Phase::Mixed)] {
        let module = run_until(&context, import(&context, MODEL), &options, "fuse-conversions");
        for op in ops(&module).unwrap() {
            let stands_alone = matches!(op, Op::Convert(_) | Op::Quantize(_) | Op::Dequantize(_) | Op::Add(_));
            assert!(!stands_alone, "{}", op.operation());
        }
    }
}
