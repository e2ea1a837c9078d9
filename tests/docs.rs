//! Docs that are generated from tables are those of the tables. `make bless` writes them.

use std::path::Path;

/// Compares a generated page with the committed one, or writes it.
fn check(page: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    if std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always") {
        std::fs::write(&path, expected).expect("docs can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/{page} is stale: run `make bless` and read `git diff`");
}

#[test]
fn lists_the_passes_of_the_table() {
    let mut page =
        "# Passes\n\nGenerated from the table in `passes/src/lib.rs`, in the order of the pipeline. Each file's \
                    head draws the rewrite and says when it does not fire.\n\n| pass | does |\n|---|---|\n"
            .to_owned();
    for pass in passes::PASSES {
        let file = pass.name.replace('-', "_");
        let file = if Path::new(&format!("passes/src/{file}.rs")).exists() {
            format!("{file}.rs")
        } else {
            format!("{file}/mod.rs")
        };
        page += &format!("| [{}](../passes/src/{file}) | {} |\n", pass.name, pass.summary);
    }
    check("passes.md", &page);
}

#[test]
fn describes_the_ops_of_the_table() {
    check("ops.md", &ir::reference::page());
}
