//! Naming schemes of checkpoint tensors, and the table of every tensor a model has.
//!
//! A tensor has a *canonical* name, the same for every scheme (`layers.0.mixer.in_proj.weight`), and the name it has in
//! the file. Schemes met in public checkpoints:
//!
//! | | 2025 releases | transformers 5 |
//! |---|---|---|
//! | layers | `backbone.layers.N.` | `model.layers.N.` |
//! | embedding | `backbone.embeddings.weight` (or `embedding`) | `model.embeddings.weight` (or `embed_tokens`) |
//! | final norm | `backbone.norm_f.weight` | `model.norm_f.weight` (or `norm`) |
//! | head | `lm_head.weight` | `lm_head.weight` |

use crate::config::{Config, LayerKind};
use serde::Serialize;

const PREFIXES: [&str; 2] = ["backbone.", "model."];
const EMBEDDINGS: [&str; 3] = ["embeddings.weight", "embedding.weight", "embed_tokens.weight"];
const FINAL_NORMS: [&str; 2] = ["norm_f.weight", "norm.weight"];
/// Canonical and actual name of the head.
const LM_HEAD: &str = "lm_head.weight";

/// How the tensors of a checkpoint are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Names {
    prefix: &'static str,
    embeddings: &'static str,
    final_norm: &'static str,
}

impl Default for Names {
    /// The names of the 2025 releases.
    fn default() -> Names {
        Names { prefix: PREFIXES[0], embeddings: EMBEDDINGS[0], final_norm: FINAL_NORMS[0] }
    }
}

impl Names {
    /// The scheme in which the embedding table is there, `None` when there is none.
    pub fn detect(exists: impl Fn(&str) -> bool) -> Option<Names> {
        PREFIXES.into_iter().find_map(|prefix| {
            let there = |name: &&str| exists(&format!("{prefix}{name}"));
            Some(Names {
                prefix,
                embeddings: EMBEDDINGS.into_iter().find(there)?,
                final_norm: FINAL_NORMS.into_iter().find(there).unwrap_or(FINAL_NORMS[0]),
            })
        })
    }

    /// The name in the file of a tensor with this canonical name.
    pub fn actual(&self, canonical: &str) -> String {
        let name = match canonical {
            LM_HEAD => return LM_HEAD.to_owned(),
            "embeddings.weight" => self.embeddings,
            "norm_f.weight" => self.final_norm,
            other => other,
        };
        format!("{}{name}", self.prefix)
    }

    /// `backbone.` or `model.`.
    pub fn prefix(&self) -> &'static str {
        self.prefix
    }
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Token embedding `[vocab, hidden]`.
    Embedding,
    /// Weight of the RMSNorm in front of a mixer `[hidden]`.
    LayerNorm,
    /// Mamba-2 input projection `[z | xBC | dt, hidden]`.
    InProj,
    /// Convolution `[channels, 1, kernel]`.
    Conv1d,
    /// Convolution bias `[channels]`.
    Conv1dBias,
    /// `A = -exp(A_log)`, `[heads]`.
    ALog,
    /// Skip weight `[heads]`.
    D,
    /// Added to dt before softplus, `[heads]`.
    DtBias,
    /// Weight of the gated RMSNorm `[d_inner]`.
    MixerNorm,
    /// Mamba-2 output projection `[hidden, d_inner]`.
    OutProj,
    /// First matrix of the MLP `[intermediate, hidden]`.
    UpProj,
    /// Second matrix of the MLP `[hidden, intermediate]`.
    DownProj,
    /// Queries `[heads * head_dim, hidden]`.
    QProj,
    /// Keys `[kv_heads * head_dim, hidden]`.
    KProj,
    /// Values `[kv_heads * head_dim, hidden]`.
    VProj,
    /// Attention output `[hidden, heads * head_dim]`.
    OProj,
    /// Weight of the last RMSNorm `[hidden]`.
    FinalNorm,
    /// Logits `[vocab, hidden]`.
    LmHead,
}

impl Role {
    /// The end of the tensor's canonical name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Role::Embedding => "embeddings.weight",
            Role::LayerNorm => "norm.weight",
            Role::InProj => "mixer.in_proj.weight",
            Role::Conv1d => "mixer.conv1d.weight",
            Role::Conv1dBias => "mixer.conv1d.bias",
            Role::ALog => "mixer.A_log",
            Role::D => "mixer.D",
            Role::DtBias => "mixer.dt_bias",
            Role::MixerNorm => "mixer.norm.weight",
            Role::OutProj => "mixer.out_proj.weight",
            Role::UpProj => "mixer.up_proj.weight",
            Role::DownProj => "mixer.down_proj.weight",
            Role::QProj => "mixer.q_proj.weight",
            Role::KProj => "mixer.k_proj.weight",
            Role::VProj => "mixer.v_proj.weight",
            Role::OProj => "mixer.o_proj.weight",
            Role::FinalNorm => "norm_f.weight",
            Role::LmHead => LM_HEAD,
        }
    }

    /// The fields of `config.json` that decide the shape, for messages.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Role::Embedding | Role::LmHead => &["vocab_size", "hidden_size"],
            Role::LayerNorm | Role::FinalNorm => &["hidden_size"],
            Role::InProj => &["mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "hidden_size"],
            Role::Conv1d => &["mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel"],
            Role::Conv1dBias => &["mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size"],
            Role::ALog | Role::D | Role::DtBias => &["mamba_num_heads"],
            Role::MixerNorm => &["mamba_num_heads", "mamba_head_dim"],
            Role::OutProj => &["hidden_size", "mamba_num_heads", "mamba_head_dim"],
            Role::UpProj | Role::DownProj => &["intermediate_size", "hidden_size"],
            Role::QProj | Role::OProj => &["num_attention_heads", "head_dim", "hidden_size"],
            Role::KProj | Role::VProj => &["num_key_value_heads", "head_dim", "hidden_size"],
        }
    }
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorSpec {
    /// What it is for.
    pub role: Role,
    /// The layer it belongs to.
    pub layer: Option<usize>,
    /// The same for every naming scheme, for example `layers.0.mixer.in_proj.weight`.
    pub canonical: String,
    /// The name in the file.
    pub name: String,
    /// The shape in the file.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of elements.
    pub fn parameters(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }

    /// For people: `up_proj of layer 5`.
    pub fn describe(&self) -> String {
        let short = self.role.suffix();
        let short = short.strip_prefix("mixer.").unwrap_or(short);
        let short = short.strip_suffix(".weight").unwrap_or(short);
        match self.layer {
            Some(layer) => format!("{short} of layer {layer}"),
            None => short.to_owned(),
        }
    }

    /// `intermediate_size = 3328, hidden_size = 640`: why it must have its shape.
    pub fn reason(&self, config: &Config) -> String {
        let value = |field: &&str| match *field {
            "vocab_size" => config.vocab_size,
            "hidden_size" => config.hidden_size,
            "intermediate_size" => config.intermediate_size,
            "mamba_num_heads" => config.mamba.heads,
            "mamba_head_dim" => config.mamba.head_dim,
            "n_groups" => config.mamba.groups,
            "ssm_state_size" => config.mamba.state_size,
            "conv_kernel" => config.mamba.conv_kernel,
            "num_attention_heads" => config.attention.heads,
            "num_key_value_heads" => config.attention.kv_heads,
            "head_dim" => config.attention.head_dim,
            other => unreachable!("{other} is not in the table of Role::fields"),
        };
        let facts: Vec<String> = self.role.fields().iter().map(|field| format!("{field} = {}", value(field))).collect();
        facts.join(", ")
    }
}

/// Every tensor of a model, in the order of computation. `with_head`: whether `lm_head.weight` is one of them.
pub fn tensors(config: &Config, names: &Names, with_head: bool) -> Vec<TensorSpec> {
    let spec = |layer: Option<usize>, (role, shape): (Role, Vec<usize>)| {
        let canonical = match layer {
            Some(layer) => format!("layers.{layer}.{}", role.suffix()),
            None => role.suffix().to_owned(),
        };
        TensorSpec { role, layer, name: names.actual(&canonical), canonical, shape }
    };
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let mut all = vec![spec(None, (Role::Embedding, vec![vocab, hidden]))];
    for (layer, kind) in config.layers.iter().enumerate() {
        all.push(spec(Some(layer), (Role::LayerNorm, vec![hidden])));
        all.extend(mixer(config, *kind).into_iter().map(|t| spec(Some(layer), t)));
    }
    all.push(spec(None, (Role::FinalNorm, vec![hidden])));
    if with_head {
        all.push(spec(None, (Role::LmHead, vec![vocab, hidden])));
    }
    all
}

/// The tensors of one mixer.
fn mixer(config: &Config, kind: LayerKind) -> Vec<(Role, Vec<usize>)> {
    let (hidden, ssm, attention) = (config.hidden_size, &config.mamba, &config.attention);
    match kind {
        LayerKind::Mamba => {
            let channels = ssm.conv_channels();
            let mut all = vec![
                (Role::InProj, vec![ssm.in_proj_rows(), hidden]),
                (Role::Conv1d, vec![channels, 1, ssm.conv_kernel]),
            ];
            if ssm.conv_bias {
                all.push((Role::Conv1dBias, vec![channels]));
            }
            all.extend([
                (Role::ALog, vec![ssm.heads]),
                (Role::D, vec![ssm.heads]),
                (Role::DtBias, vec![ssm.heads]),
                (Role::MixerNorm, vec![ssm.d_inner()]),
                (Role::OutProj, vec![hidden, ssm.d_inner()]),
            ]);
            all
        }
        LayerKind::Mlp => vec![
            (Role::UpProj, vec![config.intermediate_size, hidden]),
            (Role::DownProj, vec![hidden, config.intermediate_size]),
        ],
        LayerKind::Attention => vec![
            (Role::QProj, vec![attention.q_features(), hidden]),
            (Role::KProj, vec![attention.kv_features(), hidden]),
            (Role::VProj, vec![attention.kv_features(), hidden]),
            (Role::OProj, vec![hidden, attention.q_features()]),
        ],
    }
}
