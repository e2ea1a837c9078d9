//! Which crate may depend on which, asserted from `cargo metadata`: the rules of ARCHITECTURE.md.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};

/// Workspace crates and the workspace crates each may use.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("nemoc-ir", &[]),
    ("nemoc-runtime", &[]),
    ("nemoc-frontend", &["nemoc-ir"]),
    ("nemoc-passes", &["nemoc-ir"]),
    ("nemoc-codegen", &["nemoc-ir", "nemoc-runtime"]),
    ("nemoc", &["nemoc-ir", "nemoc-runtime", "nemoc-frontend", "nemoc-passes", "nemoc-codegen"]),
];

fn metadata() -> Metadata {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .other_options(["--offline", "--locked", "--filter-platform", &platform].map(String::from))
        .exec()
        .expect("cargo metadata runs")
}

/// Names of the packages that each package uses, without what only its tests use.
fn dependencies(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let resolve = metadata.resolve.as_ref().expect("metadata was resolved");
    let name = |id: &cargo_metadata::PackageId| metadata[id].name.to_string();
    let uses = |node: &cargo_metadata::Node| {
        let built =
            |dep: &&cargo_metadata::NodeDep| dep.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
        node.deps.iter().filter(built).map(|dep| name(&dep.pkg)).collect()
    };
    resolve.nodes.iter().map(|node| (name(&node.id), uses(node))).collect()
}

fn reachable(graph: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![from.to_owned()];
    while let Some(package) = todo.pop() {
        let Some(uses) = graph.get(&package) else { continue };
        todo.extend(uses.iter().filter(|name| seen.insert((*name).clone())).cloned());
    }
    seen
}

#[test]
fn keeps_mlir_out_of_the_runtime() {
    let seen = reachable(&dependencies(&metadata()), "nemoc-runtime");
    for forbidden in ["melior", "mlir-sys", "tblgen", "nemoc-ir", "nemoc-frontend", "nemoc-passes", "nemoc-codegen"] {
        assert!(!seen.contains(forbidden), "nemoc-runtime reaches {forbidden}");
    }
    assert!(seen.contains("tokenizers"), "the graph was read wrongly: the runtime uses tokenizers");
}

#[test]
fn keeps_dependencies_between_crates_one_way() {
    let graph = dependencies(&metadata());
    let members: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    for (crate_name, allowed) in ALLOWED {
        let uses: BTreeSet<&str> =
            graph[crate_name].iter().map(String::as_str).filter(|name| members.contains(name)).collect();
        let extra: Vec<_> = uses.iter().filter(|name| !allowed.contains(name)).collect();
        assert!(extra.is_empty(), "{crate_name} may not depend on {extra:?}");
    }
}

#[test]
fn knows_every_crate_of_the_workspace() {
    let metadata = metadata();
    let members: BTreeSet<String> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let known: BTreeSet<String> = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(members, known, "list new crates in ALLOWED, with what they may depend on");
}
