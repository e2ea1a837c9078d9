//! Small checkpoints on disk, and ways to damage them.
#![allow(dead_code, reason = "each test file uses its own part")]

use frontend::{Config, Names, TensorSpec, names};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The configuration of a tiny model with every kind of layer.
pub fn tiny() -> Value {
    json!({
        "model_type": "nemotron_h",
        "hybrid_override_pattern": "M-*",
        "num_hidden_layers": 3,
        "hidden_size": 8,
        "vocab_size": 16,
        "intermediate_size": 12,
        "mamba_num_heads": 4,
        "mamba_head_dim": 2,
        "n_groups": 2,
        "ssm_state_size": 3,
        "conv_kernel": 4,
        "use_conv_bias": true,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 2,
        "layer_norm_epsilon": 1e-5,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    })
}

/// `tiny()` with one field replaced.
pub fn tiny_with(field: &str, value: Value) -> Value {
    let mut config = tiny();
    config[field] = value;
    config
}

pub fn parse(config: &Value) -> Result<Config, frontend::ConfigError> {
    Config::parse(&config.to_string(), "config.json")
}

/// One tensor of a file to write.
#[derive(Clone, Debug)]
pub struct Stored {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
}

impl Stored {
    fn bytes(&self) -> usize {
        let element = match self.dtype {
            "F32" => 4,
            "I8" => 1,
            _ => 2,
        };
        self.shape.iter().product::<usize>() * element
    }
}

/// The tensors of a configuration, bf16.
pub fn stored(config: &Value, names: &Names) -> Vec<Stored> {
    let config = parse(config).unwrap();
    let specs: Vec<TensorSpec> = names::tensors(&config, names, !config.tied_head);
    let bf16 = |spec: TensorSpec| Stored { name: spec.name, dtype: "BF16", shape: spec.shape };
    specs.into_iter().map(bf16).collect()
}

/// A safetensors file with these tensors; byte `i` of the data is `i % 251`.
pub fn file(tensors: &[Stored]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.bytes();
        let info = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]});
        header.insert(tensor.name.clone(), info);
    }
    with_header(&Value::Object(header).to_string(), end)
}

/// A safetensors file with this header text and so many bytes of data.
pub fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend((0..data).map(|i| (i % 251) as u8));
    bytes
}

/// A checkpoint folder that is removed when dropped.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new(config: &Value) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        folder
    }

    /// A valid checkpoint in one file.
    pub fn single(config: &Value, names: &Names) -> Folder {
        Folder::new(config).with("model.safetensors", &file(&stored(config, names)))
    }

    /// A valid checkpoint in two shards.
    pub fn sharded(config: &Value) -> Folder {
        let tensors = stored(config, &Names::default());
        let (a, b) = tensors.split_at(tensors.len() / 2);
        let folder = Folder::new(config).with("a.safetensors", &file(a)).with("b.safetensors", &file(b));
        let place = |shard: &'static str| move |t: &Stored| (t.name.clone(), json!(shard));
        let map: serde_json::Map<_, _> =
            a.iter().map(place("a.safetensors")).chain(b.iter().map(place("b.safetensors"))).collect();
        folder.index(&json!({"metadata": {"total_size": 0}, "weight_map": map}))
    }

    pub fn with(self, name: &str, bytes: &[u8]) -> Folder {
        fs::write(self.path().join(name), bytes).unwrap();
        self
    }

    pub fn index(self, index: &Value) -> Folder {
        self.with("model.safetensors.index.json", index.to_string().as_bytes())
    }

    /// The index, changed.
    pub fn reindexed(self, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Folder {
        let text = fs::read_to_string(self.path().join("model.safetensors.index.json")).unwrap();
        let mut index: Value = serde_json::from_str(&text).unwrap();
        change(index["weight_map"].as_object_mut().unwrap());
        self.index(&index)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The message with which it cannot be opened.
    pub fn refusal(&self) -> String {
        frontend::Checkpoint::open(self.path()).unwrap_err().to_string()
    }
}
