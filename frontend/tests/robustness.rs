//! Whatever the bytes: an error or a value, never a panic, and no memory out of proportion.

mod support;

use frontend::Config;
use frontend::header::Header;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{file, stored, tiny, with_header};

/// JSON values that configurations and headers do not expect.
fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..40i64).prop_map(Value::from),
        "[-M*E a-z]{0,8}".prop_map(Value::from),
        prop::collection::vec(any::<u64>().prop_map(Value::from), 0..4).prop_map(Value::from),
    ]
}

/// The shape arithmetic of a configuration that was accepted must not overflow: debug builds would panic.
fn use_every_size(config: &Config) {
    let names = frontend::Names::default();
    let total: u64 = frontend::names::tensors(config, &names, true).iter().map(|tensor| tensor.parameters() * 4).sum();
    assert!(total > 0);
}

proptest! {
    #[test]
    fn config_parser_survives_any_text(text in "\\PC{0,200}") {
        let _ = Config::parse(&text, "config.json");
    }

    #[test]
    fn config_parser_survives_cut_and_damaged_configurations(at in 0usize..900, with in any::<char>()) {
        let text = tiny().to_string();
        let at = at % text.len();
        let _ = Config::parse(&text[..at], "config.json");
        let damaged = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        if let Ok(config) = Config::parse(&damaged, "config.json") {
            use_every_size(&config);
        }
    }

    #[test]
    fn config_parser_survives_odd_values_in_two_fields(
        first in 0usize..64, a in odd_value(), second in 0usize..64, b in odd_value()
    ) {
        let mut config = tiny();
        let fields: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
        config[&fields[first % fields.len()]] = a;
        config[&fields[second % fields.len()]] = b;
        if let Ok(config) = Config::parse(&config.to_string(), "config.json") {
            use_every_size(&config);
        }
    }

    #[test]
    fn header_parser_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Header::parse(&bytes, "model.safetensors");
    }

    #[test]
    fn header_parser_survives_any_json(text in "[{}\\[\\]\":,0-9a-zA-Z_ ]{0,120}", data in 0usize..32) {
        let _ = Header::parse(&with_header(&text, data), "model.safetensors");
    }

    #[test]
    fn header_parser_survives_any_entry(
        shape in prop::collection::vec(prop_oneof![any::<u64>(), 0..20u64], 0..4),
        start in prop_oneof![any::<u64>(), 0..20u64],
        end in prop_oneof![any::<u64>(), 0..20u64],
        dtype in prop::sample::select(vec!["BF16", "F4", "F32", "BOOL", "C64"]),
        data in 0usize..64,
    ) {
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        let bytes = with_header(&json!({"a": info}).to_string(), data);
        if let Ok(header) = Header::parse(&bytes, "model.safetensors") {
            prop_assert!(bytes.get(header.tensors["a"].range.clone()).is_some());
        }
    }

    #[test]
    fn header_parser_survives_damaged_files(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = file(&stored(&tiny(), &frontend::Names::default()));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(header) = Header::parse(&bytes, "model.safetensors") {
            for entry in header.tensors.values() {
                prop_assert!(bytes.get(entry.range.clone()).is_some());
            }
        }
    }
}
