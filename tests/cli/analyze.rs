//! `nemoc analyze`, and what it says of checkpoints that are not one.

use crate::support::{edit, nano_copy, nemoc, refuses, stdout};
use predicates::str::contains;
use std::path::Path;
use tempfile::tempdir;

const NEMOTRON_8B: &str = "examples/configs/nemotron-h-8b-base-8k/config.json";

#[test]
fn counts_the_parameters_of_the_8b_model_from_its_config_alone() {
    let text = stdout(&["analyze", NEMOTRON_8B]);
    assert!(text.contains("8,100,852,736"), "{text}");
    assert!(text.contains("M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"), "{text}");
}

#[test]
fn prints_json_that_adds_up() {
    let value: serde_json::Value = serde_json::from_str(&stdout(&["analyze", "examples/nano", "--json"])).unwrap();
    let rows = value["rows"].as_array().unwrap();
    let sum: u64 = rows.iter().map(|row| row["parameters"].as_u64().unwrap()).sum();
    assert_eq!(sum, 7_775_096);
    assert_eq!(value["totals"]["parameters"].as_u64(), Some(sum));
    assert_eq!(value["pattern"], "M-M*-M-M*-M-");
}

#[test]
fn prints_csv_with_as_many_fields_in_every_record() {
    let text = stdout(&["analyze", "examples/nano", "--csv"]);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let fields = reader.headers().unwrap().len();
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert!(records.iter().all(|record| record.len() == fields));
    assert_eq!(&records.last().unwrap()[0], "total");
}

#[test]
fn refuses_two_formats_at_once() {
    nemoc().args(["analyze", "examples/nano", "--json", "--csv"]).assert().code(2);
}

/// Changes config.json of a copy of nano and expects a refusal with these parts.
fn refuses_config(change: impl FnOnce(&mut serde_json::Value), parts: &[&str]) {
    let dir = tempdir().unwrap();
    let nano = nano_copy(dir.path());
    edit(&nano.join("config.json"), |text| {
        let text = text.replace("Infinity", "1e30");
        let mut value = serde_json::from_str(&text).unwrap();
        change(&mut value);
        value.to_string()
    });
    refuses(&["analyze", nano.to_str().unwrap()], parts);
}

#[test]
fn refuses_an_unknown_layer_letter() {
    refuses_config(
        |config| config["hybrid_override_pattern"] = "M-M*-M-M*-MX".into(),
        &["layer 11", "\"X\"", "config.json", "help: "],
    );
}

#[test]
fn refuses_moe_layers_as_not_supported_yet() {
    refuses_config(
        |config| config["hybrid_override_pattern"] = "M-M*-M-M*-ME".into(),
        &["not supported yet", "config.json", "help: "],
    );
}

#[test]
fn refuses_absurd_numbers() {
    for number in ["0", "-1", "1000000000000000000"] {
        for field in ["hidden_size", "vocab_size", "mamba_num_heads", "ssm_state_size", "conv_kernel"] {
            let value: serde_json::Value = serde_json::from_str(number).unwrap();
            refuses_config(|config| config[field] = value, &[field, number, "config.json", "help: "]);
        }
    }
}

#[test]
fn refuses_a_config_of_another_shape_and_names_the_tensor() {
    refuses_config(
        |config| config["intermediate_size"] = 1056.into(),
        &[
            "up_proj of layer 1 has shape [1024, 256], expected [1056, 256]",
            "--> model.safetensors: backbone.layers.1.mixer.up_proj.weight",
            "help: config.json says intermediate_size = 1056, hidden_size = 256",
        ],
    );
}

#[test]
fn refuses_a_truncated_file() {
    let dir = tempdir().unwrap();
    let nano = nano_copy(dir.path());
    let weights = nano.join("model.safetensors");
    let file = std::fs::OpenOptions::new().write(true).open(&weights).unwrap();
    file.set_len(9_000_000).unwrap();
    refuses(
        &["analyze", nano.to_str().unwrap()],
        &["reach beyond the end of the file, which holds 8992584 bytes", "model.safetensors", "help: ", "truncated"],
    );
}

#[test]
fn refuses_a_header_that_is_longer_than_the_file() {
    let dir = tempdir().unwrap();
    let nano = nano_copy(dir.path());
    let weights = nano.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes[..8].copy_from_slice(&50_000_000u64.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    refuses(&["analyze", nano.to_str().unwrap()], &["header", "model.safetensors", "help: "]);
}

/// Replaces text of the safetensors header by text of the same length.
fn edit_header(weights: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(weights).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    assert!(header.contains(from), "{header}");
    bytes[8..8 + length].copy_from_slice(header.replacen(from, to, 1).as_bytes());
    std::fs::write(weights, bytes).unwrap();
}

#[test]
fn refuses_a_missing_tensor() {
    let dir = tempdir().unwrap();
    let nano = nano_copy(dir.path());
    edit_header(&nano.join("model.safetensors"), "layers.3.mixer.k_proj.weight", "layers.3.mixer.k_prox.weight");
    refuses(
        &["analyze", nano.to_str().unwrap()],
        &["k_proj of layer 3", "missing", "backbone.layers.3.mixer.k_proj.weight", "help: "],
    );
}

#[test]
fn refuses_a_tensor_of_integers() {
    let dir = tempdir().unwrap();
    let nano = nano_copy(dir.path());
    edit_header(&nano.join("model.safetensors"), "\"dtype\":\"BF16\"", "\"dtype\":\"U16\" ");
    refuses(&["analyze", nano.to_str().unwrap()], &["U16", "expected BF16, F16 or F32", "model.safetensors", "help: "]);
}

#[test]
fn refuses_an_index_whose_shard_is_missing_or_outside_the_folder() {
    for (shard, why) in
        [("model-00001-of-00002.safetensors", "cannot read"), ("../secret.safetensors", "not a plain file name")]
    {
        let dir = tempdir().unwrap();
        let nano = nano_copy(dir.path());
        std::fs::remove_file(nano.join("model.safetensors")).unwrap();
        let index = serde_json::json!({ "weight_map": { "backbone.embeddings.weight": shard } });
        std::fs::write(nano.join("model.safetensors.index.json"), index.to_string()).unwrap();
        let message = refuses(&["analyze", nano.to_str().unwrap()], &[" --> ", "help: "]);
        assert!(message.contains(shard) && message.contains(why), "{message}");
    }
}

#[test]
fn warns_of_tensors_that_the_model_does_not_use() {
    let dir = tempdir().unwrap();
    let nano = nano_copy(dir.path());
    // The tied head is the embedding table: its own tensor becomes a stranger.
    edit(&nano.join("config.json"), |text| {
        text.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true")
    });
    edit_header(&nano.join("model.safetensors"), "lm_head.weight", "lm_tail.weight");
    nemoc().args(["analyze", nano.to_str().unwrap()]).assert().success().stderr(contains("lm_tail.weight"));
}
