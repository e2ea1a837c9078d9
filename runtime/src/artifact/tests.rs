use super::*;
use crate::plan::{
    Activation, Buffer, BufferId, Cost, DType, Embedding, Epilogue, Kernel, Launch, ModelInfo, PLAN_VERSION, Plan,
    Rows, Segment, WeightFormat,
};
use crate::tensors::TensorStore;
use proptest::prelude::*;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

fn buffer(name: &str, cols: usize, rows: Rows) -> Buffer {
    Buffer { name: name.into(), dtype: DType::F32, cols, rows }
}

/// Embeds, selects, multiplies by the head.
fn plan() -> Plan {
    let format = WeightFormat::Float { dtype: DType::F32 };
    let table = Embedding { weight: "embed".into(), format, vocab_size: 3, hidden_size: 2 };
    let head =
        Segment { weight: "lm_head".into(), format, out_features: 3, epilogue: Epilogue::Store, out: BufferId(2) };
    Plan {
        version: PLAN_VERSION,
        model: ModelInfo {
            name: "test \"model\"".into(),
            vocab_size: 3,
            hidden_size: 2,
            layer_pattern: "M-*".into(),
            max_position_embeddings: None,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            parameters: 6,
            phase: "1".into(),
        },
        buffers: vec![
            buffer("x", 2, Rows::Token),
            buffer("selected", 2, Rows::Output),
            buffer("logits", 3, Rows::Output),
        ],
        states: vec![],
        launches: [
            Kernel::Embed { table, out: BufferId(0) },
            Kernel::SelectOutputs { x: BufferId(0), out: BufferId(1) },
            Kernel::Linear { x: Activation::Float { data: BufferId(1) }, in_features: 2, segments: vec![head] },
        ]
        .map(|kernel| Launch { kernel, origin: "test".into(), cost: Cost::default() })
        .into(),
        logits: BufferId(2),
    }
}

fn metadata() -> Metadata {
    Metadata {
        plan: plan(),
        recipe: "phase = 1\n".into(),
        provenance: Provenance {
            nemoc_version: "0.1.0".into(),
            passes: vec!["fold-norms".into()],
            ..Provenance::default()
        },
        extra: [("note".to_owned(), "ü\n".to_owned())].into(),
    }
}

fn tensors() -> Vec<(TensorSpec, Vec<u8>)> {
    let tensor = |name: &str, dtype: DType, shape: &[usize]| {
        let spec = TensorSpec { name: name.into(), dtype, shape: shape.into() };
        let bytes = spec.bytes().unwrap();
        (spec, (0..bytes).map(|i| (i * 7 + name.len()) as u8).collect())
    };
    vec![
        tensor("tokenizer.json", DType::U8, &[17]),
        tensor("embed.weight", DType::F32, &[3, 2]),
        tensor("lm_head.weight", DType::F32, &[3, 2]),
        tensor("norm.weight", DType::F32, &[5]),
        tensor("head.scale", DType::F16, &[3, 3]),
        tensor("head.weight", DType::I8, &[3, 256]),
        tensor("empty", DType::F32, &[0, 4]),
    ]
}

/// An artifact in memory, with these metadata.
fn build(metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let data: BTreeMap<String, Vec<u8>> = tensors().into_iter().map(|(spec, bytes)| (spec.name, bytes)).collect();
    let layout = Layout::new(metadata, tensors().into_iter().map(|(spec, _)| spec)).unwrap();
    let checksums = Checksums {
        header: xxh3_64(layout.prefix()),
        tensors: data.iter().map(|(name, bytes)| (name.clone(), xxh3_64(bytes))).collect(),
    };
    let mut file = layout.prefix().to_vec();
    for placed in layout.tensors() {
        assert_eq!(file.len() as u64, placed.offset);
        match data.get(&placed.spec.name) {
            Some(bytes) => file.extend_from_slice(bytes),
            None => file.extend_from_slice(&checksums.render()),
        }
    }
    assert_eq!(file.len() as u64, layout.file_bytes());
    file
}

fn good() -> Vec<u8> {
    build(&metadata().to_map().unwrap())
}

fn build_with(change: impl FnOnce(&mut BTreeMap<String, String>)) -> Vec<u8> {
    let mut map = metadata().to_map().unwrap();
    change(&mut map);
    build(&map)
}

fn open(bytes: &[u8]) -> Result<Artifact, ArtifactError> {
    Artifact::from_bytes(bytes, Verify::Full)
}

#[test]
fn reads_back_what_was_written() {
    let artifact = open(&good()).unwrap();
    assert_eq!(artifact.metadata(), &metadata());
    for (spec, bytes) in tensors() {
        let view = artifact.tensor(&spec.name).unwrap();
        assert_eq!((view.dtype, view.shape, view.bytes), (spec.dtype, &spec.shape[..], &bytes[..]));
    }
    assert_eq!(artifact.tensors().count(), tensors().len());
    assert_eq!(artifact.tokenizer().map(<[u8]>::len), Some(17));
    assert!(artifact.tensor("absent").is_none());
}

#[test]
fn is_a_valid_safetensors_file() {
    let bytes = good();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), tensors().len() + 1);
    let weight = file.tensor("head.weight").unwrap();
    assert_eq!((weight.dtype(), weight.shape()), (safetensors::Dtype::I8, &[3, 256][..]));
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "nemo");
}

#[test]
fn aligns_every_weight_to_the_power_of_two_in_its_size() {
    let map = metadata().to_map().unwrap();
    let layout = Layout::new(&map, tensors().into_iter().map(|(spec, _)| spec)).unwrap();
    let (checksums, weights) = layout.tensors().split_last().unwrap();
    assert_eq!(checksums.spec.name, CHECKSUMS_TENSOR);
    for placed in weights.iter().filter(|placed| placed.bytes > 0) {
        let power = 1u64 << placed.bytes.trailing_zeros().min(8);
        assert_eq!(placed.offset % power, 0, "{}", placed.spec.name);
    }
    assert_eq!(layout.tensors().last().unwrap().spec.name, CHECKSUMS_TENSOR);
}

#[test]
fn opens_a_file_by_mapping_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    std::fs::write(&path, good()).unwrap();
    let artifact = Artifact::open(&path, Verify::Full).unwrap();
    assert_eq!(artifact.plan(), &plan());
    assert_eq!(artifact.file_bytes(), good().len());
}

#[test]
fn names_the_file_it_cannot_open() {
    let error = Artifact::open("no/such.nemo", Verify::Full).unwrap_err();
    assert!(error.to_string().contains("no/such.nemo"), "{error}");
}

#[test]
fn names_the_altered_tensor() {
    let bytes = good();
    let weight = header::parse(&bytes).unwrap().tensors["head.weight"].range.clone();
    let mut altered = bytes;
    altered[weight.start + 300] ^= 0x10;
    let error = open(&altered).unwrap_err();
    assert!(matches!(&error, ArtifactError::Altered { what, .. } if what == "tensor `head.weight`"), "{error}");
    Artifact::from_bytes(&altered, Verify::HeaderOnly).unwrap();
}

#[test]
fn refuses_every_single_altered_byte() {
    let bytes = good();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 0x01;
        assert!(open(&altered).is_err(), "byte {at} of {}", bytes.len());
    }
}

#[test]
fn says_truncated_at_every_length_that_holds_the_first_brace() {
    let bytes = good();
    for length in 0..bytes.len() {
        match open(&bytes[..length]).unwrap_err() {
            ArtifactError::NotAnArtifact { .. } if length <= 8 => {}
            ArtifactError::Truncated { found, .. } if length > 8 => {
                assert_eq!(found, length as u64)
            }
            other => panic!("length {length}: {other}"),
        }
    }
}

#[test]
fn refuses_trailing_bytes() {
    let mut bytes = good();
    bytes.push(0);
    let error = open(&bytes).unwrap_err().to_string();
    assert!(error.contains("1 bytes follow the last tensor"), "{error}");
}

#[test]
fn refuses_other_files() {
    for bytes in [&b"hello world, this is text"[..], &[0; 64], b"\xff\xff\xff\xff\xff\xff\xff\xff{"] {
        assert!(matches!(open(bytes), Err(ArtifactError::NotAnArtifact { .. })));
    }
    let plain = build_with(|map| {
        map.remove("format");
    });
    assert!(matches!(open(&plain), Err(ArtifactError::NotAnArtifact { .. })));
}

#[test]
fn refuses_a_future_version_by_number() {
    let error = open(&build_with(|map| {
        map.insert("nemo.version".into(), "3".into());
    }))
    .unwrap_err();
    assert!(error.to_string().starts_with("the artifact has version 3, this build reads up to 2"), "{error}");

    let mut newer = plan();
    newer.version = PLAN_VERSION + 1;
    let error = open(&build_with(|map| {
        map.insert("nemo.plan".into(), serde_json::to_string(&newer).unwrap());
    }))
    .unwrap_err();
    assert!(matches!(error, ArtifactError::FutureVersion { what: "the launch plan", .. }), "{error}");
}

#[test]
fn says_when_the_plan_is_missing_or_garbage() {
    let error = open(&build_with(|map| {
        map.remove("nemo.plan");
    }))
    .unwrap_err();
    assert!(error.to_string().starts_with("the artifact has no launch plan"), "{error}");
    let error = open(&build_with(|map| {
        map.insert("nemo.plan".into(), "{\"version\":1}".into());
    }))
    .unwrap_err();
    assert!(matches!(error, ArtifactError::Plan { .. }), "{error}");
}

#[test]
fn refuses_a_plan_that_cannot_run() {
    let mut broken = plan();
    broken.logits = BufferId(9);
    let text = serde_json::to_string(&broken).unwrap();
    let error = open(&build_with(|map| drop(map.insert("nemo.plan".into(), text)))).unwrap_err();
    assert!(matches!(error, ArtifactError::InvalidPlan(_)), "{error}");
}

fn raw(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn refuses_inconsistent_headers() {
    let metadata = r#""__metadata__":{"format":"nemo","nemo.version":"1"}"#;
    let cases = [
        (r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#, "claims the bytes 0..4"),
        (r#""a":{"dtype":"U8","shape":[4],"data_offsets":[8,4]}"#, "claims the bytes 8..4"),
        (r#""a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}"#, "unknown element type"),
        (r#""a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}"#, "claims the bytes 0..0"),
        (
            r#""a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]}"#,
            "beyond any file",
        ),
        (
            r#""a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}"#,
            "overlaps",
        ),
        (r#""a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}"#, "gap"),
        (r#""a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}"#, "no tensor `nemo.checksums`"),
        (r#""a":7"#, "no safetensors header"),
    ];
    for (tensor, expected) in cases {
        let error = open(&raw(&format!("{{{metadata},{tensor}}}"), 8)).unwrap_err().to_string();
        assert!(error.contains(expected), "{tensor}: {error}");
    }
}

#[test]
fn refuses_unaligned_floats() {
    let metadata = r#""__metadata__":{"format":"nemo","nemo.version":"1"}"#;
    let tensors =
        r#""a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}"#;
    let header = format!("{{{metadata},{tensors}}}");
    let padding = " ".repeat(header.len().next_multiple_of(4) - header.len());
    let error = open(&raw(&format!("{header}{padding}"), 5)).unwrap_err().to_string();
    assert!(error.contains("not aligned"), "{error}");
}

#[test]
fn refuses_names_that_collide() {
    let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::U8, shape: vec![1] };
    let map = BTreeMap::new();
    let twice = Layout::new(&map, [spec("a"), spec("a")]).unwrap_err();
    assert_eq!(twice, LayoutError::Duplicate { name: "a".into() });
    let reserved = Layout::new(&map, [spec(CHECKSUMS_TENSOR)]).unwrap_err();
    assert!(matches!(reserved, LayoutError::Reserved { .. }));
    let huge = TensorSpec { shape: vec![usize::MAX, 2], ..spec("huge") };
    assert!(matches!(Layout::new(&map, [huge]), Err(LayoutError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn never_panics_on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn never_panics_on_an_arbitrary_header(text in r#"\{["a-z_:{}\[\],0-9 .]{0,200}\}?"#, data in 0usize..64) {
        prop_assert!(open(&raw(&text, data)).is_err());
    }

    #[test]
    fn never_panics_on_a_mutated_artifact(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = good();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let keep = keep.index(bytes.len() + 1);
        let _ = open(&bytes[..keep]);
        let _ = Artifact::from_bytes(&bytes[..keep], Verify::HeaderOnly);
    }
}
