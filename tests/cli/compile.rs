//! `nemoc compile`, and what it leaves behind when it does not finish.

use crate::support::{
    edit, interrupt, nano_copy, nemoc, nemoc_process, plain_compile, refuses, stderr, stdout, wait_until,
};
use predicates::str::contains;
use std::path::Path;
use tempfile::tempdir;

const NEMOTRON_8B: &str = "examples/configs/nemotron-h-8b-base-8k/config.json";
const GIB: f64 = (1u64 << 30) as f64;

/// Names in a folder.
fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn compiles_nano_under_every_phase() {
    let dir = tempdir().unwrap();
    let mut sizes = Vec::new();
    for phase in ["0", "1", "2", "3"] {
        let output = dir.path().join(format!("{phase}.nemo"));
        let text = stdout(&plain_compile(&["examples/nano", "--phase", phase, "-o", output.to_str().unwrap()]));
        for part in ["7,775,096 parameters", "launches a step", "relative error", "of the checkpoint's", "/s of input"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        sizes.push(output.metadata().unwrap().len());
    }
    let [reference, conservative, aggressive, mixed] = sizes[..] else { panic!("{sizes:?}") };
    assert!(aggressive < mixed && mixed < conservative && conservative < reference, "{sizes:?}");
}

#[test]
fn writes_the_same_bytes_every_time() {
    let dir = tempdir().unwrap();
    let artifacts = ["a.nemo", "b.nemo"].map(|name| {
        let output = dir.path().join(name);
        stdout(&plain_compile(&["examples/nano", "--phase", "3", "-o", output.to_str().unwrap()]));
        std::fs::read(output).unwrap()
    });
    assert!(artifacts[0] == artifacts[1]);
}

#[test]
fn plans_the_8b_model_within_its_size_goals_from_its_config_alone() {
    for (phase, goal) in [("1", 7.7), ("2", 4.4), ("3", 6.4)] {
        let text = stdout(&plain_compile(&[NEMOTRON_8B, "--phase", phase, "--plan-only"]));
        assert!(text.contains("8,100,852,736 parameters"), "{text}");
        let bytes = text.split_once('(').and_then(|(_, rest)| rest.split_once(" bytes)")).unwrap().0.replace(',', "");
        let size: f64 = bytes.parse::<u64>().unwrap() as f64 / GIB;
        assert!(size <= goal, "phase {phase} takes {size} GiB, the goal is {goal}");
        assert!(size >= 0.95 * goal, "phase {phase} takes {size} GiB: something is missing");
    }
}

#[test]
fn dumps_numbered_modules_that_opt_reads_back() {
    let dir = tempdir().unwrap();
    let dumps = dir.path().join("ir");
    stdout(&plain_compile(&["examples/nano", "--phase", "3", "--plan-only", "--dump-ir", dumps.to_str().unwrap()]));
    let names = listing(&dumps);
    assert_eq!(names[0], "00-import.mlir");
    assert!(names.iter().any(|name| name.ends_with("-lower-to-plan.mlir")), "{names:?}");
    for name in names.iter().filter(|name| name.ends_with(".mlir")) {
        let path = dumps.join(name);
        let printed = stdout(&["opt", path.to_str().unwrap()]);
        assert_eq!(printed, std::fs::read_to_string(&path).unwrap(), "{name}");
    }
}

#[test]
fn times_and_prints_passes_to_stderr() {
    let assert = nemoc()
        .args(plain_compile(&["examples/nano", "--phase", "1", "--plan-only", "--time-passes", "--print-after-all"]))
        .assert();
    assert.success().stderr(contains("fold-norms")).stderr(contains("// ----- after lower-to-plan -----"));
}

#[test]
fn needs_a_phase_or_a_recipe() {
    assert!(stderr(2, &plain_compile(&["examples/nano", "-o", "x.nemo"])).contains("--phase"));
    nemoc().args(plain_compile(&["examples/nano", "--phase", "4", "-o", "x.nemo"])).assert().code(2);
    nemoc().args(plain_compile(&["examples/nano", "--phase", "1"])).assert().code(2);
}

#[test]
fn follows_a_recipe() {
    let dir = tempdir().unwrap();
    let (recipe, output) = (dir.path().join("r.toml"), dir.path().join("m.nemo"));
    std::fs::write(&recipe, "phase = 2\n[[override]]\nmatch = '^lm_head$'\nprecision = \"w4a8\"\n").unwrap();
    let (recipe, output) = (recipe.to_str().unwrap(), output.to_str().unwrap());
    stdout(&plain_compile(&["examples/nano", "--recipe", recipe, "-o", output]));
    let value: serde_json::Value = serde_json::from_str(&stdout(&["inspect", output, "--json"])).unwrap();
    let linears = value["linears"].as_array().unwrap();
    let storage = |name: &str| linears.iter().find(|linear| linear["name"] == name).unwrap()["storage"].clone();
    assert_eq!(storage("lm_head"), "4 bit, two-level, groups of 128");
    assert_eq!(storage("layers.1.mixer.up_proj"), "4 bit, two-level, groups of 128");
    assert_eq!(value["model"]["phase"], "2");
}

#[test]
fn refuses_a_recipe_with_an_unknown_key() {
    let dir = tempdir().unwrap();
    let recipe = dir.path().join("r.toml");
    std::fs::write(&recipe, "phase = 2\nrotate = true\n").unwrap();
    let output = dir.path().join("m.nemo");
    refuses(
        &plain_compile(&["examples/nano", "--recipe", recipe.to_str().unwrap(), "-o", output.to_str().unwrap()]),
        &["rotate", "help: "],
    );
    assert_eq!(listing(dir.path()), ["r.toml"]);
}

#[test]
fn refuses_a_config_without_weights() {
    let dir = tempdir().unwrap();
    let output = dir.path().join("m.nemo");
    let message =
        nemoc().args(plain_compile(&[NEMOTRON_8B, "--phase", "1", "-o", output.to_str().unwrap()])).assert().code(1);
    message.stderr(contains("no weights")).stderr(contains("help: "));
    assert!(listing(dir.path()).is_empty());
}

/// Compiles nano to a place that cannot be written; expects a message with these parts.
fn refuses_output(output: &str, parts: &[&str]) {
    let assert = nemoc().args(plain_compile(&["examples/nano", "--phase", "1", "-o", output])).assert().code(1);
    let message = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    for part in parts {
        assert!(message.contains(part), "{part} is not in\n{message}");
    }
}

#[test]
fn refuses_an_output_that_cannot_be_written() {
    let dir = tempdir().unwrap();
    refuses_output(dir.path().join("no/such/folder/m.nemo").to_str().unwrap(), &["cannot create", "help: "]);
    refuses_output(dir.path().to_str().unwrap(), &["cannot create", "help: "]);
    refuses_output("/proc/m.nemo", &["cannot create", "help: "]);
    assert!(listing(dir.path()).is_empty());
}

#[test]
fn refuses_to_replace_the_weights_it_reads() {
    let dir = tempdir().unwrap();
    let nano = nano_copy(dir.path());
    let weights = nano.join("model.safetensors");
    let before = std::fs::read(&weights).unwrap();
    let assert = nemoc()
        .args(plain_compile(&[nano.to_str().unwrap(), "--phase", "1", "-o", weights.to_str().unwrap()]))
        .assert()
        .code(1);
    assert.stderr(contains("weight file of the checkpoint")).stderr(contains("help: "));
    assert!(std::fs::read(&weights).unwrap() == before);
}

#[test]
fn warns_of_a_checkpoint_without_tokenizer() {
    let dir = tempdir().unwrap();
    let nano = nano_copy(dir.path());
    std::fs::remove_file(nano.join("tokenizer.json")).unwrap();
    let output = dir.path().join("m.nemo");
    let output = output.to_str().unwrap();
    let assert =
        nemoc().args(plain_compile(&[nano.to_str().unwrap(), "--phase", "1", "-o", output])).assert().success();
    assert.stderr(contains("warning: ")).stderr(contains("no tokenizer.json"));
    refuses(&["run", output, "--prompt", "Hello"], &["no tokenizer", "help: "]);
}

#[test]
fn refuses_weights_that_are_not_finite() {
    let dir = tempdir().unwrap();
    let nano = nano_copy(dir.path());
    let weights = nano.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    // The last tensor's last value becomes a bf16 NaN.
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&0x7fc0u16.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    let output = dir.path().join("m.nemo");
    let assert = nemoc()
        .args(plain_compile(&[nano.to_str().unwrap(), "--phase", "1", "-o", output.to_str().unwrap()]))
        .assert()
        .code(1);
    assert.stderr(contains("NaN")).stderr(contains("help: "));
    assert_eq!(listing(dir.path()), ["nano"]);
}

/// In a mount namespace of its own: a disk of 1 MiB, nano compiled to it, and what is left there.
const SMALL_DISK: &str = r#"mount -t tmpfs -o size=1m tmpfs "$1" || exit 99
"$0" compile --calibration none --kernels none examples/nano --phase 1 -o "$1/m.nemo"
code=$?
ls -A "$1" >&2
exit $code"#;

#[test]
fn leaves_nothing_on_a_disk_that_is_too_small() {
    let dir = tempdir().unwrap();
    let output = std::process::Command::new("unshare")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["--map-root-user", "--mount", "sh", "-c", SMALL_DISK])
        .args([Path::new(env!("CARGO_BIN_EXE_nemoc")), dir.path()])
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(99) && !output.stderr.starts_with(b"unshare: ") => output,
        refused => {
            println!("skipped: a small disk cannot be mounted here: {refused:?}");
            return;
        }
    };
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    for part in ["error: the disk of ", "m.nemo is full", "1048576 are free"] {
        assert!(message.contains(part), "{part} is not in\n{message}");
    }
    assert!(message.ends_with("with -o\n"), "something was left behind:\n{message}");
}

/// Under a limit on the size of files, unless the system ignores it.
const SMALL_FILES: &str = r#"trap '' XFSZ
ulimit -f 100
head -c 1000000 /dev/zero 2>/dev/null >"$2" && exit 99
exec "$0" compile --calibration none --kernels none examples/nano --phase 1 -o "$1/m.nemo""#;

#[test]
fn leaves_nothing_where_files_may_not_grow() {
    let (dir, elsewhere) = (tempdir().unwrap(), tempdir().unwrap());
    let output = std::process::Command::new("sh")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["-c", SMALL_FILES])
        .args([Path::new(env!("CARGO_BIN_EXE_nemoc")), dir.path(), &elsewhere.path().join("probe")])
        .output()
        .unwrap();
    if output.status.code() == Some(99) {
        println!("skipped: this system does not hold files to `ulimit -f`");
        return;
    }
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("error: cannot write ") && message.contains("help: "), "{message}");
    assert!(listing(dir.path()).is_empty());
}

/// A checkpoint large enough to be caught in the middle of.
fn large_checkpoint(folder: &Path) -> std::path::PathBuf {
    let (config, model) = (folder.join("config.json"), folder.join("large"));
    std::fs::copy("examples/nano/config.json", &config).unwrap();
    edit(&config, |text| {
        text.replace("\"vocab_size\": 4096", "\"vocab_size\": 200000")
            .replace("\"intermediate_size\": 1024", "\"intermediate_size\": 65536")
    });
    stdout(&["synth", "--config", config.to_str().unwrap(), "-o", model.to_str().unwrap()]);
    model
}

#[test]
fn leaves_the_old_artifact_when_it_is_killed_or_interrupted() {
    let dir = tempdir().unwrap();
    let model = large_checkpoint(dir.path());
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let output = out.join("m.nemo");
    std::fs::write(&output, "the old one").unwrap();
    for kill in [true, false] {
        let mut child =
            nemoc_process(&plain_compile(&[model.to_str().unwrap(), "--phase", "3", "-o", output.to_str().unwrap()]));
        let descriptors = format!("/proc/{}/fd", child.0.id());
        wait_until(|| writes_into(&descriptors, &out));
        if kill {
            child.0.kill().unwrap();
        } else {
            interrupt(&child);
        }
        let status = child.0.wait().unwrap();
        assert!(!status.success(), "it finished before it was ended");
        assert_eq!(listing(&out), ["m.nemo"]);
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "the old one");
    }
}

/// Whether a process has a file open in a folder, with a name or without.
fn writes_into(descriptors: &str, folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(descriptors) else { return false };
    let mut targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.any(|target| target.starts_with(folder))
}
