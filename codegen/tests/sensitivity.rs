//! What weights cost, measured on the trained nano checkpoint, on a few tokens.

mod artifact;
mod nano;

use artifact::{artifact, device};
use codegen::calibrate::{Probing, Sensitivity, sensitivities, sequences};
use ir::weights::{RotationKind, StorageFormat, StoredWeight};
use nano::{compiled, nano, tokens};
use passes::{Phase, PipelineOptions, Recipe, pipeline, reference_pipeline};
use runtime::eval::mean_divergence;
use runtime::generate::logits;

const W4: StorageFormat = StorageFormat::W4TwoLevel { group_size: 128 };

fn measured(
    rotations: Option<RotationKind>,
    threads: usize,
    formats: &(dyn Fn(&StoredWeight) -> Vec<StorageFormat> + Sync),
) -> Vec<Sensitivity> {
    let checkpoint = nano();
    let options = PipelineOptions { phase: Some(Phase::Mixed), rotations, ..PipelineOptions::default() };
    let reference = compiled(&checkpoint, reference_pipeline(&options));
    let tokens = tokens();
    let sequences = sequences(&tokens, 4, 64, 0).unwrap();
    let probing = Probing { sequences: &sequences, probes: 2, output_stride: 1 };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (found, last, all) = pool.install(|| {
        let (mut last, mut all) = (0, 0);
        let mut progress = |done, total| (last, all) = (done, total);
        let formats = |weight: &StoredWeight| formats(weight);
        let found = sensitivities(&reference, &checkpoint, probing, &formats, &mut progress).unwrap();
        (found, last, all)
    });
    assert_eq!(last, all, "progress ends at its end");
    found
}

#[test]
fn more_bits_cost_more_bytes_and_less_divergence() {
    let formats = |weight: &StoredWeight| vec![W4, StorageFormat::W8, weight.format];
    let found = measured(Some(RotationKind::Hadamard), 2, &formats);
    let names: Vec<&str> = found.iter().map(|weight| weight.name.as_str()).collect();
    assert_eq!((names[0], *names.last().unwrap()), ("embeddings", "lm_head"));
    assert_eq!(names.len(), 40, "{names:?}");
    for weight in &found {
        let [four, eight, float] = weight.costs[..] else { panic!("{weight:?}") };
        assert!(four.bytes < eight.bytes && eight.bytes < float.bytes, "{weight:?}");
        assert!(four.divergence > 0.0 && eight.divergence < 0.05 * four.divergence, "{weight:?}");
        assert_eq!((float.output_error, float.divergence), (0.0, 0.0), "{weight:?}");
        assert!(four.output_error < 0.1, "{weight:?}");
    }
}

/// An embedding table has no input that is quantized with it, so an artifact with nothing else quantized shows the same,
/// but for the reference's table, which is bf16: rounded values lose their last bits in it, which is worth 1 % here.
#[test]
fn divergence_is_that_of_an_artifact_with_this_weight_alone_rounded() {
    let embedding = |weight: &StoredWeight| if weight.name == "embeddings" { vec![W4] } else { vec![] };
    let found = measured(None, 2, &embedding);
    assert_eq!(found.len(), 1);
    let recipe = "phase = 0\n[[override]]\nmatch = '^embeddings$'\nprecision = 'w4a8'";
    let (exact, rounded) = (predictions(""), predictions(recipe));
    let expected = mean_divergence(&exact, &rounded, nano().config().vocab_size);
    let divergence = found[0].costs[0].divergence;
    assert!((divergence - expected).abs() < 1e-2 * expected, "{divergence}, expected {expected}");
}

/// The logits of the model under a recipe, on the sequences that probe.
fn predictions(recipe: &str) -> Vec<f32> {
    let checkpoint = nano();
    let recipe = Recipe::parse(recipe, "recipe.toml").unwrap();
    let options = PipelineOptions { recipe: Some(recipe), ..PipelineOptions::default() };
    let compiled = compiled(&checkpoint, pipeline(&options));
    let artifact = artifact(&compiled, &checkpoint);
    let mut device = device(&artifact);
    let tokens = tokens();
    let sequences = sequences(&tokens, 4, 64, 0).unwrap();
    sequences[..2].iter().flat_map(|sequence| logits(&mut device, sequence, None).unwrap()).collect()
}

#[test]
fn does_not_depend_on_the_number_of_threads() {
    let some = |weight: &StoredWeight| {
        let is_measured = weight.name.contains("layers.4.") || weight.name == "lm_head";
        if is_measured { vec![W4, StorageFormat::W8] } else { vec![] }
    };
    let one = measured(Some(RotationKind::Hadamard), 1, &some);
    assert!(!one.is_empty());
    assert_eq!(one, measured(Some(RotationKind::Hadamard), 3, &some));
}
