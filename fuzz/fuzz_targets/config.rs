//! Any text as config.json and as generation_config.json: an error or a configuration whose sizes can be used.
#![no_main]

use frontend::{Checkpoint, Config};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(mut config) = Config::parse(text, "config.json") else {
        return;
    };
    let _ = config.apply_generation(text, "generation_config.json");
    // Forms every shape and sums them: overflow would panic.
    let checkpoint = Checkpoint::from_config(config);
    let analysis = frontend::Analysis::new(&checkpoint);
    assert_eq!(analysis.totals.parameters, checkpoint.parameters());
});
