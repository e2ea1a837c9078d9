//! What the writer leaves behind when something goes wrong.

use codegen::writer::{ArtifactWriter, WriteError, remove_partial};
use runtime::artifact::{Layout, TensorSpec};
use runtime::plan::DType;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set for the process that is killed or starved.
const CHILD_OUTPUT: &str = "NEMOC_TEST_CHILD_OUTPUT";

fn layout(bytes: usize) -> Layout {
    let spec = |name: &str, bytes| TensorSpec { name: name.into(), dtype: DType::U8, shape: vec![bytes] };
    Layout::new(&BTreeMap::new(), [spec("a", bytes), spec("b", 5)]).unwrap()
}

fn write_all(path: &Path) -> Result<u64, WriteError> {
    let writer = ArtifactWriter::create(path, layout(1000))?;
    let mut b = writer.tensor("b")?;
    let mut a = writer.tensor("a")?;
    a.write(&[1; 400])?;
    b.write(&[2; 5])?;
    a.write(&[3; 600])?;
    a.finish()?;
    b.finish()?;
    writer.finish()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn writes_a_valid_safetensors_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    let bytes = write_all(&path).unwrap();
    assert_eq!(files(dir.path()), std::slice::from_ref(&path));
    let file = std::fs::read(&path).unwrap();
    assert_eq!(file.len() as u64, bytes);
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(tensors.tensor("b").unwrap().data(), [2; 5]);
    assert_eq!(tensors.tensor("a").unwrap().data()[399..401], [1, 3]);
}

#[test]
fn replaces_an_earlier_artifact_only_when_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    std::fs::write(&path, "earlier").unwrap();
    let writer = ArtifactWriter::create(&path, layout(1000)).unwrap();
    writer.tensor("a").unwrap().write(&[1; 999]).unwrap();
    drop(writer);
    assert_eq!(std::fs::read(&path).unwrap(), b"earlier");
    assert_eq!(files(dir.path()), std::slice::from_ref(&path));
    write_all(&path).unwrap();
    assert_ne!(std::fs::read(&path).unwrap(), b"earlier");
    assert_eq!(files(dir.path()), [path]);
}

#[test]
fn removes_only_its_own_partial_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    let own = dir.path().join(format!(".m.nemo.{}.abc.partial", std::process::id()));
    let foreign = dir.path().join(".m.nemo.0.abc.partial");
    std::fs::write(&own, "half").unwrap();
    std::fs::write(&foreign, "half").unwrap();
    std::fs::write(&path, "earlier").unwrap();
    remove_partial(&path);
    let mut left = files(dir.path());
    left.sort();
    assert_eq!(left, [foreign, path]);
}

#[test]
fn leaves_nothing_after_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    let result = std::panic::catch_unwind(|| {
        let _writer = ArtifactWriter::create(&path, layout(1000)).unwrap();
        panic!("on purpose");
    });
    assert!(result.is_err());
    assert!(files(dir.path()).is_empty());
}

#[test]
fn refuses_to_finish_with_a_missing_or_partial_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    let writer = ArtifactWriter::create(&path, layout(10)).unwrap();
    let mut a = writer.tensor("a").unwrap();
    a.write(&[0; 4]).unwrap();
    assert!(matches!(a.finish(), Err(WriteError::Tensor { .. })));
    let mut a = writer.tensor("a").unwrap();
    assert!(a.write(&[0; 11]).is_err(), "longer than the tensor");
    assert!(writer.tensor("c").is_err());
    assert!(writer.tensor("nemo.checksums").is_err());
    let error = writer.finish().unwrap_err().to_string();
    assert!(error.contains("was not written"), "{error}");
    assert!(files(dir.path()).is_empty());
}

#[test]
fn says_why_the_output_cannot_be_created() {
    let dir = tempfile::tempdir().unwrap();
    let missing = write_all(&dir.path().join("no/such/m.nemo")).unwrap_err().to_string();
    assert!(missing.contains("no/such does not exist; create it first"), "{missing}");
    let folder = write_all(dir.path()).unwrap_err().to_string();
    assert!(folder.contains("help: give the name of a file"), "{folder}");
    // procfs refuses new files even to root.
    let unwritable = write_all(Path::new("/proc/m.nemo")).unwrap_err();
    assert!(matches!(unwritable, WriteError::Create { .. }), "{unwritable}");
    assert!(write_all(Path::new("/")).is_err());
}

#[test]
fn says_how_much_room_is_missing_before_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    let error = ArtifactWriter::create(&path, layout(1 << 52)).unwrap_err();
    let WriteError::DiskFull { needed, available, .. } = &error else { panic!("{error}") };
    assert!(*needed >= 1 << 52 && *available > 0, "{error}");
    assert!(files(dir.path()).is_empty());
}

/// Runs the ignored test `name` of this file in a process of its own.
fn child(name: &str, output: &Path, shell: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell} exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().unwrap()).args(["--ignored", "--exact", "--nocapture", name]);
    command.env(CHILD_OUTPUT, output);
    command
}

fn child_output() -> PathBuf {
    std::env::var_os(CHILD_OUTPUT).expect("run by another test").into()
}

#[test]
#[ignore = "run by shows_no_half_artifact_after_kill_9"]
fn child_writes_half_and_waits() {
    let writer = ArtifactWriter::create(child_output(), layout(1 << 20)).unwrap();
    writer.tensor("a").unwrap().write(&[1; 1 << 19]).unwrap();
    println!("\nhalf written");
    // Until killed, or until the parent is gone.
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn shows_no_half_artifact_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    std::fs::write(&path, "earlier").unwrap();
    let mut child = child("child_writes_half_and_waits", &path, "");
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "half written"), "the child wrote half");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"earlier");
    let is_hidden = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('.');
    let visible: Vec<PathBuf> = files(dir.path()).into_iter().filter(|path| !is_hidden(path)).collect();
    assert_eq!(visible, [path]);
}

#[test]
#[ignore = "run by leaves_nothing_when_the_system_refuses_more_bytes"]
fn child_writes_beyond_its_limit() {
    let error = ArtifactWriter::create(child_output(), layout(1 << 20)).unwrap_err();
    assert!(matches!(error, WriteError::Write { .. }), "{error}");
    println!("\n{error}");
}

#[test]
fn leaves_nothing_when_the_system_refuses_more_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    let limit = "trap '' XFSZ; ulimit -f 64;";
    let output = child("child_writes_beyond_its_limit", &path, limit).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("cannot write") && text.contains("m.nemo"), "{text}");
    assert!(files(dir.path()).is_empty());
}
