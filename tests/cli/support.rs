//! What the tests share.

use assert_cmd::Command;
use std::path::{Path, PathBuf};

/// The binary under test, in the root of the repository, so that paths in messages are short.
pub fn nemoc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nemoc"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("RUST_BACKTRACE");
    command
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

/// Rewrites a file.
pub fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(path).expect("the file is text");
    std::fs::write(path, change(text)).expect("the file can be written");
}
