//! Every fold of smoothing leaves the function of a float model unchanged, whatever the shapes and the statistics.
//!
//! Tolerance: 1e-4 relative in the 2-norm of a position's logits. Scaling and rotating round each weight once, to f32;
//! a factor that is missing on one side, or on the wrong channel, is off by orders of magnitude more.

mod artifact;

use artifact::{artifact, device};
use codegen::plan::{Compiled, plan_of};
use codegen::smoothing::{best, share_costs};
use codegen::weights::Calibrated;
use frontend::synth::{SynthOptions, synthesize};
use frontend::{Checkpoint, import::import};
use ir::manager::{Manager, Options};
use ir::melior::ir::Module;
use ir::module::{ops, type_of};
use ir::ops::Op;
use ir::statistics::{InputStatistics, Statistics};
use ir::types::NemoType;
use ir::weights::{RotationKind, WeightExpr};
use passes::recipe::{Alpha, Rotations, Smoothing};
use passes::{Phase, PipelineOptions, Recipe, pipeline};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use runtime::generate::logits;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

const TOLERANCE: f64 = 1e-4;
const TOKENS: [u32; 12] = [1, 17, 3, 42, 5, 63, 7, 0, 31, 2, 2, 29];

/// A small model: its configuration, and the seed of its weights and statistics.
#[derive(Clone, Debug)]
struct Model {
    config: String,
    seed: u64,
}

/// Layers of a pattern, of sizes that are mostly no powers of two; query heads share value heads.
fn model(pattern: &'static str) -> impl Strategy<Value = Model> {
    let sizes = (select(vec![32, 48, 80]), select(vec![64, 72, 224]), select(vec![8, 16, 24]));
    let heads = select(vec![(4, 1), (4, 2), (6, 2), (3, 3)]);
    (sizes, heads, select(vec![1, 2, 4]), 0..1000_u64).prop_map(move |(sizes, (heads, kv_heads), groups, seed)| {
        let (hidden, intermediate, head_dim) = sizes;
        let config = serde_json::json!({
            "model_type": "nemotron_h", "hidden_size": hidden, "hybrid_override_pattern": pattern,
            "num_hidden_layers": pattern.len(), "vocab_size": 64, "attention_head_dim": head_dim, "conv_kernel": 4,
            "intermediate_size": intermediate, "layer_norm_epsilon": 1e-5, "mamba_head_dim": 8,
            "mamba_num_heads": 8, "n_groups": groups, "ssm_state_size": 16, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
            "use_conv_bias": true,
        });
        Model { config: config.to_string(), seed }
    })
}

/// Statistics that differ by a factor of 256 from channel to channel, with channels that are always 0. They are not those
/// of the model, so smoothing makes ranges uneven instead of even; a rotation of channels that differ by much more
/// would lose the bits of the smaller ones in f32, which says nothing about the folds.
fn statistics(module: &Module<'_>, seed: u64) -> Statistics {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut inputs = BTreeMap::new();
    let mut covariances = BTreeMap::new();
    for op in ops(module).unwrap() {
        match op {
            Op::Embed(embed) => {
                let NemoType::Act(act) = type_of(embed.y()) else { panic!("the embedding gives no activation") };
                covariances.insert("residual".to_owned(), covariance(&mut random, act.cols));
            }
            Op::Attention(attention) => {
                let name = attention.name().replace(".mixer", ".v");
                covariances.insert(name, covariance(&mut random, attention.head_dim() as usize));
            }
            _ => {}
        }
        let Op::Linear(linear) = op else { continue };
        let NemoType::Weight(weight) = type_of(linear.weight()) else { panic!("{} has no weight", linear.name()) };
        let expr = WeightExpr::of(linear.weight()).unwrap();
        let mut value = || if random.random_bool(0.05) { 0.0 } else { random.random_range(-4.0_f32..4.0).exp2() };
        let absmax: Vec<f32> = (0..weight.cols).map(|_| value()).collect();
        let mean_square = absmax.iter().map(|value| value * value / 9.0).collect();
        inputs.insert(expr.tensor_name().to_owned(), InputStatistics { absmax, mean_square });
    }
    Statistics { model: String::new(), samples: 1, length: 512, seed, text: String::new(), inputs, covariances }
}

/// Of a few random vectors: most eigenvalues are 0.
fn covariance(random: &mut Pcg64Mcg, size: usize) -> Vec<f32> {
    let mut sum = vec![0.0; size * size];
    for _ in 0..5 {
        let x: Vec<f32> = (0..size).map(|_| random.random_range(-1.0_f32..1.0)).collect();
        sum.iter_mut().enumerate().for_each(|(at, sum)| *sum += x[at / size] * x[at % size]);
    }
    sum
}

fn compiled(checkpoint: &Checkpoint, recipe: &Recipe, statistics: Option<&Arc<Statistics>>) -> Compiled {
    let context = ir::irdl::context();
    let options =
        PipelineOptions { recipe: Some(recipe.clone()), statistics: statistics.cloned(), ..PipelineOptions::default() };
    let manager = Manager::new(pipeline(&options), Options { check_idempotence: true, ..Options::default() });
    let module = import(&context, checkpoint).unwrap();
    let (module, _) = manager.run(&context, module, &mut ()).unwrap_or_else(|error| panic!("{error}"));
    plan_of(&module).unwrap()
}

fn run(compiled: &Compiled, checkpoint: &Checkpoint, statistics: &Statistics) -> Vec<f32> {
    let source = Calibrated::new(checkpoint, statistics).with_klt(statistics, 3).unwrap();
    let artifact = artifact(compiled, &source);
    logits(&mut device(&artifact), &TOKENS, Some(7)).unwrap()
}

/// The largest relative error of any position.
fn worst(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |row: &mut dyn Iterator<Item = f64>| row.map(|x| x * x).sum::<f64>().sqrt();
    let error = |(found, expected): (&[f32], &[f32])| {
        let error = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        error / norm(&mut expected.iter().map(|b| f64::from(*b)))
    };
    let vocab = expected.len() / TOKENS.len();
    let errors: Vec<f64> = found.chunks(vocab).zip(expected.chunks(vocab)).map(error).collect();
    assert!(errors.iter().all(|error| error.is_finite()), "{errors:?}");
    errors.into_iter().fold(0.0, f64::max)
}

/// How many stored weights and parameters depend on factors.
fn scaled(compiled: &Compiled) -> usize {
    let weights = compiled.weights.iter().map(|weight| &weight.expr);
    let exprs = weights.chain(compiled.parameters.iter().map(|parameter| &parameter.expr));
    exprs.filter(|expr| format!("{expr:?}").contains("SmoothFactors")).count()
}

/// Checks models of a pattern; `folds` tensors must depend on factors.
fn keeps_the_function(pattern: &'static str, targets: &str, rotation: &Rotations, tensors: usize) {
    let smooth = Smoothing { enabled: Some(true), pattern: targets.to_owned(), ..Smoothing::default() };
    let config = ProptestConfig {
        cases: 12,
        rng_seed: RngSeed::Fixed(8_100_852_736),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(model in model(pattern), alpha in 0.0..1.0)| {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = synthetic(&model, folder.path());
        let context = ir::irdl::context();
        let statistics = Arc::new(statistics(&import(&context, &checkpoint).unwrap(), model.seed));
        let plain = Recipe::default();
        let smooth = Smoothing { alpha: Alpha::Share(alpha), ..smooth.clone() };
        let recipe = Recipe { smooth, rotation: rotation.clone(), ..Recipe::default() };
        let smoothed = compiled(&checkpoint, &recipe, Some(&statistics));
        prop_assert_eq!(scaled(&smoothed), tensors);
        let expected = run(&compiled(&checkpoint, &plain, None), &checkpoint, &statistics);
        let error = worst(&run(&smoothed, &checkpoint, &statistics), &expected);
        prop_assert!(error > 0.0 && error <= TOLERANCE, "relative error {:e}", error);
    });
}

/// What the search finds for a model of 4 and 8 bits.
fn searched(checkpoint: &Checkpoint, recipe: &Recipe, statistics: &Arc<Statistics>) -> BTreeMap<String, f64> {
    let recipe = Recipe { phase: Phase::Aggressive, group_size: 32, ..recipe.clone() };
    let Compiled { weights, parameters, .. } = compiled(checkpoint, &recipe, Some(statistics));
    let source = Calibrated::new(checkpoint, statistics);
    let shares = [0.0, 0.25, 0.5, 0.75, 1.0];
    let found = share_costs((&weights, &parameters), &source, statistics, &shares, &mut |_, _| ()).unwrap();
    found.into_iter().map(|found| (found.name, best(&found.costs).unwrap().alpha)).collect()
}

#[test]
fn alphas_that_were_searched_for_keep_the_function() {
    let config = ProptestConfig {
        cases: 8,
        rng_seed: RngSeed::Fixed(8_100_852_737),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let kinds = select(vec![None, Some(RotationKind::RandomHadamard)]);
    let seen = RefCell::new(BTreeSet::new());
    proptest!(config, |(model in model("M-*-"), kind in kinds)| {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = synthetic(&model, folder.path());
        let context = ir::irdl::context();
        let statistics = Arc::new(statistics(&import(&context, &checkpoint).unwrap(), model.seed));
        let pattern = r"\.(down_proj|o_proj|out_proj)$".to_owned();
        let smooth = Smoothing { enabled: Some(true), pattern, ..Smoothing::default() };
        let recipe = Recipe { smooth, rotation: Rotations { kind, ..Rotations::default() }, ..Recipe::default() };
        let alphas = searched(&checkpoint, &recipe, &statistics);
        prop_assert_eq!(alphas.len(), 4);
        seen.borrow_mut().extend(alphas.values().map(|alpha| (4.0 * alpha) as u32));
        let smooth = Smoothing { alpha: Alpha::Search, alphas: alphas.clone(), ..recipe.smooth.clone() };
        let smoothed = compiled(&checkpoint, &Recipe { smooth, ..recipe }, Some(&statistics));
        for (name, alpha) in alphas {
            let weight = smoothed.weights.iter().find(|weight| weight.name == name).unwrap();
            prop_assert!(format!("{:?}", weight.expr).contains(&format!("alpha: {alpha:?}")), "{} has another alpha", name);
        }
        let expected = run(&compiled(&checkpoint, &Recipe::default(), None), &checkpoint, &statistics);
        let error = worst(&run(&smoothed, &checkpoint, &statistics), &expected);
        prop_assert!(error > 0.0 && error <= TOLERANCE, "relative error {:e}", error);
    });
    assert!(seen.borrow().len() > 1, "every search gave the same alpha: {seen:?}");
}

fn synthetic(model: &Model, folder: &Path) -> Checkpoint {
    let config = folder.join("config.json");
    std::fs::write(&config, &model.config).unwrap();
    let checkpoint = folder.join("checkpoint");
    let options = SynthOptions { seed: model.seed, ..SynthOptions::default() };
    synthesize(&config, &checkpoint, &options, &mut |_, _| ()).unwrap();
    Checkpoint::open(&checkpoint).unwrap()
}

/// Everything that can be rotated offline and online.
fn rotations(kind: RotationKind) -> Rotations {
    Rotations { kind: Some(kind), ..Rotations::default() }
}

#[test]
fn smoothing_down_proj_through_relu2_keeps_the_function() {
    keeps_the_function("-M-", r"\.down_proj$", &Rotations::default(), 4);
}

#[test]
fn smoothing_o_proj_through_values_that_heads_share_keeps_the_function() {
    keeps_the_function("*-*", r"\.o_proj$", &Rotations::default(), 4);
}

#[test]
fn smoothing_out_proj_through_the_norm_of_the_mixer_keeps_the_function() {
    keeps_the_function("MM", r"\.out_proj$", &Rotations::default(), 4);
}

#[test]
fn smoothing_norms_into_all_that_reads_them_keeps_the_function() {
    // Five norms; z, xbc, dt; up; q, k, v; up; the head.
    keeps_the_function("M-*-", r"in_proj|up_proj|[qkv]_proj|lm_head", &Rotations::default(), 5 + 3 + 1 + 3 + 1 + 1);
}

#[test]
fn all_folds_at_once_keep_the_function() {
    // As above, and both sides of down_proj, o_proj and out_proj; up and v are counted already.
    keeps_the_function("M-*-", ".", &Rotations::default(), 14 + 2 + 1 + 2);
}

#[test]
fn smoothing_and_rotating_keep_the_function() {
    let rotations = rotations(RotationKind::RandomHadamard);
    keeps_the_function("M-*-", r"\.(down_proj|o_proj|out_proj)$", &rotations, 4 + 2 + 2);
}

#[test]
fn smoothing_and_rotating_by_covariances_keep_the_function() {
    keeps_the_function("M-*-", r"\.(down_proj|o_proj|out_proj)$", &rotations(RotationKind::Klt), 4 + 2 + 2);
}
