//! `nemoc calibrate`, and what `nemoc compile` does with a text.

use crate::support::{nemoc, refuses, stdout};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use tempfile::tempdir;

#[test]
fn writes_the_same_statistics_for_the_same_seed() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let calibrate = |seed: &str, to: &str| {
        let options = ["--samples", "4", "--length", "64", "--seed", seed, "-o", to];
        stdout(&[&["calibrate", "examples/nano"], &options[..]].concat())
    };
    let text = calibrate("1", &path("a"));
    assert!(text.contains("256 tokens"), "{text}");
    calibrate("1", &path("b"));
    calibrate("2", &path("c"));
    let read = |name: &str| std::fs::read(path(name)).unwrap();
    assert!(read("a") == read("b"));
    assert!(read("a") != read("c"));
}

#[test]
fn compiles_with_calibrated_weights_unless_told_otherwise() {
    let dir = tempdir().unwrap();
    let output = dir.path().join("m.nemo");
    let output = output.to_str().unwrap();
    let few = ["--calibration-samples", "4", "--calibration-length", "64"];
    let compile = ["compile", "--kernels", "none", "examples/nano", "--phase", "3", "-o", output];
    let text = stdout(&[&compile[..], &few[..]].concat());
    assert!(text.contains("weights rounded by GPTQ on 256 tokens"), "{text}");
    let inspected = stdout(&["inspect", output]);
    assert!(inspected.contains("gptq on 4 x 64 tokens, seed 0, text xxh3:"), "{inspected}");
    stdout(&["run", output, "--prompt", "The river", "--max-tokens", "3"]);
}

#[test]
fn rotates_by_the_covariances_that_it_measures() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (plain, with, output) = (path("plain"), path("with"), path("m.nemo"));
    let calibrate = ["calibrate", "examples/nano", "--samples", "4", "--length", "64", "-o"];
    stdout(&[&calibrate[..], &[&plain]].concat());
    stdout(&[&calibrate[..], &[&with, "--covariance"]].concat());
    let few = ["--calibration-samples", "4", "--calibration-length", "64"];
    let compile =
        ["compile", "--kernels", "none", "examples/nano", "--phase", "1", "--rotations", "klt", "-o", &output];
    let compile = [&compile[..], &few].concat();
    refuses(&[&compile[..], &["--calibration", &plain]].concat(), &["need covariances", "help: ", "--covariance"]);
    refuses(&[&compile[..], &["--calibration", "none"]].concat(), &["klt follow covariances", "help: "]);
    stdout(&[&compile[..], &["--calibration", &with]].concat());
    let read = |path: &str| std::fs::read(path).unwrap();
    let given = read(&output);
    stdout(&compile);
    assert!(given == read(&output), "measured by compile and by calibrate are the same");
    let inspected = stdout(&["inspect", &output]);
    assert!(inspected.contains("insert-rotations (kind klt, seed 0)"), "{inspected}");
    stdout(&["run", &output, "--prompt", "The river", "--max-tokens", "3"]);
}

#[test]
fn refuses_a_text_that_is_too_short() {
    let dir = tempdir().unwrap();
    let (text, output) = (dir.path().join("t.txt"), dir.path().join("s.safetensors"));
    std::fs::write(&text, "A few words.").unwrap();
    let (text, output) = (text.to_str().unwrap(), output.to_str().unwrap());
    refuses(&["calibrate", "examples/nano", "--text", text, "-o", output], &["calibration text has", "help: "]);
    let missing = ["calibrate", "examples/nano", "--text", "no/such/text", "-o", output];
    refuses(&missing, &["cannot read the text", "no/such/text", "help: "]);
    assert!(!std::path::Path::new(output).exists());
}

#[test]
fn says_that_a_checkpoint_without_tokenizer_is_rounded_to_nearest() {
    let dir = tempdir().unwrap();
    let nano = crate::support::nano_copy(dir.path());
    std::fs::remove_file(nano.join("tokenizer.json")).unwrap();
    let output = dir.path().join("m.nemo");
    let compile = ["compile", "--kernels", "none", nano.to_str().unwrap(), "--phase", "1", "-o"];
    let assert = nemoc().args(compile).arg(&output).assert().success();
    assert.stderr(contains("no tokenizer.json to calibrate with: weights are rounded to nearest"));
}

#[test]
fn refuses_a_gpu_that_is_not_there() {
    let dir = tempdir().unwrap();
    let output = dir.path().join("out");
    let output = output.to_str().unwrap();
    let calibrate = ["calibrate", "examples/nano", "-o", output];
    refuses(&[&calibrate[..], &["--device", "cuda:99"]].concat(), &["CUDA failed", "help: "]);
    refuses(&[&calibrate[..], &["--device", "cpu", "--gpu", "0"]].concat(), &["contradicts --device", "help: "]);
    let compile = ["compile", "examples/nano", "--phase", "2", "--kernels", "none", "-o", output];
    refuses(&[&compile[..], &["--device", "cuda:99"]].concat(), &["CUDA failed", "help: "]);
    assert!(!std::path::Path::new(output).exists());
}

#[test]
fn rounds_as_the_recipe_says() {
    let dir = tempdir().unwrap();
    let (recipe, output) = (dir.path().join("r.toml"), dir.path().join("m.nemo"));
    let (path, output) = (recipe.to_str().unwrap(), output.to_str().unwrap());
    let compile = ["compile", "--kernels", "none", "examples/nano", "--recipe", path, "-o", output];
    let few = [&compile[..], &["--calibration-samples", "4", "--calibration-length", "64"]].concat();
    std::fs::write(&recipe, "phase = 1\nrounding = 'rtn'\n").unwrap();
    assert!(stdout(&few).contains("no weight is rounded by GPTQ"));
    let inspected = stdout(&["inspect", output]);
    assert!(inspected.contains("activations measured on 4 x 64 tokens"), "{inspected}");
    std::fs::write(&recipe, "phase = 1\nrounding = 'rtn'\n[[override]]\nmatch = 'down_proj'\nrounding = 'gptq'\n")
        .unwrap();
    let assert = nemoc().args(&few).arg("--time-rounding").assert().success();
    let assert = assert.stdout(contains("calibrated: 5 weights rounded by GPTQ"));
    assert.stderr(contains("factor").and(contains("layers.1.mixer.down_proj")).and(contains("total")));
    refuses(&[&compile[..], &["--calibration", "none"]].concat(), &["rounds by gptq", "no calibration", "help: "]);
}

#[test]
fn searches_for_the_alpha_of_each_layer_and_keeps_it_in_the_recipe() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (recipe, output, ir) = (path("r.toml"), path("m.nemo"), path("ir"));
    std::fs::write(&recipe, "phase = 2\nrounding = 'rtn'\n[smooth]\nalpha = 'search'\n").unwrap();
    let compile = ["compile", "--kernels", "none", "examples/nano", "--recipe", &recipe, "-o", &output];
    let few = ["--calibration-samples", "4", "--calibration-length", "64", "--dump-ir", &ir];
    let found = stdout(&[&compile[..], &few].concat());
    assert!(found.contains("alpha of smoothing") && found.contains("layers.1.mixer.down_proj"), "{found}");
    let stored = std::fs::read(&output).unwrap();
    let stored = String::from_utf8_lossy(&stored);
    assert!(stored.contains("[smooth.alphas]") && stored.contains("alpha = 0.5"), "the recipe has no alphas");
    let dumped = std::fs::read_dir(&ir).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let smoothed = dumped.filter(|text| text.contains("nemo.smooth_factors")).count();
    assert!(smoothed > 0, "no module has factors");
    let none = ["--calibration", "none"];
    nemoc().args([&compile[..], &none].concat()).assert().success().stderr(contains("alpha is not searched for"));
}

#[test]
fn refuses_statistics_of_other_weights_of_the_same_shape() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let few = ["--samples", "4", "--length", "64", "-o", &path("s")];
    stdout(&[&["calibrate", "examples/nano"], &few[..]].concat());
    let other = crate::support::nano_copy(dir.path());
    let weights = other.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let (other, statistics, output) = (other.to_str().unwrap(), path("s"), path("m.nemo"));
    let compile = ["compile", "--kernels", "none", "--phase", "1", "--calibration", &statistics, "-o", &output];
    let seen = ["--calibration-samples", "4", "--calibration-length", "64"];
    let refused = ["the statistics are of the model xxh3:", "help: ", "belong to one checkpoint"];
    refuses(&[&compile[..], &seen, &[other]].concat(), &refused);
    stdout(&[&compile[..], &seen, &["examples/nano"]].concat());
}
