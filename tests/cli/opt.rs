//! `nemoc opt`.

use crate::support::{nemoc, refuses, stdout};
use tempfile::{TempDir, tempdir};

/// The phase-0 graph of nano.
fn imported() -> (TempDir, String) {
    let dir = tempdir().unwrap();
    let dumps = dir.path().join("ir");
    stdout(&["compile", "examples/nano", "--phase", "3", "--plan-only", "--dump-ir", dumps.to_str().unwrap()]);
    let file = dumps.join("00-import.mlir").to_str().unwrap().to_owned();
    (dir, file)
}

#[test]
fn runs_the_passes_that_compile_runs() {
    let (dir, file) = imported();
    let dump = std::fs::read_to_string(dir.path().join("ir/01-fold-norms.mlir")).unwrap();
    assert_eq!(stdout(&["opt", &file, "--passes", "fold-norms"]), dump);
}

#[test]
fn reads_stdin_and_writes_a_file() {
    let (dir, file) = imported();
    let text = std::fs::read_to_string(&file).unwrap();
    let output = dir.path().join("out.mlir");
    nemoc().args(["opt", "-", "-o", output.to_str().unwrap()]).write_stdin(text.clone()).assert().success().stdout("");
    assert_eq!(std::fs::read_to_string(output).unwrap(), text);
}

#[test]
fn bisects() {
    let (_dir, file) = imported();
    let assert = nemoc()
        .args(["opt", &file, "--passes", "fold-norms,assign-precision", "--phase", "1", "--bisect", "1"])
        .assert()
        .success();
    let message = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(message.contains("the last is of fold-norms"), "{message}");
}

#[test]
fn names_the_passes_nearest_first_when_one_is_unknown() {
    refuses(&["opt", "x.mlir", "--passes", "fold-norm"], &["`fold-norm`", "fold-norms", "assign-precision"]);
}

#[test]
fn refuses_text_that_is_no_ir() {
    refuses(&["opt", "Cargo.toml"], &["cannot parse the IR", "Cargo.toml"]);
    refuses(&["opt", "no/such.mlir"], &["cannot read the IR", "no/such.mlir", "help: "]);
}

#[test]
fn refuses_a_pass_at_the_wrong_stage() {
    let (_dir, file) = imported();
    refuses(&["opt", &file, "--passes", "insert-qdq"], &["insert-qdq", "stage", "help: "]);
}
