//! The rules of the verifier, one folder a rule, one file a case: `tests/verify/RULE/CASE.mlir`.
//!
//! An expected violation stands in a comment at the end of the line of its op, `// expected-error: TEXT`; TEXT is part of
//! the message. A line may have several. A file without any must verify.

use ir::error::Violation;
use ir::manager::{Manager, Options};
use ir::stage::Stage;
use std::path::{Path, PathBuf};

const MARK: &str = "// expected-error: ";

/// Line and text of each expected violation.
fn expected(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .enumerate()
        .flat_map(|(index, line)| line.split(MARK).skip(1).map(move |message| (index + 1, message.trim())))
        .collect()
}

/// What the parser or the verifier says about a file.
fn found(text: &str) -> Vec<Violation> {
    let context = ir::irdl::context();
    let checked = ir::module::parse(&context, text).and_then(|module| ir::verify::verify(&context, &module));
    match checked {
        Ok(()) => Vec::new(),
        Err(error) => {
            assert!(!error.violations().is_empty(), "not a list of violations: {error}");
            error.violations().to_vec()
        }
    }
}

/// Differences between what a case expects and what is found.
fn differences(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut missing = expected(&text);
    let mut differences = Vec::new();
    for violation in found(&text) {
        let matching = missing
            .iter()
            .position(|(line, message)| violation.line == Some(*line) && violation.message.contains(message));
        match matching {
            Some(index) => drop(missing.remove(index)),
            None => differences.push(format!("{}: unexpected: {violation}", path.display())),
        }
    }
    let missing = missing.iter().map(|(line, message)| format!("{}: line {line}: missing: {message}", path.display()));
    differences.extend(missing);
    differences
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify")
}

#[test]
fn finds_exactly_the_expected_violations_of_every_case() {
    let cases: Vec<_> = files(&folder()).iter().flat_map(|rule| files(rule)).collect();
    let differences: Vec<_> = cases.iter().flat_map(|case| differences(case)).collect();
    assert!(differences.is_empty(), "{} difference(s):\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn has_a_case_that_is_accepted_and_one_that_is_refused_for_every_rule() {
    for rule in files(&folder()) {
        let accepted =
            files(&rule).iter().filter(|case| !std::fs::read_to_string(case).unwrap().contains(MARK)).count();
        let all = files(&rule).len();
        assert!(accepted > 0 && accepted < all, "{}: {accepted} of {all} cases are accepted", rule.display());
    }
}

#[test]
fn has_a_folder_for_every_rule_of_the_definition() {
    let definition = include_str!("../ir/src/verify/mod.rs");
    let numbers = definition.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once(". "));
    let rules: Vec<usize> = numbers.filter_map(|(number, _)| number.parse().ok()).collect();
    assert_eq!(rules, (1..=rules.len()).collect::<Vec<_>>());
    let folders: Vec<usize> = files(&folder())
        .iter()
        .map(|folder| folder.file_name().unwrap().to_str().unwrap()[..2].parse().expect("NN-RULE"))
        .collect();
    // Folder 00 holds what MLIR itself refuses.
    assert_eq!(folders, (0..=rules.len()).collect::<Vec<_>>());
}

/// The graph of the nano checkpoint as imported.
fn nano(context: &ir::melior::Context) -> ir::melior::ir::Module<'_> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nano");
    frontend::import::import(context, &frontend::Checkpoint::open(&folder).unwrap()).unwrap()
}

#[test]
fn accepts_the_import_of_the_nano_checkpoint_and_its_text() {
    let context = ir::irdl::context();
    let module = nano(&context);
    ir::verify::verify(&context, &module).unwrap_or_else(|error| panic!("{error}"));
    let text = ir::module::print(&module);
    let again = ir::module::parse(&context, &text).unwrap();
    ir::verify::verify(&context, &again).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ir::module::print(&again), text);
}

#[test]
fn accepts_the_plan_of_the_nano_checkpoint() {
    let context = ir::irdl::context();
    let manager = Manager::new(vec![Box::new(passes::lower_to_plan::LowerToPlan)], Options::default());
    let (module, report) = manager.run(&context, nano(&context), &mut ()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(Stage::of(&module), Some(Stage::Planned));
    assert_eq!(report.last_changed().map(|run| run.name), Some("lower-to-plan"));
}
