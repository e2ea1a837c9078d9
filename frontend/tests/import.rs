//! Importing a whole architecture from its configuration alone.

use frontend::{Checkpoint, Config, import::import};
use ir::ops::Op;

const NANO: &str = r#"{"model_type": "nemotron_h", "hidden_size": 64, "hybrid_override_pattern": "M-*-", "num_hidden_layers": 4,
 "vocab_size": 96, "attention_head_dim": 16, "conv_kernel": 4, "intermediate_size": 128, "layer_norm_epsilon": 1e-05,
 "mamba_head_dim": 16, "mamba_num_heads": 8, "n_groups": 2, "ssm_state_size": 16, "num_attention_heads": 4,
 "num_key_value_heads": 2, "tie_word_embeddings": false, "time_step_limit": [0.0, Infinity], "torch_dtype": "bfloat16",
 "use_conv_bias": true}"#;

#[test]
fn imports_each_kind_of_layer() {
    let context = ir::irdl::context();
    let checkpoint = Checkpoint::from_config(Config::parse(NANO, "config.json").unwrap());
    let module = import(&context, &checkpoint).unwrap();
    ir::verify::verify(&context, &module).unwrap();
    insta::assert_snapshot!(ir::module::print(&module));
}

#[test]
fn uses_the_embedding_table_as_the_head_of_a_tied_model() {
    let context = ir::irdl::context();
    let tied = NANO.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    let checkpoint = Checkpoint::from_config(Config::parse(&tied, "config.json").unwrap());
    let module = import(&context, &checkpoint).unwrap();
    let ops = ir::module::ops(&module).unwrap();
    let tables = ops.iter().filter(|op| matches!(op, Op::Weight(w) if w.tensor() == "backbone.embeddings.weight"));
    assert_eq!(tables.count(), 2);
}
