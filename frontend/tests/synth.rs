//! Random checkpoints: valid, deterministic, of realistic values, and nothing is left of a failure.

mod support;

use frontend::{Checkpoint, Names, Role, SynthOptions, TensorSpec, synthesize};
use half::bf16;
use ir::weights::{FloatType, TensorSource};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use support::{Folder, tiny};

/// Wide enough for channels that stand out.
fn wide() -> Value {
    let mut config = tiny();
    for (field, value) in [("hidden_size", 256), ("intermediate_size", 384), ("vocab_size", 300)] {
        config[field] = json!(value);
    }
    config
}

fn synth(config: &Folder, out: &Path, seed: u64, shard_bytes: u64) {
    let options = SynthOptions { seed, shard_bytes };
    synthesize(config.path(), out, &options, &mut |_, _| {}).unwrap();
}

/// Every file of a folder.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn values(checkpoint: &Checkpoint, tensor: &TensorSpec) -> Vec<f32> {
    let bytes = checkpoint.bytes(&tensor.name).unwrap();
    match checkpoint.dtype(tensor) {
        FloatType::F32 => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        _ => bytes.chunks(2).map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
    }
}

#[test]
fn writes_a_valid_checkpoint_in_one_file_or_in_shards() {
    let config = Folder::new(&wide()).with("tokenizer.json", b"{}");
    for (shard_bytes, expected) in [(u64::MAX, 1), (200_000, 4), (0, 20)] {
        let out = tempfile::tempdir().unwrap();
        synth(&config, out.path(), 1, shard_bytes);
        let checkpoint = Checkpoint::open(out.path()).unwrap();
        assert_eq!(checkpoint.files().len(), expected, "{shard_bytes}");
        assert!(checkpoint.unknown_tensors().is_empty());
        let a_log = checkpoint.tensor("layers.0.mixer.A_log").unwrap();
        assert_eq!(checkpoint.dtype(a_log), FloatType::F32);
        assert_eq!(fs::read(out.path().join("tokenizer.json")).unwrap(), b"{}");
    }
}

#[test]
fn writes_the_same_bytes_with_any_number_of_threads() {
    let config = Folder::new(&wide());
    let with_threads = |threads| {
        let out = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| synth(&config, out.path(), 7, 200_000));
        files(out.path())
    };
    assert!(with_threads(1) == with_threads(5));
}

#[test]
fn writes_the_same_tensors_however_they_are_sharded() {
    let config = Folder::new(&wide());
    let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    synth(&config, one.path(), 3, u64::MAX);
    synth(&config, many.path(), 3, 100_000);
    let (one, many) = (Checkpoint::open(one.path()).unwrap(), Checkpoint::open(many.path()).unwrap());
    for tensor in one.tensors() {
        assert!(one.bytes(&tensor.name).unwrap() == many.bytes(&tensor.name).unwrap(), "{}", tensor.name);
    }
}

#[test]
fn writes_other_values_for_other_seeds_tensors_and_rows() {
    let config = Folder::new(&wide());
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    synth(&config, a.path(), 1, u64::MAX);
    synth(&config, b.path(), 2, u64::MAX);
    let (a, b) = (Checkpoint::open(a.path()).unwrap(), Checkpoint::open(b.path()).unwrap());
    let rows = |checkpoint: &Checkpoint, name: &str| values(checkpoint, checkpoint.tensor(name).unwrap());
    let q = rows(&a, "layers.2.mixer.q_proj.weight");
    assert_ne!(q, rows(&b, "layers.2.mixer.q_proj.weight"));
    assert_ne!(q[..256], q[256..512]);
    let (k, v) = (rows(&a, "layers.2.mixer.k_proj.weight"), rows(&a, "layers.2.mixer.v_proj.weight"));
    assert_ne!(k, v);
}

#[test]
fn draws_values_with_a_realistic_spread() {
    let config = Folder::new(&wide());
    let out = tempfile::tempdir().unwrap();
    synth(&config, out.path(), 11, u64::MAX);
    let checkpoint = Checkpoint::open(out.path()).unwrap();
    for tensor in checkpoint.tensors() {
        let values = values(&checkpoint, tensor);
        assert!(values.iter().all(|v| v.is_finite()), "{}", tensor.name);
        let within = |low: f32, high: f32| {
            assert!(values.iter().all(|v| (low..=high).contains(v)), "{}", tensor.name);
        };
        match tensor.role {
            Role::ALog => within(0.0, 16f32.ln()),
            Role::DtBias => within(-7.0, -2.2),
            Role::D | Role::LayerNorm | Role::MixerNorm | Role::FinalNorm => within(0.89, 1.11),
            Role::Conv1d => within(-0.5, 0.5),
            Role::Conv1dBias => within(-0.05, 0.05),
            Role::LmHead => {
                let n = values.len() as f32;
                let mean = values.iter().sum::<f32>() / n;
                let std = (values.iter().map(|v| v * v).sum::<f32>() / n).sqrt();
                // 76,800 values: the standard error of the mean is 7e-5, of the deviation 5e-5.
                assert!(mean.abs() < 5e-4, "mean {mean}");
                assert!((std - 0.02).abs() < 5e-4, "standard deviation {std}");
            }
            _ => {}
        }
    }
}

#[test]
fn makes_a_few_residual_and_mlp_channels_large() {
    let config = Folder::new(&wide());
    let out = tempfile::tempdir().unwrap();
    synth(&config, out.path(), 5, u64::MAX);
    let checkpoint = Checkpoint::open(out.path()).unwrap();
    let norms_of_rows = |name: &str| -> Vec<f32> {
        let tensor = checkpoint.tensor(name).unwrap();
        let values = values(&checkpoint, tensor);
        let norm = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
        values.chunks(tensor.shape[1]).map(norm).collect()
    };
    for name in ["layers.1.mixer.up_proj.weight", "layers.1.mixer.down_proj.weight"] {
        let norms = norms_of_rows(name);
        let mut sorted = norms.clone();
        sorted.sort_by(f32::total_cmp);
        let median = sorted[sorted.len() / 2];
        let large = norms.iter().filter(|norm| **norm > 4.0 * median).count();
        assert!((1..=4).contains(&large), "{name}: {large} large rows");
    }
}

#[test]
fn reports_progress_up_to_the_last_byte() {
    let config = Folder::new(&wide());
    let out = tempfile::tempdir().unwrap();
    let mut calls = Vec::new();
    let report = synthesize(config.path(), out.path(), &SynthOptions::default(), &mut |written, total| {
        calls.push((written, total));
    })
    .unwrap();
    assert_eq!(calls.last(), Some(&(report.bytes, report.bytes)));
    assert!(calls.is_sorted());
    assert_eq!(report.parameters, Checkpoint::open(out.path()).unwrap().parameters());
}

#[test]
fn leaves_out_the_head_of_a_tied_model() {
    let mut tied = wide();
    tied["tie_word_embeddings"] = json!(true);
    let config = Folder::new(&tied);
    let out = tempfile::tempdir().unwrap();
    synth(&config, out.path(), 1, u64::MAX);
    assert!(!Checkpoint::open(out.path()).unwrap().has_head());
}

#[test]
fn refuses_a_folder_that_is_not_empty_and_leaves_it_alone() {
    let config = Folder::new(&tiny());
    let out = Folder::single(&tiny(), &Names::default());
    let before = files(out.path());
    let error = synthesize(config.path(), out.path(), &SynthOptions::default(), &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("the output folder is not empty"), "{error}");
    assert!(files(out.path()) == before);
}

#[test]
fn refuses_an_output_that_cannot_be_a_folder() {
    let config = Folder::new(&tiny());
    let file = config.file("config.json");
    for out in [file.clone(), file.join("below")] {
        let error = synthesize(config.path(), &out, &SynthOptions::default(), &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
    }
    assert_eq!(files(config.path()).len(), 1);
}

#[test]
fn leaves_nothing_behind_when_a_file_cannot_be_written() {
    let config = Folder::new(&tiny());
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    // The configuration disappears while the weights are written: the last step fails.
    let path = config.file("config.json");
    let mut remove = |_, _| {
        let _ = fs::remove_file(&path);
    };
    let error = synthesize(config.path(), &out, &SynthOptions::default(), &mut remove).unwrap_err();
    assert!(error.to_string().contains("cannot write"), "{error}");
    assert!(!out.exists());
}

#[test]
fn other_weights_of_the_same_shape_have_another_digest() {
    let config = Folder::new(&wide());
    let out = tempfile::tempdir().unwrap();
    let digest = |name: &str, seed: u64| {
        synth(&config, &out.path().join(name), seed, 1 << 30);
        Checkpoint::open(&out.path().join(name)).unwrap().digest()
    };
    assert_eq!(digest("a", 1), digest("b", 1));
    assert_ne!(digest("c", 1), digest("d", 2));
}
