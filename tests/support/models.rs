//! Whole models for tests of the compiler: published configurations, no weights.

use frontend::{Checkpoint, Config};
use ir::manager::{Manager, Options};
use ir::melior::Context;
use ir::melior::ir::Module;
use ir::module::{ops, type_of};
use ir::ops::Op;
use ir::pass::Pass;
use ir::statistics::{InputStatistics, Statistics};
use ir::types::NemoType;
use ir::weights::WeightExpr;
use std::path::Path;
use std::sync::Arc;

/// The published configurations under `examples/configs`.
#[allow(dead_code, reason = "not every test needs all of them")]
pub const CONFIGS: [&str; 6] = [
    "nemotron-h-4b-base-8k",
    "nemotron-h-8b-base-8k",
    "nemotron-h-47b-base-8k",
    "nemotron-h-56b-base-8k",
    "nvidia-nemotron-nano-9b-v2",
    "nvidia-nemotron-nano-12b-v2",
];

/// The graph of a published configuration.
#[allow(dead_code, reason = "some tests make configurations of their own")]
pub fn import<'c>(context: &'c Context, name: &str) -> Module<'c> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/configs").join(name);
    let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    frontend::import::import(context, &Checkpoint::from_config(config)).unwrap()
}

/// Statistics of every linear of an imported graph, all ones: passes do not look at the numbers.
#[allow(dead_code, reason = "not every test smooths")]
pub fn statistics(module: &Module<'_>) -> Arc<Statistics> {
    let measured = |op: Op<'_, '_>| {
        let Op::Linear(linear) = op else { return None };
        let NemoType::Weight(weight) = type_of(linear.weight()) else { return None };
        let ones = vec![1.0; weight.cols];
        let input = InputStatistics { absmax: ones.clone(), mean_square: ones };
        Some((WeightExpr::of(linear.weight())?.tensor_name().to_owned(), input))
    };
    let inputs = ops(module).unwrap().into_iter().filter_map(measured).collect();
    let (model, text) = (String::new(), String::new());
    Arc::new(Statistics { model, samples: 1, length: 512, seed: 0, text, inputs, covariances: Default::default() })
}

/// Runs passes; verifies after each, and that each leaves its own result alone.
#[allow(dead_code, reason = "some tests look between passes")]
pub fn run<'c>(context: &'c Context, module: Module<'c>, passes: Vec<Box<dyn Pass>>) -> Module<'c> {
    let options = Options { check_idempotence: true, ..Options::default() };
    match Manager::new(passes, options).run(context, module, &mut ()) {
        Ok((module, _)) => module,
        Err(error) => panic!("{error}"),
    }
}
