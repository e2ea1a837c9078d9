//! The whole way from checkpoint to logits, against logits that Hugging Face transformers computed in f32.
//!
//! Tolerance: 1e-4 relative in the 2-norm of a position's logits. Both sides compute in f32 over sums of at most a few
//! thousand terms, which differ by about 1e-6; a wrong formula is off by 1e-2 or more.

use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const TOLERANCE: f64 = 1e-4;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn nemoc(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_nemoc")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn compile(checkpoint: &Path, phase: &str, rotations: &str, to: &Path) {
    nemoc(&[
        "compile",
        path(checkpoint),
        "--phase",
        phase,
        "--rotations",
        rotations,
        "--calibration",
        "none",
        "-o",
        path(to),
    ]);
}

/// The logits that `nemoc logits` writes when it takes `chunk` tokens at a time.
fn logits(artifact: &Path, tokens: &[i64], chunk: usize, scratch: &Path) -> Vec<f32> {
    let (ids, out) = (scratch.join("ids.json"), scratch.join("logits.safetensors"));
    std::fs::write(&ids, serde_json::to_string(tokens).unwrap()).unwrap();
    nemoc(&["logits", path(artifact), "--tokens", path(&ids), "-o", path(&out), "--chunk", &chunk.to_string()]);
    let bytes = std::fs::read(&out).unwrap();
    floats(SafeTensors::deserialize(&bytes).unwrap().tensor("logits").unwrap().data())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn integers(bytes: &[u8]) -> Vec<i64> {
    bytes.as_chunks().0.iter().map(|word| i64::from_le_bytes(*word)).collect()
}

/// The largest relative error of any position.
fn worst(found: &[f32], expected: &[f32], positions: usize) -> f64 {
    assert_eq!(found.len(), expected.len());
    let vocab = expected.len() / positions;
    let norm = |row: &mut dyn Iterator<Item = f64>| row.map(|x| x * x).sum::<f64>().sqrt();
    found
        .chunks(vocab)
        .zip(expected.chunks(vocab))
        .map(|(found, expected)| {
            let error = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
            error / norm(&mut expected.iter().map(|&b| f64::from(b)))
        })
        .fold(0.0, f64::max)
}

/// Checks phase 0 of a checkpoint against its reference file, for each chunk size.
fn agrees_with_reference(checkpoint: &Path, reference: &Path, rotations: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let artifact = scratch.path().join("model.nemo");
    compile(checkpoint, "0", rotations, &artifact);
    let bytes = std::fs::read(reference).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    for sequence in 0..3 {
        let tokens = integers(reference.tensor(&format!("tokens_{sequence}")).unwrap().data());
        let expected = floats(reference.tensor(&format!("logits_{sequence}")).unwrap().data());
        for chunk in [512, 64, 7, 1] {
            let found = logits(&artifact, &tokens, chunk, scratch.path());
            let error = worst(&found, &expected, tokens.len());
            println!("sequence {sequence}, chunks of {chunk}: worst relative error {error:.1e}");
            assert!(error <= TOLERANCE, "sequence {sequence}, chunks of {chunk}: relative error {error:e}");
        }
    }
    // The greedy continuation: each next token is where our logits are largest.
    let greedy = integers(reference.tensor("greedy_1").unwrap().data());
    let prompt = reference.tensor("tokens_1").unwrap().shape()[0];
    let found = logits(&artifact, &greedy, 1, scratch.path());
    let vocab = found.len() / greedy.len();
    for position in prompt - 1..greedy.len() - 1 {
        let row = &found[position * vocab..][..vocab];
        let best = (0..vocab).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        assert_eq!(best as i64, greedy[position + 1], "the token after position {position}");
    }
}

fn nano_reference() -> PathBuf {
    root().join("tests/fixtures/nano-reference/logits.safetensors")
}

#[test]
fn phase_0_of_nano_gives_the_reference_logits_however_the_tokens_are_cut() {
    agrees_with_reference(&root().join("examples/nano"), &nano_reference(), "none");
}

#[test]
fn rotations_leave_the_function_of_nano_unchanged() {
    for rotations in ["hadamard", "random-hadamard"] {
        agrees_with_reference(&root().join("examples/nano"), &nano_reference(), rotations);
    }
}

#[test]
fn phase_0_of_mini_gives_the_reference_logits() {
    let mini = root().join("../shared/models/mini");
    if !mini.exists() {
        println!("skipped: {} is not there; it is not part of the project", mini.display());
        return;
    }
    agrees_with_reference(&mini, &mini.join("reference/logits.safetensors"), "none");
}

/// The nano checkpoint under the names and config fields of transformers 5.
fn renamed(to: &Path) {
    let nano = root().join("examples/nano");
    let bytes = std::fs::read(nano.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let views: Vec<(String, TensorView<'_>)> =
        tensors.iter().map(|(name, view)| (name.replacen("backbone.", "model.", 1), view)).collect();
    std::fs::write(to.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    std::fs::copy(nano.join("tokenizer.json"), to.join("tokenizer.json")).unwrap();
    let config = std::fs::read_to_string(nano.join("config.json")).unwrap();
    let kinds = "M-M*-M-M*-M-".chars().map(|letter| match letter {
        'M' => "\"mamba\"",
        '-' => "\"mlp\"",
        _ => "\"attention\"",
    });
    let layers = format!("\"layers_block_type\": [{}]", kinds.collect::<Vec<_>>().join(", "));
    let config = config
        .replace("\"hybrid_override_pattern\": \"M-M*-M-M*-M-\"", &layers)
        .replace("\"attention_head_dim\"", "\"head_dim\"")
        .replace("\"torch_dtype\"", "\"dtype\"");
    assert!(config.contains("layers_block_type") && !config.contains("torch_dtype"));
    std::fs::write(to.join("config.json"), config).unwrap();
}

/// Element type, shape and bytes of a tensor.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// The plan, without the model's display name, and the tensors of an artifact.
fn contents(artifact: &Path) -> (Value, HashMap<String, Stored>) {
    let bytes = std::fs::read(artifact).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let plan = header.metadata().as_ref().unwrap()["nemo.plan"].clone();
    let mut plan: Value = serde_json::from_str(&plan).unwrap();
    plan["model"]["name"] = Value::Null;
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let stored = tensors
        .iter()
        .filter(|(name, _)| {
            name.starts_with("layers.") || name.starts_with("embeddings") || name.starts_with("lm_head")
        })
        .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    (plan, stored)
}

#[test]
fn both_naming_schemes_give_the_same_plan_and_the_same_weights() {
    let scratch = tempfile::tempdir().unwrap();
    let other = scratch.path().join("renamed");
    std::fs::create_dir(&other).unwrap();
    renamed(&other);
    let (a, b) = (scratch.path().join("a.nemo"), scratch.path().join("b.nemo"));
    for phase in ["0", "1", "2", "3"] {
        compile(&root().join("examples/nano"), phase, "hadamard", &a);
        compile(&other, phase, "hadamard", &b);
        let ((plan_a, stored_a), (plan_b, stored_b)) = (contents(&a), contents(&b));
        assert!(stored_a.len() > 60, "only {} tensors", stored_a.len());
        assert_eq!(plan_a, plan_b, "plans of phase {phase}");
        assert!(stored_a == stored_b, "tensors of phase {phase}");
    }
}
