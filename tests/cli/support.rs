//! What the tests share.

use assert_cmd::Command;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The binary under test, in the root of the repository, so that paths in messages are short.
pub fn nemoc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nemoc"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("RUST_BACKTRACE");
    command
}

/// `compile` of these arguments without kernels and calibration, for tests that are about neither.
pub fn plain_compile<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["compile", "--kernels", "none", "--calibration", "none"], arguments].concat()
}

/// What a command printed to stdout; it must succeed.
pub fn stdout(arguments: &[&str]) -> String {
    let output = nemoc().args(arguments).assert().success().get_output().stdout.clone();
    String::from_utf8(output).expect("output is UTF-8")
}

/// What a command printed to stderr; it must exit with this code and print nothing else.
pub fn stderr(code: i32, arguments: &[&str]) -> String {
    let assert = nemoc().args(arguments).assert().code(code);
    let output = assert.get_output();
    assert!(output.stdout.is_empty(), "stdout: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).expect("messages are UTF-8")
}

/// A failure in the house style: exit code 1, `error: `, and every part given, in order.
pub fn refuses(arguments: &[&str], parts: &[&str]) -> String {
    let message = stderr(1, arguments);
    assert!(message.starts_with("error: "), "{message}");
    let mut rest = message.as_str();
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is not (in this order) in:\n{message}"));
        rest = &rest[at + part.len()..];
    }
    message
}

/// A copy of `examples/nano` that a test may damage.
pub fn nano_copy(into: &Path) -> PathBuf {
    let to = into.join("nano");
    std::fs::create_dir(&to).expect("the folder is new");
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nano")).expect("examples exist")
    {
        let from = entry.expect("the folder can be read").path();
        let name = from.file_name().expect("files have names");
        std::fs::copy(&from, to.join(name)).expect("the file can be copied");
    }
    to
}

/// nano under phases 0 and 1, compiled once, into cargo's folder: what is static is never dropped, and a temporary folder would stay.
fn artifacts() -> &'static [PathBuf; 2] {
    static COMPILED: OnceLock<[PathBuf; 2]> = OnceLock::new();
    COMPILED.get_or_init(|| {
        ["0", "1"].map(|phase| {
            let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nano-{phase}.nemo"));
            let path = output.to_str().expect("cargo's folder has a plain name");
            stdout(&plain_compile(&["examples/nano", "--phase", phase, "-o", path]));
            output
        })
    })
}

/// The artifact of nano under a phase.
pub fn phase(number: usize) -> &'static str {
    artifacts()[number].to_str().expect("cargo's folder has a plain name")
}

/// Rewrites a file.
pub fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(path).expect("the file is text");
    std::fs::write(path, change(text)).expect("the file can be written");
}

/// The binary, running beside the test; it does not outlive it.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the binary.
pub fn nemoc_process(arguments: &[&str]) -> Running {
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_nemoc"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    Running(child)
}

/// Waits for something that takes moments; fails after a minute.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing happened within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ctrl-C.
pub fn interrupt(running: &Running) {
    let killed = std::process::Command::new("kill").args(["-INT", &running.0.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
}
