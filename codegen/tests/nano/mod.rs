//! The trained nano checkpoint and some of its calibration text.

use codegen::plan::{Compiled, plan_of};
use frontend::{Checkpoint, import::import};
use ir::manager::{Manager, Options};
use ir::pass::Pass;
use runtime::generate::Tokenizer;
use std::path::Path;

pub const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/nano");
const TEXT: &str = include_str!("../../../src/calibrate/text.txt");

pub fn nano() -> Checkpoint {
    Checkpoint::open(Path::new(NANO)).unwrap()
}

pub fn compiled(checkpoint: &Checkpoint, passes: Vec<Box<dyn Pass>>) -> Compiled {
    let context = ir::irdl::context();
    let module = import(&context, checkpoint).unwrap();
    let (module, _) = Manager::new(passes, Options::default()).run(&context, module, &mut ()).unwrap();
    plan_of(&module).unwrap()
}

/// Of the first 6000 bytes of the text.
pub fn tokens() -> Vec<u32> {
    let tokenizer = std::fs::read(Path::new(NANO).join("tokenizer.json")).unwrap();
    Tokenizer::from_bytes(&tokenizer).unwrap().encode(&TEXT[..6000]).unwrap()
}
