//! How states are kept, from the recipe to the run.

use crate::support::{nemoc, phase, plain_compile, stdout};
use serde_json::Value;
use std::path::Path;
use tempfile::{TempDir, tempdir};

fn compiled(recipe: &str) -> (TempDir, String) {
    let dir = tempdir().unwrap();
    let (file, model) = (dir.path().join("r.toml"), dir.path().join("m.nemo"));
    std::fs::write(&file, recipe).unwrap();
    let (file, model) = (file.to_str().unwrap(), model.to_str().unwrap().to_owned());
    stdout(&plain_compile(&["examples/nano", "--recipe", file, "-o", &model]));
    (dir, model)
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(arguments)).unwrap()
}

/// Bytes of states and of keys and values of one sequence of 1024 tokens.
fn needs(model: &str) -> (u64, u64) {
    let plan = json(&["plan-memory", model, "--gpu", "h100", "--context", "1024", "--json"]);
    (plan["needs"]["states"].as_u64().unwrap(), plan["needs"]["kv"].as_u64().unwrap())
}

#[test]
fn a_recipe_decides_how_states_are_kept_and_what_they_need() {
    let (_dir, model) = compiled("phase = 0\nkv_cache = 'int8'\nssm_state = 'f16'");
    let states = json(&["inspect", &model, "--json"])["states"].clone();
    for state in states.as_array().unwrap() {
        let expected = match state["kind"].as_str().unwrap() {
            "kv" => "i8",
            "ssm" => "f16",
            _ => "f32",
        };
        assert_eq!(state["dtype"], expected, "{state}");
    }
    let (wide, narrow) = (needs(phase(0)), needs(&model));
    assert!(narrow.0 < wide.0 * 6 / 10, "{narrow:?} {wide:?}");
    // An f32 scale for each head of 64 values: 68 bytes instead of 256.
    assert_eq!(narrow.1 * 256, wide.1 * 68, "{narrow:?} {wide:?}");
    let moved = |model| -> u64 {
        let plan = json(&["inspect", model, "--plan", "--json"]);
        let launches = plan["plan"]["launches"].as_array().unwrap();
        launches.iter().map(|launch| launch["cost"]["sequence_bytes"].as_u64().unwrap()).sum()
    };
    assert_eq!(moved(&model), 2 * narrow.0, "states are read and written once a step");
}

#[test]
fn a_model_with_narrow_states_runs_and_stays_near_the_one_with_wide_ones() {
    let (_dir, model) = compiled("phase = 0\nkv_cache = 'int8'\nssm_state = 'int8'");
    let run = ["compare", &model, phase(0), "--text", "README.md", "--window", "300", "--windows", "1", "--json"];
    let divergence = |chunk| json(&[&run[..], &["--chunk", chunk]].concat())["models"][0]["divergence"].clone();
    let (prefill, steps) = (divergence("512"), divergence("1"));
    let mean = |found: &Value| found["mean_kl"].as_f64().unwrap();
    assert!(0.0 < mean(&prefill) && mean(&prefill) < mean(&steps) && mean(&steps) < 0.1, "{prefill} {steps}");
    let ranges = steps["by_position"].as_array().unwrap();
    assert_eq!(ranges.len(), 2);
    assert_eq!((&ranges[1]["start"], &ranges[1]["end"]), (&Value::from(256), &Value::from(300)));
    let table = nemoc().args(&run[..run.len() - 1]).assert().success().get_output().stdout.clone();
    assert!(String::from_utf8(table).unwrap().contains("positions of a window"));
}

#[test]
fn a_million_tokens_of_the_8b_model_fit_9_gigabytes_of_int8() {
    let dir = tempdir().unwrap();
    let recipe = dir.path().join("r.toml");
    std::fs::write(&recipe, "phase = 3\nkv_cache = 'int8'").unwrap();
    let config = Path::new("examples/configs/nemotron-h-8b-base-8k");
    let run = ["compile", config.to_str().unwrap(), "--plan-only", "--recipe", recipe.to_str().unwrap()];
    // 4 layers, keys and values, 8 heads of 128 values and a scale: 8448 bytes a token.
    assert!(stdout(&run).contains("8.25 KiB for each token"), "{}", stdout(&run));
}
