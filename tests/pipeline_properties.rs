//! What holds for the pipeline on any model and any recipe.

#[path = "support/models.rs"]
mod models;

use frontend::{Checkpoint, Config, import::import};
use ir::melior::ir::Module;
use ir::module::{ops, parse, print};
use ir::ops::Op;
use ir::statistics::Statistics;
use ir::weights::{RotationKind, Rounding};
use models::{run, statistics};
use passes::recipe::{Alpha, KvCache, Override, Rotations, Smoothing, SsmState};
use passes::{Phase, PipelineOptions, Precision, Recipe, pipeline};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use std::sync::Arc;

/// The same cases in every run.
fn cases(count: u32) -> ProptestConfig {
    let seed = RngSeed::Fixed(8_100_852_736);
    ProptestConfig { cases: count, rng_seed: seed, failure_persistence: None, ..ProptestConfig::default() }
}

/// A small model of any pattern; sizes that are no power of two included.
fn config() -> impl Strategy<Value = Config> {
    let layers = proptest::collection::vec(select(vec!['M', '-', '*']), 1..6);
    (layers, select(vec![32, 96, 160]), select(vec![64, 224]), select(vec![1, 2]), any::<[bool; 2]>()).prop_map(
        |(layers, hidden, intermediate, groups, [tied, bias])| {
            let pattern: String = layers.iter().collect();
            let json = serde_json::json!({
                "model_type": "nemotron_h", "hidden_size": hidden, "hybrid_override_pattern": pattern,
                "num_hidden_layers": layers.len(), "vocab_size": 64, "attention_head_dim": 16, "conv_kernel": 4,
                "intermediate_size": intermediate, "layer_norm_epsilon": 1e-5, "mamba_head_dim": 16,
                "mamba_num_heads": 4, "n_groups": groups, "ssm_state_size": 16, "num_attention_heads": 4,
                "num_key_value_heads": 2, "tie_word_embeddings": tied, "torch_dtype": "bfloat16",
                "use_conv_bias": bias,
            });
            Config::parse(&json.to_string(), "config.json").unwrap()
        },
    )
}

fn precision() -> impl Strategy<Value = Precision> {
    select(vec![Precision::Float, Precision::W8a8, Precision::W4a8, Precision::W4a8Group])
}

/// Overrides match every model: `lm_head` and `embeddings` always exist.
fn overrides() -> impl Strategy<Value = Vec<Override>> {
    let rule = (select(vec!["lm_head", "embeddings", "^", "(proj|head)|embed", "a"]), precision());
    proptest::collection::vec(rule, 0..3).prop_map(|rules| {
        let rule = |(pattern, precision): (&str, _)| Override {
            pattern: pattern.to_owned(),
            precision: Some(precision),
            rounding: Some(Rounding::RtnAbsmax),
        };
        rules.into_iter().map(rule).collect()
    })
}

fn rotations() -> impl Strategy<Value = Rotations> {
    let kind = select(vec![None, Some(RotationKind::Hadamard), Some(RotationKind::RandomHadamard)]);
    (kind, any::<[bool; 5]>(), 0..100_u64).prop_map(|(kind, which, seed)| {
        let [residual, value_output, query_key, out_proj, down_proj] = which;
        Rotations { kind, residual, value_output, query_key, out_proj, down_proj, seed }
    })
}

/// Without norms: they cannot be smoothed in a rotated residual stream.
fn smoothing() -> impl Strategy<Value = Smoothing> {
    let pattern = select(vec!["down_proj", "o_proj", "out_proj", r"\.(down|out|o)_proj$", "nothing"]);
    (select(vec![None, Some(false), Some(true)]), 0.0..=1.0, pattern).prop_map(|(enabled, alpha, pattern)| Smoothing {
        enabled,
        alpha: Alpha::Share(alpha),
        pattern: pattern.to_owned(),
        ..Smoothing::default()
    })
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let kv_cache = select(vec![None, Some(KvCache::F16), Some(KvCache::F32), Some(KvCache::Int8)]);
    let ssm_state =
        select(vec![None, Some(SsmState::F32), Some(SsmState::F16), Some(SsmState::Bf16), Some(SsmState::Int8)]);
    let kept = (kv_cache, ssm_state);
    (select(Phase::ALL.to_vec()), select(vec![32, 128]), kept, overrides(), rotations(), smoothing()).prop_map(
        |(phase, group_size, (kv_cache, ssm_state), overrides, rotation, smooth)| Recipe {
            phase,
            group_size,
            kv_cache,
            ssm_state,
            overrides,
            rotation,
            smooth,
            ..Recipe::default()
        },
    )
}

fn options(recipe: &Recipe, statistics: &Arc<Statistics>) -> PipelineOptions {
    let (recipe, statistics) = (Some(recipe.clone()), Some(Arc::clone(statistics)));
    PipelineOptions { recipe, statistics, ..PipelineOptions::default() }
}

/// Name and precision of everything that has one.
fn precisions(module: &Module<'_>) -> Vec<(String, Option<String>)> {
    let found = ops(module).unwrap().into_iter().filter_map(|op| match op {
        Op::Linear(linear) => Some((linear.name(), linear.precision())),
        Op::Embed(embed) => Some((embed.name(), embed.precision())),
        _ => None,
    });
    found.collect()
}

/// The manager verifies after each pass and runs each again on its own result, which must change nothing.
#[test]
fn every_pass_leaves_legal_ir_that_it_keeps() {
    let context = ir::irdl::context();
    proptest!(cases(48), |(config in config(), recipe in recipe())| {
        let module = import(&context, &Checkpoint::from_config(config)).unwrap();
        let options = options(&recipe, &statistics(&module));
        run(&context, module, pipeline(&options));
    });
}

/// Text between two passes loses nothing that a later pass needs.
#[test]
fn every_pass_goes_on_from_text() {
    let context = ir::irdl::context();
    proptest!(cases(24), |(config in config(), recipe in recipe())| {
        let checkpoint = Checkpoint::from_config(config);
        let mut module = import(&context, &checkpoint).unwrap();
        for pass in pipeline(&options(&recipe, &statistics(&module))) {
            let read_back = parse(&context, &print(&module)).unwrap();
            let by_text = pass.run(&context, &read_back).unwrap().unwrap_or(read_back);
            let by_value = pass.run(&context, &module).unwrap().unwrap_or(module);
            prop_assert_eq!(print(&by_text), print(&by_value), "{}", pass.name());
            module = by_value;
        }
    });
}

#[test]
fn passes_keep_every_linear_and_its_precision_until_it_is_planned() {
    let context = ir::irdl::context();
    proptest!(cases(24), |(config in config(), recipe in recipe())| {
        let module = import(&context, &Checkpoint::from_config(config)).unwrap();
        let names: Vec<_> = precisions(&module).into_iter().map(|(name, _)| name).collect();
        let mut passes = pipeline(&options(&recipe, &statistics(&module)));
        passes.retain(|pass| pass.name() != "lower-to-plan");
        let end = passes.iter().position(|pass| pass.name() == "assign-precision").unwrap() + 1;
        let rest = passes.split_off(end);
        let assigned = run(&context, module, passes);
        let expected = precisions(&assigned);
        prop_assert_eq!(expected.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
        for (name, precision) in &expected {
            let precision = Precision::parse(precision.as_deref().unwrap()).unwrap();
            prop_assert!(!name.ends_with(".dt") || !precision.is_4_bit(), "{} runs in {}", name, precision);
        }
        let fused = run(&context, assigned, rest);
        let sorted = |mut all: Vec<(String, Option<String>)>| { all.sort(); all };
        prop_assert_eq!(sorted(precisions(&fused)), sorted(expected));
    });
}

#[test]
fn rotates_nothing_without_a_kind() {
    let context = ir::irdl::context();
    proptest!(cases(16), |(config in config(), recipe in recipe())| {
        let recipe = Recipe { rotation: Rotations { kind: None, ..recipe.rotation }, ..recipe };
        let module = import(&context, &Checkpoint::from_config(config)).unwrap();
        let options = options(&recipe, &statistics(&module));
        let module = run(&context, module, pipeline(&options));
        let is_rotation = |op: &Op<'_, '_>| matches!(op, Op::Rotate(_) | Op::RotateWeight(_));
        prop_assert!(!ops(&module).unwrap().iter().any(is_rotation));
    });
}
