//! Whole models for tests of the compiler: published configurations, no weights.

use frontend::{Checkpoint, Config};
use ir::manager::{Manager, Options};
use ir::melior::Context;
use ir::melior::ir::Module;
use ir::pass::Pass;
use std::path::Path;

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

/// Runs passes; verifies after each, and that each leaves its own result alone.
pub fn run<'c>(context: &'c Context, module: Module<'c>, passes: Vec<Box<dyn Pass>>) -> Module<'c> {
    let options = Options { check_idempotence: true, ..Options::default() };
    match Manager::new(passes, options).run(context, module, &mut ()) {
        Ok((module, _)) => module,
        Err(error) => panic!("{error}"),
    }
}
