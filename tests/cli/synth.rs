//! `nemoc synth`.

use crate::support::{interrupt, nemoc_process, refuses, stdout, wait_until};
use tempfile::tempdir;

fn synth(dir: &std::path::Path, seed: &str) {
    let text = stdout(&[
        "synth",
        "--config",
        "examples/nano",
        "-o",
        dir.to_str().unwrap(),
        "--seed",
        seed,
        "--shard-size",
        "4",
    ]);
    assert!(text.contains("7,775,096 parameters"), "{text}");
}

#[test]
fn writes_a_sharded_checkpoint_that_analyze_accepts() {
    let dir = tempdir().unwrap();
    let model = dir.path().join("random");
    synth(&model, "1");
    assert!(model.join("model.safetensors.index.json").exists());
    assert!(stdout(&["analyze", model.to_str().unwrap()]).contains("7,775,096 parameters"));
}

#[test]
fn writes_the_same_bytes_for_the_same_seed_only() {
    let dir = tempdir().unwrap();
    let read = |name: &str| {
        let shard = std::fs::read_dir(dir.path().join(name)).unwrap().map(|entry| entry.unwrap().path());
        std::fs::read(shard.filter(|path| path.extension().is_some_and(|end| end == "safetensors")).min().unwrap())
            .unwrap()
    };
    for (name, seed) in [("a", "7"), ("b", "7"), ("c", "8")] {
        synth(&dir.path().join(name), seed);
    }
    assert_eq!(read("a"), read("b"));
    assert_ne!(read("a"), read("c"));
}

#[test]
fn refuses_a_folder_in_use() {
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("precious"), "data").unwrap();
    let path = dir.path().to_str().unwrap();
    refuses(&["synth", "--config", "examples/nano", "-o", path], &["not empty", path, "help: "]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn leaves_nothing_behind_on_ctrl_c() {
    let dir = tempdir().unwrap();
    let model = dir.path().join("random");
    let config = "examples/configs/nvidia-nemotron-nano-9b-v2";
    let mut child = nemoc_process(&["synth", "--config", config, "-o", model.to_str().unwrap()]);
    wait_until(|| model.join("model-00001-of-00005.safetensors").metadata().is_ok_and(|file| file.len() > 0));
    interrupt(&child);
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    assert!(!model.exists());
}
