//! Scores agree with lm-evaluation-harness: `harness/expected*.json` hold what it says, run through Hugging Face
//! transformers on `examples/nano`; `harness/run_harness.py` makes the files.
//!
//! The default test scores the first documents of each task; `cargo test --test harness -- --ignored` all of them.

use assert_cmd::Command;
use serde_json::Value;
use std::path::Path;
use tempfile::tempdir;

/// f32 in two implementations, summed over up to a hundred tokens.
const TOLERANCE: f64 = 1e-3;

const TASKS: [&str; 6] = ["arc_easy", "arc_challenge", "hellaswag", "piqa", "winogrande", "lambada_openai"];

#[test]
fn scores_the_first_documents_as_the_harness_does() {
    compare("expected.json", Some(20), &[]);
}

#[test]
fn draws_and_scores_examples_as_the_harness_does() {
    compare("expected-fewshot.json", Some(10), &["--num-fewshot", "3", "--examples", "tests/harness/data"]);
}

#[test]
#[ignore = "a minute of computing"]
fn scores_every_document_as_the_harness_does() {
    compare("expected.json", None, &[]);
}

fn compare(file: &str, limit: Option<usize>, extra: &[&str]) {
    let expected = expected(file);
    let found = found(limit, extra);
    for task in TASKS {
        let (expected, found) = (&expected["results"][task], &found["results"][task]);
        let samples = list(&expected["samples"]);
        let count = limit.unwrap_or(samples.len());
        assert_eq!(list(&found["samples"]).len(), count, "{task}");
        for (expected, found) in samples.iter().zip(list(&found["samples"])) {
            agree(task, expected, found);
        }
        if limit.is_none() {
            for metric in ["acc", "acc_norm", "acc_stderr", "acc_norm_stderr"] {
                close(&format!("{task} {metric}"), &expected[metric], &found[metric], 1e-9);
            }
            if task == "lambada_openai" {
                let relative = 1e-4 * expected["perplexity"].as_f64().unwrap();
                close("perplexity", &expected["perplexity"], &found["perplexity"], relative);
            }
        }
    }
}

/// One document: every log-likelihood and every decision.
fn agree(task: &str, expected: &Value, found: &Value) {
    let id = &expected["id"];
    assert_eq!(found["id"], *id, "{task}");
    for key in ["acc", "acc_norm", "greedy"] {
        assert_eq!(found[key], expected[key], "{key} of {id} in {task}");
    }
    let (found, expected) = (list(&found["loglikelihoods"]), list(&expected["loglikelihoods"]));
    assert_eq!(found.len(), expected.len(), "choices of {id} in {task}");
    for (choice, (found, expected)) in found.iter().zip(expected).enumerate() {
        close(&format!("choice {choice} of {id} in {task}"), expected, found, TOLERANCE);
    }
}

fn close(what: &str, expected: &Value, found: &Value, tolerance: f64) {
    let (Some(expected), Some(found)) = (expected.as_f64(), found.as_f64()) else {
        assert_eq!(expected, found, "{what}");
        return;
    };
    assert!((found - expected).abs() <= tolerance, "{what} is {found}, the harness says {expected}");
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn expected(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness").join(file);
    serde_json::from_slice(&std::fs::read(path).expect("the fixture exists")).expect("the fixture is JSON")
}

fn found(limit: Option<usize>, extra: &[&str]) -> Value {
    let dir = tempdir().expect("there is room for temporary files");
    let artifact = dir.path().join("nano.nemo");
    let artifact = artifact.to_str().expect("temporary folders have plain names");
    let nemoc = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nemoc"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
        command.assert().success().get_output().stdout.clone()
    };
    nemoc(&["compile", "examples/nano", "--kernels", "none", "--calibration", "none", "--phase", "0", "-o", artifact]);
    let tasks = TASKS.join(",");
    let mut arguments =
        vec!["eval", artifact, "--tasks", &tasks, "--data", "tests/harness/data", "--log-samples", "--json"];
    arguments.extend(extra);
    let limit = limit.map(|limit| limit.to_string());
    if let Some(limit) = &limit {
        arguments.extend(["--limit", limit]);
    }
    serde_json::from_slice(&nemoc(&arguments)).expect("--json prints JSON")
}
