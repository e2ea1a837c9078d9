//! Any bytes as an artifact, as the header of one, and as the plan of an otherwise valid one: an error, or an artifact
//! whose tensors can all be read.
#![no_main]

use runtime::artifact::{Artifact, Checksums, Layout, TensorSpec, Verify};
use runtime::plan::DType;
use std::collections::BTreeMap;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    // The fuzzer rarely guesses an 8-byte length.
    let mut file = (bytes.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(bytes);
    read(&file);
    // And never a checksum.
    if let Ok(plan) = std::str::from_utf8(bytes) {
        read(&sealed(plan));
    }
});

fn read(bytes: &[u8]) {
    for verify in [Verify::HeaderOnly, Verify::Full] {
        if let Ok(artifact) = Artifact::from_bytes(bytes, verify) {
            for (_, view) in artifact.tensors() {
                assert_eq!(view.bytes.len(), view.shape.iter().product::<usize>() * view.dtype.bytes());
            }
        }
    }
}

/// An artifact with this plan and two tensors of zeros.
fn sealed(plan: &str) -> Vec<u8> {
    let metadata: BTreeMap<String, String> = [("format", "nemo"), ("nemo.version", "1"), ("nemo.plan", plan)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::F32, shape: vec![3, 2] };
    let layout = Layout::new(&metadata, [spec("embed.weight"), spec("lm_head.weight")]).expect("two small tensors");
    let mut file = layout.prefix().to_vec();
    let zeros = [0; 24];
    let mut checksums = Checksums { header: xxhash_rust::xxh3::xxh3_64(&file), tensors: BTreeMap::new() };
    for placed in &layout.tensors()[..2] {
        checksums.tensors.insert(placed.spec.name.clone(), xxhash_rust::xxh3::xxh3_64(&zeros));
        file.extend_from_slice(&zeros);
    }
    file.extend_from_slice(&checksums.render());
    file
}
