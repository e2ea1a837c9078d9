//! The e-graph passes on the true 8B graph, from its configuration alone.

use frontend::{Checkpoint, Config, import::import};
use ir::melior::{Context, ir::Module};
use ir::module::ops;
use ir::ops::Op;
use ir::pass::Pass;
use ir::weights::RotationKind;
use passes::cost::TARGETS;
use passes::egraph::Report;
use passes::{FuseConversions, Phase, PipelineOptions, pipeline};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/configs/nemotron-h-8b-base-8k/config.json");

/// The graph after the passes of the pipeline before `stop`.
fn graph<'c>(context: &'c Context, phase: Phase, rotations: Option<RotationKind>, stop: &str) -> Module<'c> {
    let text = std::fs::read_to_string(CONFIG).unwrap();
    let checkpoint = Checkpoint::from_config(Config::parse(&text, "config.json").unwrap());
    let options = PipelineOptions { phase: Some(phase), rotations, ..PipelineOptions::default() };
    let mut module = import(context, &checkpoint).unwrap();
    for pass in pipeline(&options) {
        if pass.name() == stop {
            break;
        }
        if let Some(new) = pass.run(context, &module).unwrap() {
            ir::verify::verify(context, &new).unwrap();
            module = new;
        }
    }
    module
}

fn count(module: &Module<'_>, is: impl Fn(&Op<'_, '_>) -> bool) -> usize {
    ops(module).unwrap().iter().filter(|op| is(op)).count()
}

#[test]
fn leaves_no_conversion_by_itself_in_phase_3() {
    let context = ir::irdl::context();
    for rotations in [None, Some(RotationKind::RandomHadamard)] {
        let before = graph(&context, Phase::Mixed, rotations, "fuse-conversions");
        let converts = count(&before, |op| matches!(op, Op::Convert(_)));
        // Where a Mamba layer begins and ends, and in front of its dt.
        assert_eq!(converts, 3 * 24);
        let after = graph(&context, Phase::Mixed, rotations, "lower-to-plan");
        let left = count(&after, |op| {
            matches!(
                op,
                Op::Convert(_) | Op::Quantize(_) | Op::Dequantize(_) | Op::Rotate(_) | Op::Add(_) | Op::Relu2(_)
            )
        });
        assert_eq!(left, 0);
        assert_eq!(count(&after, |op| matches!(op, Op::Mixer(_))), 24);
        assert_eq!(count(&after, |op| matches!(op, Op::Map(_))), 24);
    }
}

#[test]
fn leaves_only_online_rotations() {
    let context = ir::irdl::context();
    for kind in [RotationKind::Hadamard, RotationKind::RandomHadamard] {
        let before = graph(&context, Phase::Mixed, Some(kind), "fold-rotations");
        let after = graph(&context, Phase::Mixed, Some(kind), "insert-qdq");
        assert!(count(&before, |op| matches!(op, Op::Rotate(_))) > 200);
        for op in ops(&after).unwrap() {
            let Op::Rotate(rotate) = op else { continue };
            let online = rotate.basis().ends_with("out_proj") || rotate.basis().ends_with("down_proj");
            assert!(online && !rotate.transpose(), "{} {}", rotate.basis(), rotate.transpose());
        }
        // One in front of each out_proj and down_proj.
        assert_eq!(count(&after, |op| matches!(op, Op::Rotate(_))), 48);
    }
}

fn report(context: &Context, target: usize) -> Report {
    let module = graph(context, Phase::Mixed, Some(RotationKind::Hadamard), "fuse-conversions");
    let pass = FuseConversions::new(TARGETS[target]);
    pass.run(context, &module).unwrap().expect("the graph is not fused yet");
    pass.report().unwrap()
}

#[test]
fn reports_what_each_choice_beat() {
    let context = ir::irdl::context();
    let report = report(&context, 0);
    for region in &report.regions {
        let chosen = region.chosen.as_ref().unwrap();
        let runner_up = region.runner_up.as_ref().unwrap();
        assert!(chosen.seconds <= runner_up.seconds, "{region}");
        assert_ne!(chosen.terms, runner_up.terms, "{region}");
    }
    let (before, after) = (report.before.unwrap(), report.after.unwrap());
    assert!(after.seconds < before.seconds && 2 * after.launches < before.launches, "{before:?} {after:?}");
    // Layers of one shape are decided once.
    let places: usize = report.regions.iter().map(|region| region.places.len()).sum();
    assert!(report.regions.len() < 20 && places > 150, "{} shapes of {places} regions", report.regions.len());
}

#[test]
fn decides_the_same_every_time() {
    let context = ir::irdl::context();
    let again = ir::irdl::context();
    assert_eq!(report(&context, 0).to_string(), report(&again, 0).to_string());
}

#[test]
fn predicts_slower_steps_on_smaller_gpus() {
    let context = ir::irdl::context();
    let seconds = |target| report(&context, target).after.unwrap().seconds;
    assert!(seconds(1) > seconds(0));
}

#[test]
fn keeps_what_it_has_fused() {
    let context = ir::irdl::context();
    let fused = graph(&context, Phase::Mixed, Some(RotationKind::Hadamard), "lower-to-plan");
    assert!(FuseConversions::default().run(&context, &fused).unwrap().is_none());
}
