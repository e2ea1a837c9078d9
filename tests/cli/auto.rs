//! `nemoc compile --phase auto`.

use crate::support::{nano_copy, refuses, stderr, stdout};
use serde_json::Value;
use tempfile::tempdir;

const FEW: [&str; 4] = ["--calibration-samples", "4", "--calibration-length", "64"];
const AUTO: [&str; 6] = ["compile", "examples/nano", "--kernels", "none", "--phase", "auto"];

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number {pointer} in {value}"))
}

fn chosen(more: &[&str]) -> Value {
    let text = stdout(&[&AUTO[..], &FEW, &["--json"], more].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn loses_no_more_than_phase_3_in_its_bytes() {
    let folder = tempdir().unwrap();
    let output = folder.path().join("m.nemo");
    let found = chosen(&["-o", output.to_str().unwrap()]);
    assert!(number(&found, "/chosen/divergence") <= number(&found, "/phases/3/divergence"), "{found}");
    assert!(number(&found, "/phases/1/divergence") < number(&found, "/phases/2/divergence"), "{found}");
    let length = std::fs::metadata(&output).unwrap().len() as f64;
    assert!(length <= number(&found, "/budget"), "{length} bytes, {found}");
    assert!((length - number(&found, "/file_bytes")).abs() < 512.0, "{length} bytes, {found}");
    assert_eq!(found["linears"].as_array().unwrap().len(), 40);
    let inspected = stdout(&["inspect", output.to_str().unwrap()]);
    assert!(inspected.contains("phase      auto"), "{inspected}");
}

#[test]
fn more_bytes_lose_less_and_the_saved_recipe_takes_them_again() {
    let folder = tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    let recipe = recipe.to_str().unwrap();
    let budgets = ["4.8MiB", "6MiB", "9MiB"].iter().map(|budget| {
        let found = chosen(&["--plan-only", "--budget", budget, "--save-recipe", recipe]);
        let planned = number(&found, "/file_bytes");
        assert!(planned <= number(&found, "/budget"), "{found}");
        let again = stdout(&["compile", "examples/nano", "--recipe", recipe, "--plan-only"]);
        assert!(again.contains("planned artifact"), "{again}");
        number(&found, "/chosen/divergence")
    });
    let losses: Vec<f64> = budgets.collect();
    assert!(losses.is_sorted_by(|more, less| more > less), "{losses:?}");
    let saved = std::fs::read_to_string(recipe).unwrap();
    assert!(saved.starts_with("# nano: chosen by nemoc compile --phase auto --budget 9437184."), "{saved}");
    assert!(saved.contains("precision = \"float\""), "9 MiB leave room for floats: {saved}");
}

#[test]
fn shows_what_each_linear_would_lose() {
    let folder = tempdir().unwrap();
    let page = folder.path().join("page.html");
    let text =
        stdout(&[&AUTO[..], &FEW, &["--plan-only", "--budget", "6M", "--html", page.to_str().unwrap()]].concat());
    for part in ["layers.0.mixer.in_proj.z", "lm_head", "phase 3", "chosen", "best for its size", "of a budget of"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(text.contains("planned artifact"), "compile goes on after the choice:\n{text}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<polyline class=\"front\"") && page.contains("phase 2</text>") && !page.contains("NaN"));
}

#[test]
fn keeps_what_a_recipe_says_by_name() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, "[[override]]\nmatch = '^lm_head$'\nprecision = 'w4a8-group'\n").unwrap();
    let found = chosen(&["--plan-only", "--recipe", path.to_str().unwrap()]);
    let linears = found["linears"].as_array().unwrap();
    let head = linears.iter().find(|linear| linear["name"] == "lm_head").unwrap();
    assert_eq!(head["chosen"], "w4a8-group");
    assert_eq!(head["forms"].as_array().unwrap().len(), 1);
}

#[test]
fn refuses_what_it_cannot_measure_or_reach() {
    refuses(
        &[&AUTO[..], &FEW, &["--plan-only", "--budget", "1MiB"]].concat(),
        &["a budget of 1,048,576 bytes is too small: the artifact takes ", "help: raise --budget"],
    );
    let blind = [&AUTO[..], &["--plan-only", "--calibration", "none"]].concat();
    refuses(&blind, &["nothing to measure it on", "help: do not switch calibration off"]);
    let folder = tempdir().unwrap();
    let nano = nano_copy(folder.path());
    for entry in std::fs::read_dir(&nano).unwrap() {
        let path = entry.unwrap().path();
        let is_weight = path.extension().is_some_and(|extension| extension == "safetensors");
        if is_weight || path.ends_with("model.safetensors.index.json") {
            std::fs::remove_file(path).unwrap();
        }
    }
    refuses(&["compile", nano.to_str().unwrap(), "--phase", "auto", "--plan-only"], &["help: "]);
}

#[test]
fn says_what_goes_with_what() {
    let message = stderr(2, &["compile", "examples/nano", "--phase", "3", "--plan-only", "--budget", "5G"]);
    assert!(message.contains("--budget is for --phase auto"), "{message}");
    let message = stderr(2, &["opt", "examples/nano/config.json", "--phase", "auto"]);
    assert!(message.contains("does not have") && message.contains("--save-recipe"), "{message}");
    let message = stderr(2, &["compile", "examples/nano", "--phase", "4", "--plan-only"]);
    assert!(message.contains("expected 0, 1, 2 or 3, or auto"), "{message}");
}
