//! Text from outside never brings the process down, and what is accepted survives printing.

use ir::melior::Context;
use ir::module::{parse, print};
use ir::verify::verify;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::path::Path;

/// The text of every case of the verifier.
fn corpus() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/verify");
    let mut folders: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut texts = Vec::new();
    for folder in folders {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        texts.extend(files.iter().map(|file| std::fs::read_to_string(file).unwrap()));
    }
    texts
}

/// Parses, verifies, prints and reads back. The printed text of a legal module is read as the same module.
fn exercise(context: &Context, text: &str) {
    let Ok(module) = parse(context, text) else { return };
    let printed = print(&module);
    if verify(context, &module).is_ok() {
        let again = parse(context, &printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        verify(context, &again).unwrap();
        assert_eq!(print(&again), printed);
    }
}

/// A change of a text.
#[derive(Clone, Debug)]
enum Mutation {
    /// Removes words.
    Remove { at: prop::sample::Index, words: usize },
    /// Writes a word of another case over one of this.
    Replace { at: prop::sample::Index, from: prop::sample::Index, word: prop::sample::Index },
    /// Writes something unpleasant over a word.
    Spoil { at: prop::sample::Index, with: &'static str },
    /// Repeats a line elsewhere.
    Repeat { line: prop::sample::Index, at: prop::sample::Index },
    /// Swaps two lines.
    Swap { a: prop::sample::Index, b: prop::sample::Index },
}

const UNPLEASANT: &[&str] = &[
    "\"\"",
    "\"\\FF\\00\"",
    "\"a\\22b\"",
    "-1",
    "0",
    "9223372036854775807",
    "99999999999999999999999999",
    "170141183460469231731687303715884105727 : i128",
    "1.0e400",
    "0x7FF8000000000000",
    "true",
    "unit",
    "[]",
    "{}",
    "loc(\"\")",
    "!nemo.tokens",
    "!nemo.act<",
    "array<i32: 1, -1, 1>",
    "dense<1> : tensor<2xi64>",
    "@x::@y",
    "%x",
    "(",
    ")",
    "// ",
    "\u{1F600}",
    "\0",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    use prop::sample::{Index, select};
    prop_oneof![
        (any::<Index>(), 1_usize..4).prop_map(|(at, words)| Mutation::Remove { at, words }),
        any::<(Index, Index, Index)>().prop_map(|(at, from, word)| Mutation::Replace { at, from, word }),
        (any::<Index>(), select(UNPLEASANT)).prop_map(|(at, with)| Mutation::Spoil { at, with }),
        any::<(Index, Index)>().prop_map(|(line, at)| Mutation::Repeat { line, at }),
        any::<(Index, Index)>().prop_map(|(a, b)| Mutation::Swap { a, b }),
    ]
}

/// Cuts a text into words and what stands between them.
fn words(text: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || "_.%@-".contains(c);
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        words.push(&rest[..end]);
        rest = &rest[end..];
    }
    words
}

fn mutate(text: &str, mutation: &Mutation, corpus: &[String]) -> String {
    let mut parts = words(text);
    let mut lines: Vec<_> = text.lines().collect();
    if parts.is_empty() || lines.is_empty() {
        return String::new();
    }
    match mutation {
        Mutation::Remove { at, words } => {
            let at = at.index(parts.len());
            parts.drain(at..(at + words).min(parts.len()));
        }
        Mutation::Replace { at, from, word } => {
            let at = at.index(parts.len());
            let donor: &String = from.get(corpus);
            let donor = words(donor);
            parts[at] = donor[word.index(donor.len())];
        }
        Mutation::Spoil { at, with } => {
            let at = at.index(parts.len());
            parts[at] = with;
        }
        Mutation::Repeat { line, at } => {
            let line = lines[line.index(lines.len())];
            lines.insert(at.index(lines.len()), line);
            return lines.join("\n");
        }
        Mutation::Swap { a, b } => {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
            return lines.join("\n");
        }
    }
    parts.concat()
}

/// Runs a property on the same cases every time.
fn run<S: Strategy>(cases: u32, strategy: &S, property: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(strategy, |value| {
            property(value);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn survives_mutated_modules() {
    let corpus = corpus();
    let context = ir::irdl::context();
    let strategy = (any::<prop::sample::Index>(), prop::collection::vec(mutation(), 1..5));
    run(3000, &strategy, |(case, mutations)| {
        let text = mutations.iter().fold(case.get(&corpus).clone(), |text, m| mutate(&text, m, &corpus));
        exercise(&context, &text);
    });
}

#[test]
fn survives_arbitrary_text() {
    let context = ir::irdl::context();
    run(500, &"\\PC*", |text: String| exercise(&context, &text));
}

#[test]
fn survives_deep_nesting() {
    let context = ir::irdl::context();
    for (open, close) in [("[", "]"), ("{a = ", "}"), ("tuple<", ">"), ("loc(callsite(", " at unknown))"), ("(", ")")] {
        let text = format!("module attributes {{nemo.a = {}{}}} {{}}", open.repeat(100_000), close.repeat(100_000));
        assert!(parse(&context, &text).is_err());
    }
    let minus = "-".repeat(100_000);
    assert!(parse(&context, &format!("module attributes {{nemo.a = affine_map<(d0) -> ({minus}d0)>}} {{}}")).is_err());
}
