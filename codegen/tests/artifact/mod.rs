//! Artifacts of plans, for tests that run them.

use codegen::plan::Compiled;
use codegen::weights::{Contents, materialize};
use ir::weights::TensorSource;
use runtime::artifact::{Artifact, Metadata, Provenance, Verify};
use runtime::cpu::{self, Device};
use std::collections::BTreeMap;

/// The plan with its weights; its file is gone when this returns, the mapping keeps the bytes.
pub fn artifact(compiled: &Compiled, source: &dyn TensorSource) -> Artifact {
    let metadata = Metadata {
        plan: compiled.plan.clone(),
        recipe: String::new(),
        provenance: Provenance::default(),
        extra: BTreeMap::new(),
    };
    let contents =
        Contents { weights: &compiled.weights, parameters: &compiled.parameters, extra: &[], metadata: &metadata };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.nemo");
    materialize(&contents, source, &path, &|_, _| ()).unwrap();
    Artifact::open(&path, Verify::HeaderOnly).unwrap()
}

/// One thread, so that nothing depends on how many there are.
pub fn device(artifact: &Artifact) -> Device<'_> {
    let options = cpu::Options { threads: Some(1), ..cpu::Options::default() };
    Device::new(artifact.plan(), artifact, &options).unwrap()
}
