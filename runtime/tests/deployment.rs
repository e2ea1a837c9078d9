//! The stand-alone binary: text out, and every failure with a message, a help line and exit code 1.

use runtime::artifact::{Checksums, Layout, Metadata, Provenance, TensorSpec};
use runtime::plan::{DType, WeightFormat};
use runtime::synthetic::{self, Shape};
use runtime::tensors::TensorStore;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use xxhash_rust::xxh3::xxh3_64;

/// A tokenizer of single letters, `<s>` before every text.
fn tokenizer() -> Vec<u8> {
    let mut vocab: serde_json::Map<_, _> = ('a'..='z').zip(3..).map(|(c, id)| (c.to_string(), id.into())).collect();
    vocab.insert("<unk>".into(), 0.into());
    vocab.extend((29..101).map(|id| (format!("<{id}>"), id.into())));
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [{"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": false},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    });
    json.to_string().into_bytes()
}

/// Writes an artifact of the synthetic model, with these files in it.
fn write_artifact(path: &Path, files: &[(&str, Vec<u8>)]) {
    let (plan, store) = synthetic::model(&Shape::tiny(), &synthetic::Layout::of(WeightFormat::W8), 1);
    let mut data: BTreeMap<String, (DType, Vec<usize>, Vec<u8>)> = store
        .names()
        .map(|name| {
            let tensor = store.tensor(name).unwrap();
            (name.to_owned(), (tensor.dtype, tensor.shape.to_vec(), tensor.bytes.to_vec()))
        })
        .collect();
    for (name, bytes) in files {
        data.insert((*name).to_owned(), (DType::U8, vec![bytes.len()], bytes.clone()));
    }
    let metadata = Metadata { plan, recipe: String::new(), provenance: Provenance::default(), extra: BTreeMap::new() };
    let specs = data.iter().map(|(name, (dtype, shape, _))| TensorSpec {
        name: name.clone(),
        dtype: *dtype,
        shape: shape.clone(),
    });
    let layout = Layout::new(&metadata.to_map().unwrap(), specs).unwrap();
    let checksums = Checksums {
        header: xxh3_64(layout.prefix()),
        tensors: data.iter().map(|(name, (_, _, bytes))| (name.clone(), xxh3_64(bytes))).collect(),
    };
    let mut file = layout.prefix().to_vec();
    for placed in layout.tensors() {
        file.resize(placed.offset as usize, 0);
        match data.get(&placed.spec.name) {
            Some((_, _, bytes)) => file.extend_from_slice(bytes),
            None => file.extend_from_slice(&checksums.render()),
        }
    }
    std::fs::write(path, file).unwrap();
}

struct Fixture {
    folder: tempfile::TempDir,
    model: PathBuf,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.nemo");
    write_artifact(&model, &[("tokenizer.json", tokenizer())]);
    Fixture { folder, model }
}

fn run(model: &Path, args: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_nemo-run");
    Command::new(binary).arg(model).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(message.starts_with("error: ") && message.contains("\nhelp: "), "{message}");
    message
}

#[test]
fn continues_a_prompt_the_same_way_every_time() {
    let Fixture { folder: _folder, model } = fixture();
    let args = ["--prompt", "hello", "-n", "20", "--ignore-eos"];
    let output = run(&model, &args);
    let statistics = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(statistics.contains("text 20 tokens") && statistics.contains("CPU"), "{statistics}");
    let first = text(&output);
    assert_eq!(text(&run(&model, &args)), first);
    assert_eq!(text(&run(&model, &[&args[..], &["--threads", "1", "--chunk", "2"]].concat())), first);
    assert_eq!(text(&run(&model, &[&args[..], &["--echo"]].concat())), format!("hello{first}"));
    let sampled = |seed| text(&run(&model, &[&args[..], &["-t", "2", "--seed", seed]].concat()));
    assert_eq!(sampled("5"), sampled("5"));
    assert_ne!(sampled("5"), sampled("6"));
}

#[test]
fn reads_the_prompt_from_a_file_and_prints_nothing_else_when_quiet() {
    let Fixture { folder, model } = fixture();
    let prompt = folder.path().join("prompt.txt");
    std::fs::write(&prompt, "hello").unwrap();
    let from_file = run(&model, &["--prompt-file", prompt.to_str().unwrap(), "-n", "5", "--quiet"]);
    assert!(from_file.stderr.is_empty());
    assert_eq!(text(&from_file), text(&run(&model, &["--prompt", "hello", "-n", "5"])));
}

#[test]
fn names_what_is_wrong_and_what_to_do() {
    let Fixture { folder, model } = fixture();
    let cases: [(&[&str], &str); 5] = [
        (&["--prompt", ""], "the prompt is empty"),
        (&["--prompt", "abcdefgh", "--context", "7"], "the context would grow to 8 tokens, the limit is 7"),
        (&["--prompt", "a", "--memory", "1K"], "1024 are available"),
        (&["--prompt", "a", "--temperature", "-1"], "--temperature is -1"),
        (&["--prompt-file", "no/such/file"], "no/such/file"),
    ];
    for (args, message) in cases {
        let found = failure(&run(&model, args));
        assert!(found.contains(message), "{found}");
    }
    assert!(failure(&run(&folder.path().join("missing.nemo"), &["-p", "a"])).contains("missing.nemo"));

    let silent = folder.path().join("silent.nemo");
    write_artifact(&silent, &[]);
    assert!(failure(&run(&silent, &["-p", "a"])).contains("holds no tokenizer"));

    let mut bytes = std::fs::read(&model).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let altered = folder.path().join("altered.nemo");
    std::fs::write(&altered, bytes).unwrap();
    let found = failure(&run(&altered, &["-p", "a"]));
    assert!(found.contains("was altered") && found.contains("altered.nemo"), "{found}");
}

#[test]
fn wrong_usage_has_exit_code_two() {
    let Fixture { folder: _folder, model } = fixture();
    for args in [&[][..], &["-p", "a", "--chunk", "0"], &["-p", "a", "--memory", "much"], &["-p", "a", "--frobnicate"]]
    {
        assert_eq!(run(&model, args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_gpu_that_cannot_be_used_is_an_error_or_leads_to_the_cpu_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("kernels.nemo");
    // Kernels that no driver takes: a machine with a GPU refuses them, one without has nothing to load them.
    let files = ["kernels.sm_80", "kernels.sm_89", "kernels.sm_90a", "kernels.compute_80"];
    let mut files: Vec<_> = files.into_iter().map(|name| (name, b"no kernels".to_vec())).collect();
    files.push(("tokenizer.json", tokenizer()));
    write_artifact(&model, &files);
    let message = failure(&run(&model, &["-p", "a", "--device", "cuda"]));
    assert!(message.contains("CUDA failed: no ") && message.contains("driver"), "{message}");
    let output = run(&model, &["-p", "a", "-n", "3", "--ignore-eos"]);
    let statistics = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && statistics.contains("(no GPU: "), "{statistics}");
}

#[test]
fn an_interrupt_keeps_the_text_so_far() {
    use std::io::Read;
    use std::process::Stdio;
    let Fixture { folder: _folder, model } = fixture();
    let mut child = Command::new(env!("CARGO_BIN_EXE_nemo-run"))
        .arg(&model)
        .args(["-p", "a", "-n", "1000000000", "--ignore-eos", "--device", "cpu"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut bytes = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut bytes).unwrap();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(output.stdout.ends_with(b"\n"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("; interrupted"));
}

#[test]
fn verifies_and_measures_without_a_compiler() {
    let Fixture { folder: _folder, model } = fixture();
    let bench = |args: &[&str]| {
        let command = Command::new(env!("CARGO_BIN_EXE_nemo-bench")).arg(args[0]).arg(&model).args(&args[1..]).output();
        command.unwrap()
    };
    let verified = text(&bench(&["verify", "--device", "cpu", "--batch", "2", "--prefill", "3"]));
    assert!(verified.contains("launches pass"), "{verified}");
    let sizes = ["bench", "--device", "cpu", "--decode", "1", "--prefill", "8", "--repeats", "1"];
    assert!(text(&bench(&sizes)).contains("read bandwidth"));
    // The artifact has no kernels: no machine runs it on a GPU.
    assert!(failure(&bench(&["verify"])).contains("holds no kernels for GPUs"));
    assert!(failure(&bench(&["bench"])).contains("holds no kernels for GPUs"));
    assert_eq!(bench(&["verify", "--device", "auto"]).status.code(), Some(2));
}

#[test]
fn a_reader_that_closes_early_is_no_failure() {
    use std::io::Read;
    use std::process::Stdio;
    let Fixture { folder: _folder, model } = fixture();
    let mut child = Command::new(env!("CARGO_BIN_EXE_nemo-run"))
        .arg(&model)
        .args(["-p", "a", "-n", "5000", "--ignore-eos"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    child.stdout.take().unwrap().read_exact(&mut byte).unwrap();
    assert!(child.wait().unwrap().success());
}
