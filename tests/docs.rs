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

#[test]
fn lists_the_kernels_of_the_table() {
    let mut page = "# CUDA kernels\n\nGenerated from the table in `codegen/src/kernels.rs`: each entry point, the template in \
                    `codegen/kernels/` and the instance it names. What the kernels of the launch plan compute is said in \
                    `runtime/src/plan/kernel.rs`.\n\n| entry point | template | instance | threads |\n|---|---|---|---|\n"
        .to_owned();
    for row in codegen::kernels::KERNELS {
        let file = format!("[{0}](../codegen/kernels/{0})", row.file);
        page += &format!("| {} | {file} | `{}` | {} |\n", row.entry.symbol(), row.instance, row.entry.threads);
    }
    check("kernels.md", &page);
}
