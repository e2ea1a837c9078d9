//! `config.json` in every spelling, and every way to get it wrong.

mod support;

use frontend::{Config, LayerKind};
use serde_json::{Value, json};
use support::{parse, tiny, tiny_with};

/// The message for `tiny()` with one field replaced.
fn refusal(field: &str, value: Value) -> String {
    parse(&tiny_with(field, value)).unwrap_err().to_string()
}

fn renamed(from: &str, to: &str) -> Value {
    let mut config = tiny();
    let value = config.as_object_mut().unwrap().remove(from).unwrap();
    config[to] = value;
    config
}

#[test]
fn reads_every_field() {
    let config = parse(&tiny()).unwrap();
    assert_eq!(config.layers, [LayerKind::Mamba, LayerKind::Mlp, LayerKind::Attention]);
    assert_eq!(config.pattern(), "M-*");
    assert_eq!((config.hidden_size, config.vocab_size, config.intermediate_size), (8, 16, 12));
    assert_eq!(config.mamba.d_inner(), 8);
    assert_eq!(config.mamba.conv_channels(), 8 + 2 * 2 * 3);
    assert_eq!(config.mamba.in_proj_rows(), 8 + 20 + 4);
    assert_eq!((config.attention.q_features(), config.attention.kv_features()), (8, 4));
    assert_eq!((config.mamba.dt_min, config.mamba.dt_max), (0.0, None));
    assert_eq!((config.bos_token_id, config.pad_token_id), (Some(1), Some(0)));
    assert_eq!(config.eos_token_ids, [2]);
}

#[test]
fn reads_the_spellings_of_transformers_5_alike() {
    let mut modern = tiny();
    let object = modern.as_object_mut().unwrap();
    object.remove("hybrid_override_pattern");
    object.insert("layers_block_type".into(), json!(["mamba", "mlp", "attention"]));
    object.remove("torch_dtype");
    object.insert("dtype".into(), json!("bfloat16"));
    assert_eq!(parse(&modern).unwrap(), parse(&tiny()).unwrap());
    modern["layers_block_type"] = json!(["linear_attention", "mlp", "full_attention"]);
    assert_eq!(parse(&modern).unwrap(), parse(&tiny()).unwrap());
}

#[test]
fn reads_renamed_fields_alike() {
    let expected = parse(&tiny()).unwrap();
    for (from, to) in [
        ("head_dim", "attention_head_dim"),
        ("layer_norm_epsilon", "rms_norm_eps"),
        ("n_groups", "mamba_n_groups"),
        ("conv_kernel", "mamba_d_conv"),
        ("use_conv_bias", "mamba_conv_bias"),
    ] {
        assert_eq!(parse(&renamed(from, to)).unwrap(), expected, "{from} -> {to}");
    }
}

#[test]
fn reads_time_step_limit_with_infinity() {
    for (limit, expected) in
        [("[0.0, Infinity]", (0.0, None)), ("[-Infinity, Infinity]", (0.0, None)), ("[0.001, 0.5]", (0.001, Some(0.5)))]
    {
        let text = tiny_with("time_step_limit", json!("LIMIT")).to_string().replace("\"LIMIT\"", limit);
        let config = Config::parse(&text, "config.json").unwrap();
        assert_eq!((config.mamba.dt_min, config.mamba.dt_max), expected, "{limit}");
    }
}

#[test]
fn keeps_infinity_inside_strings() {
    let text = r#"{"model_type": "Infinity \" NaN", "a": NaN, "b": [-Infinity]}"#;
    let error = Config::parse(text, "config.json").unwrap_err().to_string();
    assert!(error.contains(r#"models of type "Infinity \" NaN" are not supported"#), "{error}");
}

#[test]
fn refuses_a_time_step_limit_that_is_no_range() {
    for limit in ["[NaN, 1.0]", "[0.0, NaN]", "[2.0, 1.0]", "[Infinity, Infinity]", "[0.0, -Infinity]"] {
        let text = tiny_with("time_step_limit", json!("LIMIT")).to_string().replace("\"LIMIT\"", limit);
        let error = Config::parse(&text, "config.json").unwrap_err().to_string();
        assert!(error.contains("time_step_limit is"), "{limit}: {error}");
        assert!(error.contains("a lower limit below the upper one"), "{limit}: {error}");
    }
    assert!(refusal("time_step_limit", json!([0.0])).contains("expected a list of two numbers"));
}

#[test]
fn refuses_an_unknown_layer_letter() {
    let error = refusal("hybrid_override_pattern", json!("M-X"));
    assert!(error.contains("layer 2 is of unknown kind \"X\""), "{error}");
    assert!(error.contains("--> config.json: hybrid_override_pattern"), "{error}");
    assert!(error.contains("help: known kinds"), "{error}");
}

#[test]
fn refuses_mixture_of_experts_layers_as_not_supported_yet() {
    let error = refusal("hybrid_override_pattern", json!("ME*"));
    assert!(error.contains("layer 1 is a mixture of experts"), "{error}");
    assert!(error.contains("not supported yet"), "{error}");
    let mut config = tiny();
    config.as_object_mut().unwrap().remove("hybrid_override_pattern");
    config["layers_block_type"] = json!(["mamba", "moe", "attention"]);
    assert!(parse(&config).unwrap_err().to_string().contains("not supported yet"));
}

#[test]
fn refuses_a_layer_count_that_disagrees_with_the_pattern() {
    let error = refusal("num_hidden_layers", json!(52));
    assert!(error.contains("num_hidden_layers and the list of layers disagree: 52 and 3 layers"), "{error}");
}

#[test]
fn refuses_two_spellings_that_disagree() {
    let error = refusal("attention_head_dim", json!(4));
    assert!(error.contains("head_dim and attention_head_dim disagree: 2 and 4"), "{error}");
    let error = refusal("layers_block_type", json!(["mamba", "mlp", "mlp"]));
    assert!(error.contains("hybrid_override_pattern and layers_block_type disagree"), "{error}");
}

#[test]
fn refuses_absurd_numbers_in_every_size() {
    for field in [
        "hidden_size",
        "vocab_size",
        "intermediate_size",
        "mamba_num_heads",
        "mamba_head_dim",
        "n_groups",
        "ssm_state_size",
        "conv_kernel",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "num_hidden_layers",
    ] {
        for absurd in [json!(0), json!(-1), json!(1_000_000_000_000_000_000u64), json!(1e30), json!(2.5)] {
            let error = refusal(field, absurd.clone());
            assert!(error.contains(&format!("{field} is")), "{field} = {absurd}: {error}");
            assert!(error.contains("a whole number from"), "{field} = {absurd}: {error}");
        }
        let error = refusal(field, json!("8"));
        assert!(error.contains("expected a whole number"), "{field}: {error}");
    }
}

#[test]
fn refuses_products_that_are_absurd() {
    let mut config = tiny();
    config["mamba_num_heads"] = json!(1 << 20);
    config["mamba_head_dim"] = json!(1 << 20);
    let error = parse(&config).unwrap_err().to_string();
    assert!(error.contains("mamba_num_heads * mamba_head_dim is 1048576 * 1048576"), "{error}");
}

#[test]
fn refuses_groups_that_do_not_divide_heads() {
    let error = refusal("n_groups", json!(3));
    assert!(error.contains("4 heads do not divide into 3 groups"), "{error}");
    let error = refusal("num_key_value_heads", json!(3));
    assert!(error.contains("4 heads do not divide into 3 groups"), "{error}");
}

#[test]
fn refuses_what_would_change_the_arithmetic() {
    for (field, value) in [
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("use_bias", json!(true)),
        ("mamba_proj_bias", json!(true)),
        ("mamba_hidden_act", json!("gelu")),
        ("mlp_hidden_act", json!("silu")),
        ("quantization_config", json!({"quant_method": "fp8"})),
        ("sliding_window", json!(4096)),
        ("torch_dtype", json!("float8_e4m3fn")),
        ("model_type", json!("llama")),
    ] {
        let error = refusal(field, value);
        assert!(error.contains("not supported yet"), "{field}: {error}");
        assert!(error.contains(&format!("--> config.json: {field}")), "{field}: {error}");
    }
}

#[test]
fn refuses_a_missing_field_and_names_its_spellings() {
    let mut config = tiny();
    config.as_object_mut().unwrap().remove("head_dim");
    let error = parse(&config).unwrap_err().to_string();
    assert!(error.contains("the field head_dim is missing"), "{error}");
    assert!(error.contains("attention_head_dim"), "{error}");
}

#[test]
fn refuses_an_epsilon_that_is_none() {
    for epsilon in [json!(0.0), json!(-1.0), json!(1.5), json!(1e-300), json!("NaN")] {
        let error = refusal("layer_norm_epsilon", epsilon);
        assert!(error.contains("layer_norm_epsilon is"), "{error}");
    }
}

#[test]
fn refuses_token_ids_outside_the_vocabulary() {
    assert!(refusal("eos_token_id", json!([2, 16])).contains("eos_token_id is 16"));
    assert!(refusal("bos_token_id", json!(-2)).contains("bos_token_id is -2"));
    assert_eq!(parse(&tiny_with("pad_token_id", json!(-1))).unwrap().pad_token_id, None);
}

#[test]
fn lets_the_generation_config_replace_token_ids() {
    let mut config = parse(&tiny()).unwrap();
    config.apply_generation(r#"{"eos_token_id": [2, 11, 12]}"#, "generation_config.json").unwrap();
    assert_eq!(config.eos_token_ids, [2, 11, 12]);
    assert_eq!(config.bos_token_id, Some(1));
}

#[test]
fn refuses_text_that_is_not_an_object() {
    for text in ["", "{", "[1]", "12", "{\"a\": Infinit}", "\u{feff}{}"] {
        let error = Config::parse(text, "config.json").unwrap_err().to_string();
        assert!(error.contains("not valid JSON"), "{text:?}: {error}");
    }
    let deep = "[".repeat(100_000);
    assert!(Config::parse(&deep, "config.json").is_err());
}

#[test]
fn refuses_a_folder_without_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let error = Config::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("cannot read the model configuration"), "{error}");
    assert!(error.contains("config.json"), "{error}");
}
