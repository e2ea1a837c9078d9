//! What all subcommands have in common.

use crate::support::{nemoc, stderr, stdout};
use std::process::{Command, Stdio};

#[test]
fn exits_with_2_on_wrong_usage() {
    for arguments in [&["frobnicate"][..], &["analyze"], &["analyze", "a", "b"], &["list", "planets"], &[]] {
        nemoc().args(arguments).assert().code(2);
    }
}

#[test]
fn exits_with_0_on_help_and_version() {
    assert!(stdout(&["--help"]).contains("Exit codes: 0 done, 1 failed, 2 wrong usage."));
    assert_eq!(stdout(&["--version"]).trim(), format!("nemoc {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn suggests_the_subcommand_that_was_meant() {
    assert!(stderr(2, &["analyse", "x"]).contains("'analyze'"));
}

#[test]
fn survives_a_reader_that_goes_away() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nemoc"))
        .args(["list", "ops"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the binary ends");
    assert!(output.status.success(), "{:?}", output.status);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn prints_no_colors_into_a_pipe() {
    let message = stderr(1, &["analyze", "no/such/folder"]);
    assert!(!message.contains('\u{1b}'), "{message:?}");
}

#[test]
fn lists_every_op_of_the_table() {
    let listed = stdout(&["list", "ops"]);
    for op in ir::ops::TABLE {
        assert!(listed.lines().any(|line| line.split_whitespace().next() == Some(op.name)), "{}", op.name);
    }
    assert_eq!(listed.lines().count(), ir::ops::TABLE.len());
}

#[test]
fn lists_every_pass_of_the_table() {
    let listed = stdout(&["list", "passes"]);
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, passes::PASSES.iter().map(|pass| pass.name).collect::<Vec<_>>());
}

#[test]
fn lists_every_kernel_of_the_table() {
    let listed = stdout(&["list", "kernels"]);
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, codegen::kernels::KERNELS.iter().map(|row| row.entry.name).collect::<Vec<_>>());
}
