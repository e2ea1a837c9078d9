//! `nemoc inspect`, `run`, `logits` and `eval` on an artifact, and on files that are not a whole one.

use crate::support::{nemoc, phase, refuses, stdout};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use std::path::Path;
use tempfile::tempdir;

#[test]
fn inspects_the_arithmetic_of_every_linear() {
    let text = stdout(&["inspect", phase(1)]);
    for part in ["mixer.in_proj.z", "0, 2, 5, 7, 10", "i8 x i8 -> i32", "u8 x i8 -> i32", "lm_head", "embeddings"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let text = stdout(&["inspect", phase(0)]);
    assert!(text.contains("f32 x f32 -> f32") && !text.contains("i32"), "{text}");
}

#[test]
fn inspects_the_plan_launch_by_launch() {
    let value: serde_json::Value = serde_json::from_str(&stdout(&["inspect", phase(1), "--plan", "--json"])).unwrap();
    let launches = value["plan"]["launches"].as_array().unwrap().len();
    let text = stdout(&["inspect", phase(1), "--plan"]);
    assert!(text.contains(&format!("{launches} launches a step")), "{text}");
}

#[test]
fn names_every_tensor_in_json() {
    let value: serde_json::Value = serde_json::from_str(&stdout(&["inspect", phase(1), "--json"])).unwrap();
    assert_eq!(value["tensors"]["lm_head.weight"]["shape"], serde_json::json!([4096, 256]));
    assert!(value["provenance"]["source_digest"].as_str().unwrap().starts_with("xxh3:"));
    assert!(value["recipe"].as_str().unwrap().contains("phase = 1"));
}

#[test]
fn generates_the_same_text_twice_and_says_what_ran() {
    let run = || {
        let assert = nemoc().args(["run", phase(1), "--prompt", "The river", "--max-tokens", "12"]).assert().success();
        let output = assert.get_output();
        (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
    };
    let (text, banner) = run();
    assert!(text.split_whitespace().count() >= 3, "{text}");
    assert!(banner.contains("nano, phase 1, on CPU"), "{banner}");
    assert!(banner.contains("tokens/s"), "{banner}");
    assert_eq!(run().0, text);
}

#[test]
fn keeps_stderr_empty_when_asked_to_be_quiet() {
    let assert = nemoc().args(["run", phase(1), "--prompt", "The", "-n", "4", "--quiet"]).assert().success();
    assert!(assert.get_output().stderr.is_empty());
}

#[test]
fn refuses_an_empty_prompt() {
    refuses(&["run", phase(1), "--prompt", "", "--quiet"], &["the prompt is empty", "help: "]);
}

#[test]
fn refuses_a_context_longer_than_the_memory_given() {
    let long = "word ".repeat(300);
    let assert = nemoc().args(["run", phase(1), "--prompt", &long, "--memory", "1400K"]).assert().code(1);
    assert.stderr(contains("error: ")).stderr(contains("help: ")).stderr(contains("bytes"));
    let assert = nemoc().args(["run", phase(1), "--prompt", &long, "--context", "100"]).assert().code(1);
    assert.stderr(contains("100")).stderr(contains("help: "));
}

fn ids(dir: &Path, text: &str) -> (String, String) {
    let (ids, out) = (dir.join("ids.json"), dir.join("out.safetensors"));
    std::fs::write(&ids, text).unwrap();
    (ids.to_str().unwrap().to_owned(), out.to_str().unwrap().to_owned())
}

#[test]
fn writes_logits_that_do_not_depend_on_the_chunk() {
    let dir = tempdir().unwrap();
    let tokens: Vec<u32> = (0..40).map(|i| (i * 97 + 3) % 4096).collect();
    let (ids, out) = ids(dir.path(), &serde_json::to_string(&tokens).unwrap());
    let results = ["512", "7", "1"].map(|chunk| {
        stdout(&["logits", phase(1), "--tokens", &ids, "-o", &out, "--chunk", chunk]);
        std::fs::read(&out).unwrap()
    });
    assert!(results[0] == results[1] && results[1] == results[2]);
    let file = safetensors::SafeTensors::deserialize(&results[0]).unwrap();
    assert_eq!(file.tensor("logits").unwrap().shape(), [40, 4096]);
}

#[test]
fn refuses_a_token_id_out_of_range() {
    let dir = tempdir().unwrap();
    let (ids, out) = ids(dir.path(), "[1, 2, 4096]");
    refuses(&["logits", phase(1), "--tokens", &ids, "-o", &out], &["4096", "out of range", "ids.json", "help: "]);
    assert!(!Path::new(&out).exists());
}

#[test]
fn refuses_what_is_no_list_of_token_ids() {
    for text in ["[]", "[1, -2]", "{\"a\": 1}", "1 2 3"] {
        let dir = tempdir().unwrap();
        let (ids, out) = ids(dir.path(), text);
        refuses(&["logits", phase(1), "--tokens", &ids, "-o", &out], &["list of token ids", "ids.json", "help: "]);
    }
}

#[test]
fn measures_perplexity_and_divergence() {
    let text = "CONTRIBUTING.md";
    let common = ["--text", text, "--window", "64", "--windows", "4", "--json"];
    let eval = |extra: &[&str]| -> serde_json::Value {
        serde_json::from_str(&stdout(&[&["eval", phase(1)], &common[..], extra].concat())).unwrap()
    };
    let alone = eval(&[]);
    let compared = eval(&["--baseline", phase(0)]);
    let model = |report: &serde_json::Value| report["models"][0].clone();
    let (alone, compared) = (model(&alone), model(&compared));
    assert_eq!(alone["perplexity"], compared["perplexity"]);
    let kl = compared["divergence"]["mean_kl"].as_f64().unwrap();
    assert!(kl > 0.0 && kl < 0.1, "{compared}");
    let itself: serde_json::Value =
        serde_json::from_str(&stdout(&[&["eval", phase(0), "--baseline", phase(0)], &common[..]].concat())).unwrap();
    let divergence = &model(&itself)["divergence"];
    assert_eq!(divergence["mean_kl"].as_f64(), Some(0.0));
    assert_eq!(divergence["top1_agreement"].as_f64(), Some(1.0));
}

#[test]
fn refuses_a_text_shorter_than_a_window() {
    let dir = tempdir().unwrap();
    let text = dir.path().join("short.txt");
    std::fs::write(&text, "A few words.").unwrap();
    refuses(&["eval", phase(1), "--text", text.to_str().unwrap()], &["one window needs 1024", "help: "]);
}

/// Changes a copy of an artifact and expects every command that opens it to refuse it.
fn refuses_artifact(change: impl FnOnce(&mut Vec<u8>), parts: &[&str]) {
    let dir = tempdir().unwrap();
    let path = dir.path().join("damaged.nemo");
    let mut bytes = std::fs::read(phase(1)).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap();
    let parts = [parts, &["damaged.nemo", "help: "]].concat();
    refuses(&["inspect", path], &parts);
    refuses(&["run", path, "--prompt", "Hello"], &parts);
}

#[test]
fn refuses_an_altered_byte() {
    refuses_artifact(
        |bytes| *bytes.iter_mut().rev().nth(2_000_000).unwrap() ^= 1,
        &["altered", "tensor `", "checksum"],
    );
}

#[test]
fn refuses_a_truncated_artifact() {
    refuses_artifact(|bytes| bytes.truncate(bytes.len() - 1), &["truncated"]);
    refuses_artifact(|bytes| bytes.truncate(1000), &["truncated"]);
}

#[test]
fn refuses_an_artifact_of_a_future_version() {
    let version = format!("\"nemo.version\":\"{}\"", runtime::artifact::ARTIFACT_VERSION);
    let future = version.replace(&runtime::artifact::ARTIFACT_VERSION.to_string(), "9");
    refuses_artifact(
        |bytes| {
            let at = bytes.windows(version.len()).position(|window| window == version.as_bytes()).unwrap();
            bytes[at..at + version.len()].copy_from_slice(future.as_bytes());
        },
        &["version 9", "reads up to"],
    );
}

#[test]
fn refuses_a_file_that_is_no_artifact() {
    refuses(&["inspect", "examples/nano/model.safetensors"], &["not a nemo artifact", "model.safetensors", "help: "]);
    refuses(&["run", "no/such.nemo", "--prompt", "Hello"], &["cannot read", "no/such.nemo"]);
}

#[test]
fn shows_progress_only_on_a_terminal() {
    let args = ["eval", phase(1), "--text", "CONTRIBUTING.md", "--window", "64", "--windows", "2"];
    nemoc().args(args).assert().success().stderr(contains("windows").not());
}

#[test]
fn refuses_a_device_that_is_not_there() {
    refuses(&["run", phase(1), "--prompt", "Hello", "--quiet", "--device", "cuda:77"], &["CUDA failed", "help: "]);
    nemoc().args(["run", phase(1), "--prompt", "Hello", "--device", "abacus"]).assert().code(2);
}

#[test]
fn keeps_the_text_so_far_when_it_is_interrupted() {
    use std::io::Read;
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_nemoc"))
        .args(["run", phase(1), "--prompt", "The river", "-n", "1000000", "--ignore-eos", "--device", "cpu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut start = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut start).unwrap();
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(output.stdout.ends_with(b"\n"), "the last line is whole");
    let statistics = String::from_utf8_lossy(&output.stderr);
    assert!(statistics.contains("; interrupted"), "{statistics}");
}

#[test]
fn says_what_runs_where_and_why() {
    let assert = nemoc().args(["run", phase(1), "--prompt", "The", "-n", "2", "--device", "cpu"]).assert().success();
    let banner = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(banner.contains("linears ") && banner.contains("i8 x i8") && !banner.contains("no GPU"), "{banner}");
    let assert = nemoc().args(["run", phase(1), "--prompt", "The", "-n", "2"]).assert().success();
    let banner = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    // The artifact has no kernels, so that a machine with a GPU takes the CPU as well.
    assert!(banner.contains("(no GPU: "), "{banner}");
}

#[test]
fn refuses_a_gpu_for_an_artifact_without_kernels() {
    let arguments = ["run", phase(1), "--prompt", "Hello", "--quiet", "--device"];
    refuses(&[&arguments[..], &["cuda"]].concat(), &["holds no kernels for GPUs", "help: ", "--kernels all"]);
    refuses(&[&arguments[..], &["cpu", "--gpu", "1"]].concat(), &["--gpu 1 contradicts --device", "help: "]);
}
