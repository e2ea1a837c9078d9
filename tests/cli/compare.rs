//! `nemoc compare`.

use crate::support::{nemoc, phase, refuses, stdout};
use serde_json::Value;
use tempfile::tempdir;

/// Enough of a text for one small window.
const TEXT: &str = "README.md";
const WINDOWS: [&str; 4] = ["--window", "64", "--windows", "1"];

fn compared(model: &str, reference: &str) -> Value {
    let run = [&["compare", model, reference, "--text", TEXT, "--json"], &WINDOWS[..]].concat();
    serde_json::from_str(&stdout(&run)).unwrap()
}

#[test]
fn a_model_does_not_diverge_from_itself_or_its_checkpoint() {
    for reference in [phase(0), "examples/nano"] {
        let report = compared(phase(0), reference);
        let found = &report["models"][0]["divergence"];
        assert!(found["mean_kl"].as_f64().unwrap() < 1e-9, "{found}");
        assert_eq!(found["top1_agreement"], 1.0);
        assert!(report["models"][0]["layer_errors"].as_array().unwrap().iter().all(|error| error == 0.0));
        assert_eq!(report["models"][0]["perplexity"], report["models"][1]["perplexity"]);
    }
}

#[test]
fn says_how_far_a_quantized_model_is_and_which_layers_did_it() {
    let report = compared(phase(1), "examples/nano");
    let found = &report["models"][0]["divergence"];
    let (mean, most) = (found["mean_kl"].as_f64().unwrap(), found["kl_p999"].as_f64().unwrap());
    assert!(0.0 < mean && mean < most && most < 1.0, "{found}");
    // Before each of 12 layers, and before the final norm.
    assert_eq!(report["models"][0]["layer_errors"].as_array().unwrap().len(), 13);
    let dir = tempdir().unwrap();
    let html = dir.path().join("report.html");
    let run = ["compare", phase(1), phase(0), "--text", TEXT, "--html", html.to_str().unwrap()];
    let text = stdout(&[&run, &WINDOWS[..]].concat());
    for part in ["perplexity", "mean KL", "KL 99.9 %", "same top 1", "embedding", "Mamba-2", "attention", "MLP"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(std::fs::read_to_string(&html).unwrap().contains("Error by layer"));
}

#[test]
fn rotates_a_residual_stream_back_before_it_is_compared() {
    let dir = tempdir().unwrap();
    let rotated = dir.path().join("rotated.nemo");
    for kind in ["hadamard", "random-hadamard"] {
        let rotated = rotated.to_str().unwrap();
        stdout(&["compile", "examples/nano", "--kernels", "none", "--phase", "0", "--rotations", kind, "-o", rotated]);
        let report = compared(rotated, phase(0));
        let errors = report["models"][0]["layer_errors"].as_array().unwrap();
        assert_eq!(errors.len(), 13);
        // Rounding to f32 in another basis; a stream that was not rotated back would be off by 100 % and more.
        assert!(errors.iter().all(|error| error.as_f64().unwrap() < 1e-4), "{errors:?}");
    }
}

#[test]
fn turns_a_residual_stream_whose_basis_follows_the_data_by_the_embeddings() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (statistics, float, quantized) = (path("statistics"), path("float.nemo"), path("8.nemo"));
    stdout(&["calibrate", "examples/nano", "--samples", "4", "--length", "64", "--covariance", "-o", &statistics]);
    let recipe = path("recipe.toml");
    let compile = ["compile", "examples/nano", "--kernels", "none", "--calibration", &statistics, "--recipe", &recipe];
    let klt = "phase = 1\nrounding = \"rtn\"\nrotation.kind = \"klt\"\n";
    let exact = format!("{klt}[[override]]\nmatch = \"\"\nprecision = \"float\"\n");
    for (output, text) in [(&float, exact.as_str()), (&quantized, klt)] {
        std::fs::write(&recipe, text).unwrap();
        stdout(&[&compile[..], &["-o", output]].concat());
    }
    let errors = |model: &str, reference: &str| -> Vec<f64> {
        let report = compared(model, reference);
        let errors = report["models"][0]["layer_errors"].as_array().unwrap();
        errors.iter().map(|error| error.as_f64().unwrap()).collect()
    };
    // A stream that was not turned would be off by 100 % and more.
    for (model, reference, most) in
        [(&float, phase(0), 0.01), (&quantized, phase(0), 0.1), (&quantized, &float[..], 0.1)]
    {
        let found = errors(model, reference);
        assert!(found.len() == 13 && found.iter().all(|error| *error > 0.0 && *error < most), "{found:?}");
    }
}

#[test]
fn refuses_what_cannot_be_compared() {
    refuses(&["compare", phase(0), "examples/nowhere.nemo", "--text", TEXT], &["examples/nowhere.nemo"]);
    refuses(&["compare", phase(0), phase(1), "--text", "nowhere.txt"], &["cannot read the text", "nowhere.txt"]);
    refuses(&["compare", phase(0), phase(1), "--text", TEXT, "--window", "1000000"], &["window"]);
    nemoc().args(["compare", phase(0)]).assert().code(2);
}
