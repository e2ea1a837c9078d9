//! Checkpoints in every layout, and every way they can be damaged.

mod support;

use frontend::{Checkpoint, Names};
use ir::weights::{FloatType, TensorSource};
use serde_json::json;
use std::fs;
use std::path::Path;
use support::{Folder, file, stored, tiny, tiny_with, with_header};

fn model_names() -> Names {
    Names::detect(|name| name == "model.embeddings.weight").unwrap()
}

#[test]
fn opens_a_single_file_and_gives_its_bytes() {
    let folder = Folder::single(&tiny(), &Names::default());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.parameters(), 1112);
    assert!(checkpoint.unknown_tensors().is_empty());
    let name = "backbone.layers.0.mixer.conv1d.weight";
    assert_eq!(checkpoint.describe(name), Some((vec![20, 4], FloatType::Bf16)));
    assert_eq!(checkpoint.bytes(name).unwrap().len(), 20 * 4 * 2);
    let spec = checkpoint.tensor("layers.0.mixer.conv1d.weight").unwrap();
    assert_eq!((spec.name.as_str(), spec.shape.as_slice()), (name, [20, 1, 4].as_slice()));
    assert!(checkpoint.bytes("backbone.nothing").is_err());
}

#[test]
fn opens_shards_with_the_same_tensors_as_a_single_file() {
    let single = Folder::single(&tiny(), &Names::default());
    let sharded = Folder::sharded(&tiny());
    let (single, sharded) = (Checkpoint::open(single.path()).unwrap(), Checkpoint::open(sharded.path()).unwrap());
    assert_eq!(single.tensors(), sharded.tensors());
    assert_eq!(sharded.files().len(), 2);
    for tensor in sharded.tensors() {
        assert_eq!(sharded.bytes(&tensor.name).unwrap().len() as u64, tensor.parameters() * 2);
    }
}

#[test]
fn opens_both_naming_schemes_with_the_same_canonical_names() {
    let old = Folder::single(&tiny(), &Names::default());
    let new = Folder::single(&tiny(), &model_names());
    let (old, new) = (Checkpoint::open(old.path()).unwrap(), Checkpoint::open(new.path()).unwrap());
    assert_eq!(new.names().prefix(), "model.");
    for (a, b) in old.tensors().iter().zip(new.tensors()) {
        assert_eq!((&a.canonical, &a.shape), (&b.canonical, &b.shape));
        assert_eq!(old.bytes(&a.name).unwrap(), new.bytes(&b.name).unwrap());
    }
}

#[test]
fn opens_a_file_whose_embedding_and_norm_have_llama_names() {
    let exists = |name: &str| matches!(name, "model.embed_tokens.weight" | "model.norm.weight");
    let names = Names::detect(exists).unwrap();
    let folder = Folder::single(&tiny(), &names);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tensor("embeddings.weight").unwrap().name, "model.embed_tokens.weight");
    assert_eq!(checkpoint.tensor("norm_f.weight").unwrap().name, "model.norm.weight");
}

#[test]
fn opens_a_configuration_without_weights_for_inspection() {
    let folder = Folder::new(&tiny());
    for path in [folder.path(), &folder.file("config.json")] {
        let checkpoint = Checkpoint::open(path).unwrap();
        assert!(!checkpoint.has_weights());
        assert_eq!(checkpoint.parameters(), 1112);
        assert_eq!(checkpoint.describe("lm_head.weight"), Some((vec![16, 8], FloatType::Bf16)));
        let error = checkpoint.bytes("lm_head.weight").unwrap_err().to_string();
        assert!(error.contains("has a configuration but no weights"), "{error}");
        assert!(checkpoint.require_weights().is_err());
    }
}

#[test]
fn keeps_the_head_of_a_tied_model_optional() {
    let tied = tiny_with("tie_word_embeddings", json!(true));
    let folder = Folder::single(&tied, &Names::default());
    let without = Checkpoint::open(folder.path()).unwrap();
    assert!(!without.has_head());
    let folder = Folder::new(&tied).with("model.safetensors", &file(&stored(&tiny(), &Names::default())));
    let with = Checkpoint::open(folder.path()).unwrap();
    assert!(with.has_head());
    assert_eq!(with.parameters() - without.parameters(), 16 * 8);
}

#[test]
fn lists_unknown_tensors() {
    let mut tensors = stored(&tiny(), &Names::default());
    tensors.push(tensors[0].clone());
    tensors.last_mut().unwrap().name = "mtp.layers.0.weight".into();
    let folder = Folder::new(&tiny()).with("model.safetensors", &file(&tensors));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.unknown_tensors(), ["mtp.layers.0.weight"]);
    assert!(checkpoint.bytes("mtp.layers.0.weight").is_err());
}

#[test]
fn changes_its_digest_with_configuration_and_layout() {
    let digest = |folder: &Folder| Checkpoint::open(folder.path()).unwrap().digest();
    let folder = Folder::single(&tiny(), &Names::default());
    assert_eq!(digest(&folder), digest(&folder));
    let mut tensors = stored(&tiny(), &Names::default());
    tensors.swap(0, 1);
    let before = digest(&folder);
    let folder = folder.with("model.safetensors", &file(&tensors));
    assert_ne!(before, digest(&folder));
}

#[test]
fn reads_element_types_per_tensor() {
    let mut tensors = stored(&tiny(), &Names::default());
    for tensor in &mut tensors {
        if tensor.name.ends_with("A_log") {
            tensor.dtype = "F32";
        }
    }
    let folder = Folder::new(&tiny()).with("model.safetensors", &file(&tensors));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let describe = |name| checkpoint.describe(name).unwrap().1;
    assert_eq!(describe("backbone.layers.0.mixer.A_log"), FloatType::F32);
    assert_eq!(describe("backbone.layers.0.mixer.D"), FloatType::Bf16);
}

#[test]
fn keeps_the_bytes_of_released_tensors() {
    let folder = Folder::sharded(&tiny());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    for tensor in checkpoint.tensors() {
        let before = checkpoint.bytes(&tensor.name).unwrap().to_vec();
        for range in [0..before.len(), 3..7, 0..usize::MAX, 9..9] {
            checkpoint.release(&tensor.name, range);
        }
        assert_eq!(checkpoint.bytes(&tensor.name).unwrap(), before);
    }
    checkpoint.release("no such tensor", 0..8);
}

#[test]
fn refuses_a_missing_shard() {
    let folder = Folder::sharded(&tiny());
    fs::remove_file(folder.file("b.safetensors")).unwrap();
    let error = folder.refusal();
    assert!(error.contains("cannot read b.safetensors"), "{error}");
    assert!(error.contains("help: the index lists this shard"), "{error}");
}

#[test]
fn refuses_shards_without_their_index() {
    let folder = Folder::sharded(&tiny());
    fs::remove_file(folder.file("model.safetensors.index.json")).unwrap();
    assert!(folder.refusal().contains("holds shards but no model.safetensors.index.json"));
}

#[test]
fn refuses_an_index_that_puts_a_tensor_into_the_wrong_shard() {
    let folder = Folder::sharded(&tiny()).reindexed(|map| {
        map.insert("lm_head.weight".into(), json!("a.safetensors"));
    });
    let error = folder.refusal();
    assert!(error.contains("--> a.safetensors: lm_head.weight"), "{error}");
}

#[test]
fn refuses_an_index_that_lists_a_tensor_no_shard_holds() {
    let folder = Folder::sharded(&tiny()).reindexed(|map| {
        map.insert("backbone.ghost".into(), json!("a.safetensors"));
    });
    let error = folder.refusal();
    assert!(error.contains("does not hold the tensor that the index puts there"), "{error}");
}

#[test]
fn refuses_shard_names_that_leave_the_folder() {
    for name in
        ["../evil.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\b", "C:x", "./a.safetensors", "x/"]
    {
        let folder = Folder::sharded(&tiny()).reindexed(|map| {
            map.insert("lm_head.weight".into(), json!(name));
        });
        let error = folder.refusal();
        assert!(error.contains("which is not a plain file name"), "{name:?}: {error}");
        assert!(error.contains("lm_head.weight"), "{name:?}: {error}");
    }
}

#[test]
fn refuses_an_index_that_is_none() {
    for index in [json!({}), json!({"weight_map": {}}), json!({"weight_map": {"a": 1}}), json!([])] {
        let error = Folder::sharded(&tiny()).index(&index).refusal();
        assert!(error.contains("the index of the shards is not valid"), "{index}: {error}");
    }
}

#[test]
fn refuses_a_truncated_file_wherever_it_is_cut() {
    let whole = file(&stored(&tiny(), &Names::default()));
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        let folder = Folder::new(&tiny()).with("model.safetensors", &whole[..length]);
        let error = folder.refusal();
        assert!(error.contains("model.safetensors"), "{length}: {error}");
        assert!(error.contains("download it again"), "{length}: {error}");
    }
}

#[test]
fn refuses_a_header_length_beyond_the_file() {
    let mut bytes = with_header("{}", 0);
    bytes[..8].copy_from_slice(&1000u64.to_le_bytes());
    let error = Folder::new(&tiny()).with("model.safetensors", &bytes).refusal();
    assert!(error.contains("it claims 1000 bytes, but only 2 follow"), "{error}");
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = Folder::new(&tiny()).with("model.safetensors", &bytes).refusal();
    assert!(error.contains("more than the 100000000 allowed"), "{error}");
}

/// The message for a file of two U8 tensors `a` and `b` with 16 bytes of data.
fn layout(a: &str, b: &str) -> String {
    let info = |offsets: &str| format!(r#"{{"dtype":"U8","shape":[8],"data_offsets":{offsets}}}"#);
    let header = format!(r#"{{"a":{},"b":{}}}"#, info(a), info(b));
    Folder::new(&tiny()).with("model.safetensors", &with_header(&header, 16)).refusal()
}

#[test]
fn refuses_tensors_that_overlap_leave_gaps_or_leave_the_file() {
    for (a, b, expected) in [
        ("[0,8]", "[4,12]", "the tensor overlaps a by 4 bytes"),
        ("[0,8]", "[0,8]", "the tensor overlaps a by 8 bytes"),
        ("[1,9]", "[9,17]", "reach beyond the end of the file, which holds 16 bytes of data"),
        ("[2,10]", "[10,18]", "reach beyond the end"),
        ("[0,8]", "[18446744073709551607,18446744073709551615]", "reach beyond the end"),
        ("[0,8]", "[16,8]", "run backwards"),
        ("[0,8]", "[8,12]", "needs 8 bytes, but data offsets [8, 12] give 4"),
    ] {
        let error = layout(a, b);
        assert!(error.contains(expected), "{a} {b}: {error}");
        assert!(error.contains("--> model.safetensors: "), "{a} {b}: {error}");
    }
    let info = r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}"#;
    let folder = |data| Folder::new(&tiny()).with("model.safetensors", &with_header(info, data));
    assert!(folder(12).refusal().contains("a gap of 4 bytes lies between the header and the tensor"));
    let info = info.replace("[4,12]", "[0,8]");
    let folder = Folder::new(&tiny()).with("model.safetensors", &with_header(&info, 12));
    assert!(folder.refusal().contains("4 bytes after a belong to no tensor"));
}

#[test]
fn refuses_a_shape_that_overflows() {
    let header = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,0]}}"#;
    let error = Folder::new(&tiny()).with("model.safetensors", &with_header(header, 0)).refusal();
    assert!(error.contains("overflows"), "{error}");
}

#[test]
fn refuses_a_header_that_lists_a_tensor_twice() {
    let entry = r#""a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    let header = format!("{{{entry},{entry}}}");
    let error = Folder::new(&tiny()).with("model.safetensors", &with_header(&header, 0)).refusal();
    assert!(error.contains("\"a\" is listed twice"), "{error}");
}

#[test]
fn refuses_a_wrong_shape_and_says_which_fields_decide_it() {
    let mut tensors = stored(&tiny(), &Names::default());
    let up = tensors.iter_mut().find(|t| t.name.ends_with("up_proj.weight")).unwrap();
    up.shape = vec![8, 12];
    let error = Folder::new(&tiny()).with("model.safetensors", &file(&tensors)).refusal();
    assert_eq!(
        error,
        "up_proj of layer 1 has shape [8, 12], expected [12, 8]\n  --> model.safetensors: \
         backbone.layers.1.mixer.up_proj.weight\nhelp: config.json says intermediate_size = 12, hidden_size = 8; is \
         this the config of another model?"
    );
}

#[test]
fn refuses_element_types_of_quantized_releases() {
    let mut tensors = stored(&tiny(), &Names::default());
    tensors[1].dtype = "I8";
    let error = Folder::new(&tiny()).with("model.safetensors", &file(&tensors)).refusal();
    assert!(error.contains("norm of layer 0 has element type I8, expected BF16, F16 or F32"), "{error}");
}

#[test]
fn refuses_every_missing_tensor() {
    let tensors = stored(&tiny(), &Names::default());
    for missing in 1..tensors.len() {
        let mut rest = tensors.clone();
        let name = rest.remove(missing).name;
        let error = Folder::new(&tiny()).with("model.safetensors", &file(&rest)).refusal();
        assert!(error.contains(&format!("is missing\n  --> model.safetensors: {name}\n")), "{error}");
    }
}

#[test]
fn refuses_a_checkpoint_of_another_architecture() {
    let tensors: Vec<_> = stored(&tiny(), &Names::default()).into_iter().skip(1).collect();
    let error = Folder::new(&tiny()).with("model.safetensors", &file(&tensors)).refusal();
    assert!(error.contains("no tensor is named like one of a Nemotron-H model"), "{error}");
}

#[test]
fn opens_the_nano_example() {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/nano");
    let checkpoint = Checkpoint::open(&nano).unwrap();
    assert_eq!(checkpoint.config().name, "nano");
    assert_eq!(checkpoint.parameters(), 7_775_096);
    assert!(checkpoint.unknown_tensors().is_empty());
    let a_log = checkpoint.bytes("backbone.layers.0.mixer.A_log").unwrap();
    assert_eq!(a_log.len(), 8 * 4);
}
