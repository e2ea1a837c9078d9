//! Every pass on small graphs: `tests/passes/PASS/CASE.mlir` with the diff that the pass makes in `CASE.snap`.
//!
//! The name of a case says what is expected: `keeps_...` that the pass does nothing, `refuses_...` an error, anything
//! else a change. Lines `// recipe: TOML` at the top of a case are the recipe; a case without has none. To accept new snapshots: `make bless`.

#[path = "support/ir_text.rs"]
mod ir_text;

use ir::melior::Context;
use ir::melior::ir::Module;
use ir::pass::{Pass, PassFailure};
use ir::stage::Stage;
use ir_text::{difference, readable_where};
use passes::{PipelineOptions, Recipe};
use std::path::{Path, PathBuf};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/passes");

/// The entries of a folder with this extension, in order.
fn entries(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().unwrap_or_default() == extension);
    all.sort();
    all
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

fn options(text: &str) -> PipelineOptions {
    let recipe: String =
        text.lines().filter_map(|line| line.strip_prefix("// recipe: ")).flat_map(|line| [line, "\n"]).collect();
    let recipe = Recipe::parse(&recipe, "the recipe of the case").unwrap();
    PipelineOptions { recipe: text.starts_with("// recipe: ").then_some(recipe), ..PipelineOptions::default() }
}

/// Parses, verifies and runs one pass.
struct Case<'c> {
    context: &'c Context,
    pass: Box<dyn Pass>,
    before: Module<'c>,
}

impl<'c> Case<'c> {
    fn read(context: &'c Context, pass: &str, text: &str) -> Self {
        let before = ir::module::parse(context, text).unwrap_or_else(|error| panic!("{error}"));
        ir::verify::verify(context, &before).unwrap_or_else(|error| panic!("{error}"));
        let pass = passes::find(pass, &options(text)).unwrap_or_else(|error| panic!("{error}"));
        let stage = Stage::of(&before).unwrap();
        assert!(pass.requires().contains(&stage), "the pass does not accept stage {stage}");
        Case { context, pass, before }
    }

    fn keeps(&self) {
        if let Some(after) = self.pass.run(self.context, &self.before).unwrap() {
            panic!("it changed:\n{}", self.difference(&after));
        }
    }

    fn refuses(&self) -> String {
        match self.pass.run(self.context, &self.before) {
            Ok(_) => panic!("it was accepted"),
            Err(PassFailure::User(error)) => {
                format!("error: {error}\nhelp: {}\n", error.help.as_deref().unwrap_or("none"))
            }
            Err(PassFailure::Ir(error)) => panic!("{error}"),
        }
    }

    fn changes(&self) -> String {
        let after = self.pass.run(self.context, &self.before).unwrap().expect("it did nothing");
        ir::verify::verify(self.context, &after).unwrap_or_else(|error| panic!("{error}"));
        let again = self.pass.run(self.context, &after).unwrap();
        assert!(again.is_none(), "it is not idempotent");
        self.difference(&after)
    }

    fn difference(&self, after: &Module<'_>) -> String {
        let text = |module| readable_where(&ir::module::print(module), |_| true);
        difference(&text(&self.before), &text(after))
    }
}

fn check(pass: &str, path: &Path) {
    let name = stem(path);
    println!("{pass}/{name}");
    let text = std::fs::read_to_string(path).unwrap();
    let context = ir::irdl::context();
    let case = Case::read(&context, pass, &text);
    let shown = match name.split('_').next().unwrap() {
        "keeps" => return case.keeps(),
        "refuses" => case.refuses(),
        _ => case.changes(),
    };
    let settings = snapshots(path.parent().unwrap());
    settings.bind(|| insta::assert_snapshot!(name, shown));
}

fn snapshots(folder: &Path) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn every_pass_does_what_the_names_of_its_cases_say() {
    let folders = std::fs::read_dir(CASES).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut folders: Vec<_> = folders.collect();
    folders.sort();
    for folder in folders {
        for path in entries(&folder, "mlir") {
            check(stem(&folder), &path);
        }
    }
}

#[test]
fn no_snapshot_is_without_its_case() {
    for folder in std::fs::read_dir(CASES).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for snapshot in entries(&folder, "snap") {
            assert!(snapshot.with_extension("mlir").exists(), "{} has no case", snapshot.display());
        }
    }
}

#[test]
fn every_pass_has_a_case_that_it_keeps() {
    for spec in passes::PASSES {
        let folder = Path::new(CASES).join(spec.name);
        let keeps = folder.is_dir() && entries(&folder, "mlir").iter().any(|path| stem(path).starts_with("keeps_"));
        assert!(keeps, "{} has no case keeps_...", spec.name);
    }
}
