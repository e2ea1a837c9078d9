//! The architecture of a model, read from `config.json` and checked.
//!
//! Field names differ between the remote code of the 2025 releases, transformers 5 and what tools write; every
//! spelling is accepted, and two spellings of one field must agree. Where a field may be absent, the default is the one
//! of transformers' `NemotronHConfig`.

use crate::error::ConfigError;
use crate::fields::Fields;
use crate::json::parse_object;
use ir::weights::FloatType;
use serde::Serialize;
use std::path::Path;

mod read;

/// Largest size, width or count of anything but layers. The products of any four such sizes that this crate forms fit
/// into 64 bits.
const MAX_SIZE: usize = 1 << 22;
const MAX_LAYERS: usize = 4096;
const MAX_CONV_KERNEL: usize = 64;
const MAX_CONTEXT: usize = 1 << 40;
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerKind {
    /// Mamba-2 mixer (Dao and Gu 2024), `M`.
    Mamba,
    /// Two-matrix MLP with squared ReLU, `-`.
    Mlp,
    /// Grouped-query attention without position embedding, `*`.
    Attention,
}

impl LayerKind {
    /// The letter of `hybrid_override_pattern`.
    pub const fn letter(self) -> char {
        match self {
            LayerKind::Mamba => 'M',
            LayerKind::Mlp => '-',
            LayerKind::Attention => '*',
        }
    }

    /// For people.
    pub const fn label(self) -> &'static str {
        match self {
            LayerKind::Mamba => "Mamba-2",
            LayerKind::Mlp => "MLP",
            LayerKind::Attention => "attention",
        }
    }
}

/// Sizes of the Mamba-2 mixers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MambaShape {
    /// Heads.
    pub heads: usize,
    /// Channels a head.
    pub head_dim: usize,
    /// Groups of heads that share B and C; divides `heads`.
    pub groups: usize,
    /// Width of the state.
    pub state_size: usize,
    /// Taps of the causal convolution.
    pub conv_kernel: usize,
    /// Whether the convolution has a bias.
    pub conv_bias: bool,
    /// Lower clamp of dt, at least 0.
    pub dt_min: f32,
    /// Upper clamp of dt; `None` is infinity.
    pub dt_max: Option<f32>,
}

impl MambaShape {
    /// Channels of x, z and y: heads times head_dim (not `expand * hidden_size`).
    pub const fn d_inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Channels of the convolution: `[x | B | C]`.
    pub const fn conv_channels(&self) -> usize {
        self.d_inner() + 2 * self.groups * self.state_size
    }

    /// Rows of in_proj: `[z: d_inner | xBC: conv_channels | dt: heads]`.
    pub const fn in_proj_rows(&self) -> usize {
        self.d_inner() + self.conv_channels() + self.heads
    }
}

/// Sizes of the attention layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Channels a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Rows of q_proj, columns of o_proj.
    pub const fn q_features(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows of k_proj and of v_proj.
    pub const fn kv_features(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// The architecture of a Nemotron-H model. Every value has been checked: sizes are at least 1 and products do not
/// overflow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Display name: the name of the checkpoint's folder.
    pub name: String,
    /// What each layer is, first to last.
    pub layers: Vec<LayerKind>,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP layers.
    pub intermediate_size: usize,
    /// The Mamba-2 layers.
    pub mamba: MambaShape,
    /// The attention layers.
    pub attention: AttentionShape,
    /// Epsilon of every RMSNorm.
    pub norm_eps: f32,
    /// Whether the head may be the embedding table.
    pub tied_head: bool,
    /// Element type of the weights, as far as the configuration knows.
    pub dtype: FloatType,
    /// The context length the model was trained for.
    pub max_position_embeddings: Option<usize>,
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end generation.
    pub eos_token_ids: Vec<u32>,
    /// Token that fills batches.
    pub pad_token_id: Option<u32>,
}

impl Config {
    /// Reads a `config.json`, or the one in a folder, and the `generation_config.json` beside it (its token ids win).
    ///
    /// # Errors
    /// When a file cannot be read or the configuration is invalid or not supported.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let file = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
        let dir = file.parent().unwrap_or(Path::new(""));
        let mut config = Config::parse(&read_limited(&file)?, "config.json")?;
        let generation = dir.join("generation_config.json");
        if generation.is_file() {
            config.apply_generation(&read_limited(&generation)?, "generation_config.json")?;
        }
        let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        if let Some(name) = absolute.file_name() {
            config.name = name.to_string_lossy().into_owned();
        }
        Ok(config)
    }

    /// Parses the text of a `config.json`; `file` is its name in messages.
    ///
    /// # Errors
    /// When the configuration is invalid or not supported.
    pub fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
        let map = parse_object(text, file)?;
        let fields = Fields { map: &map, file };
        read::refuse_unsupported(&fields)?;
        let vocab_size = fields.size(&["vocab_size"], 1..=MAX_SIZE)?;
        Ok(Config {
            name: "model".into(),
            layers: read::layers(&fields)?,
            vocab_size,
            hidden_size: fields.size(&["hidden_size"], 1..=MAX_SIZE)?,
            intermediate_size: fields.size(&["intermediate_size"], 1..=MAX_SIZE)?,
            mamba: read::mamba(&fields)?,
            attention: read::attention(&fields)?,
            norm_eps: read::norm_eps(&fields)?,
            tied_head: fields.flag(&["tie_word_embeddings"], false)?,
            dtype: read::dtype(&fields)?,
            max_position_embeddings: fields.optional_size(&["max_position_embeddings"], 1..=MAX_CONTEXT)?,
            bos_token_id: read::token_ids(&fields, "bos_token_id", vocab_size)?.and_then(|ids| ids.first().copied()),
            eos_token_ids: read::token_ids(&fields, "eos_token_id", vocab_size)?.unwrap_or_default(),
            pad_token_id: read::token_ids(&fields, "pad_token_id", vocab_size)?.and_then(|ids| ids.first().copied()),
        })
    }

    /// Lets the token ids of a `generation_config.json` replace those of the configuration.
    ///
    /// # Errors
    /// When it is not valid JSON or an id is out of range.
    pub fn apply_generation(&mut self, text: &str, file: &str) -> Result<(), ConfigError> {
        let map = parse_object(text, file)?;
        let fields = Fields { map: &map, file };
        let ids = |field| read::token_ids(&fields, field, self.vocab_size);
        let (bos, eos, pad) = (ids("bos_token_id")?, ids("eos_token_id")?, ids("pad_token_id")?);
        if let Some(id) = bos.and_then(|ids| ids.first().copied()) {
            self.bos_token_id = Some(id);
        }
        if let Some(ids) = eos.filter(|ids| !ids.is_empty()) {
            self.eos_token_ids = ids;
        }
        if let Some(id) = pad.and_then(|ids| ids.first().copied()) {
            self.pad_token_id = Some(id);
        }
        Ok(())
    }

    /// One letter a layer, as in `hybrid_override_pattern`.
    pub fn pattern(&self) -> String {
        self.layers.iter().map(|layer| layer.letter()).collect()
    }

    /// How many layers are of this kind.
    pub fn count(&self, kind: LayerKind) -> usize {
        self.layers.iter().filter(|layer| **layer == kind).count()
    }
}

/// Reads a configuration file, unless it is absurdly large.
fn read_limited(path: &Path) -> Result<String, ConfigError> {
    let io = |source| ConfigError::Io { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes, limit: MAX_FILE_BYTES });
    }
    std::fs::read_to_string(path).map_err(io)
}
