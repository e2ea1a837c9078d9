//! What the compiler rewrites keeps the numbers: plans with and without fusion, with and without rotations, on the
//! trained nano checkpoint and the CPU.

mod artifact;

use artifact::{artifact, device};
use codegen::plan::{Compiled, plan_of};
use frontend::{Checkpoint, import::import};
use ir::manager::{Manager, Options};
use ir::weights::RotationKind;
use passes::{Phase, PipelineOptions, pipeline};
use runtime::device::{Device as _, Outputs, SequenceChunk};
use std::path::Path;

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/nano");
/// Token ids of no meaning, within the vocabulary.
const TOKENS: [u32; 24] =
    [1, 17, 300, 42, 5, 99, 7, 256, 31, 64, 128, 2, 77, 401, 13, 8, 21, 34, 55, 89, 144, 233, 377, 10];

/// The plan of nano, without the passes named in `without`.
fn compiled(checkpoint: &Checkpoint, options: &PipelineOptions, without: &[&str]) -> Compiled {
    let context = ir::irdl::context();
    let module = import(&context, checkpoint).unwrap();
    let mut passes = pipeline(options);
    passes.retain(|pass| !without.contains(&pass.name()));
    let (module, _) = Manager::new(passes, Options::default()).run(&context, module, &mut ()).unwrap();
    plan_of(&module).unwrap()
}

fn logits(checkpoint: &Checkpoint, compiled: &Compiled) -> Vec<f32> {
    let artifact = artifact(compiled, checkpoint);
    let mut device = device(&artifact);
    let slot = device.create_slot().unwrap();
    // In two steps, so that states are carried over.
    let (first, second) = TOKENS.split_at(15);
    let mut all = Vec::new();
    for tokens in [first, second] {
        let batch = [SequenceChunk { slot, tokens, outputs: Outputs::All }];
        all.extend_from_slice(device.step(&batch).unwrap().values);
    }
    all
}

/// The largest difference, relative to the largest value of `b`.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let worst = a.iter().zip(b).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
    worst / largest
}

fn options(phase: Phase, rotations: Option<RotationKind>) -> PipelineOptions {
    PipelineOptions { phase: Some(phase), rotations, ..PipelineOptions::default() }
}

#[test]
fn fusing_keeps_every_bit_and_saves_launches() {
    let checkpoint = Checkpoint::open(Path::new(NANO)).unwrap();
    for phase in [Phase::Reference, Phase::Conservative, Phase::Aggressive, Phase::Mixed] {
        for rotations in [None, Some(RotationKind::Hadamard)] {
            let options = options(phase, rotations);
            let fused = compiled(&checkpoint, &options, &[]);
            let plain = compiled(&checkpoint, &options, &["fuse-conversions"]);
            let (few, many) = (fused.plan.launches.len(), plain.plan.launches.len());
            assert!(few < many, "{few} launches, {many} without fusion");
            let (fused, plain) = (logits(&checkpoint, &fused), logits(&checkpoint, &plain));
            assert!(fused == plain, "{phase:?} {rotations:?}: {:e}", difference(&fused, &plain));
        }
    }
}

#[test]
fn rotating_a_float_model_keeps_the_numbers() {
    let checkpoint = Checkpoint::open(Path::new(NANO)).unwrap();
    let plain = logits(&checkpoint, &compiled(&checkpoint, &options(Phase::Reference, None), &[]));
    for kind in [RotationKind::Hadamard, RotationKind::RandomHadamard] {
        let rotated = logits(&checkpoint, &compiled(&checkpoint, &options(Phase::Reference, Some(kind)), &[]));
        // Each logit is a sum of a few hundred products, rounded to f32 in another basis.
        let worst = difference(&rotated, &plain);
        assert!(worst > 0.0 && worst < 1e-5, "{kind:?}: {worst:e}");
    }
}
