//! What a checkpoint is made of and what each phase would make of it: the data behind `nemoc analyze`.
//!
//! Bytes under a phase are those of the stored weights and scales, by the formulas of the storage formats; the
//! tokenizer, the plan and the kernels of an artifact are not counted, nor is the folding of norm weights.

mod text;

pub use text::{size, thousands};

use crate::checkpoint::Checkpoint;
use crate::config::{Config, LayerKind};
use crate::names::{Role, TensorSpec};
use ir::weights::StorageFormat;
use serde::Serialize;

/// Elements that share an integer scale in two-level 4-bit weights.
const GROUP_SIZE: usize = 128;
/// Elements along the input are padded to a multiple of this in quantized weights.
const K_ALIGN: usize = 32;

/// A quantization scheme the table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "u8")]
pub enum Phase {
    /// W8A8 everywhere.
    One,
    /// W4A8; embedding and head in 8 bits.
    Two,
    /// W4A8 in Mamba-2, W8A8 elsewhere.
    Three,
}

impl Phase {
    /// All, in the order of [`Row::phases`].
    pub const ALL: [Phase; 3] = [Phase::One, Phase::Two, Phase::Three];

    /// `1`, `2` or `3`.
    pub const fn number(self) -> u8 {
        match self {
            Phase::One => 1,
            Phase::Two => 2,
            Phase::Three => 3,
        }
    }
}

impl From<Phase> for u8 {
    fn from(phase: Phase) -> u8 {
        phase.number()
    }
}

/// A line of the table: tensors that are treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// in_proj and out_proj.
    SsmProjections,
    /// conv1d weight and bias.
    SsmConv1d,
    /// A_log, D and dt_bias.
    SsmScan,
    /// up_proj and down_proj.
    Mlp,
    /// q, k, v and o.
    Attention,
    /// The table.
    Embedding,
    /// The logits.
    LmHead,
    /// In front of mixers, inside Mamba-2, and the last one.
    Norms,
}

impl Component {
    /// All, in the order of the table.
    pub const ALL: [Component; 8] = [
        Component::SsmProjections,
        Component::SsmConv1d,
        Component::SsmScan,
        Component::Mlp,
        Component::Attention,
        Component::Embedding,
        Component::LmHead,
        Component::Norms,
    ];

    /// The component a tensor belongs to.
    pub const fn of(role: Role) -> Component {
        match role {
            Role::InProj | Role::OutProj => Component::SsmProjections,
            Role::Conv1d | Role::Conv1dBias => Component::SsmConv1d,
            Role::ALog | Role::D | Role::DtBias => Component::SsmScan,
            Role::UpProj | Role::DownProj => Component::Mlp,
            Role::QProj | Role::KProj | Role::VProj | Role::OProj => Component::Attention,
            Role::Embedding => Component::Embedding,
            Role::LmHead => Component::LmHead,
            Role::LayerNorm | Role::MixerNorm | Role::FinalNorm => Component::Norms,
        }
    }

    /// For people.
    pub const fn label(self) -> &'static str {
        match self {
            Component::SsmProjections => "SSM in_proj, out_proj",
            Component::SsmConv1d => "SSM conv1d",
            Component::SsmScan => "SSM A_log, D, dt_bias",
            Component::Mlp => "MLP up_proj, down_proj",
            Component::Attention => "attention q, k, v, o",
            Component::Embedding => "embedding",
            Component::LmHead => "lm_head",
            Component::Norms => "norms",
        }
    }

    /// Format of the stored weight under a phase; `None` is f32, not quantized.
    ///
    /// Embedding and head are 8-bit in every phase: they are next to the tokens, and in small models most of what 4 bits
    /// would lose.
    pub const fn format(self, phase: Phase) -> Option<StorageFormat> {
        let w4 = StorageFormat::W4TwoLevel { group_size: GROUP_SIZE };
        match (self, phase) {
            (Component::SsmConv1d | Component::SsmScan | Component::Norms, _) => None,
            (Component::SsmProjections, Phase::Two | Phase::Three)
            | (Component::Mlp | Component::Attention, Phase::Two) => Some(w4),
            _ => Some(StorageFormat::W8),
        }
    }

    /// What a phase does, and why.
    const fn treatment(self, phase: Phase) -> (&'static str, &'static str) {
        match (self, phase) {
            (Component::SsmProjections, Phase::One) => ("W8A8", "8 bits per channel cost next to nothing in accuracy"),
            (Component::SsmProjections, _) => (
                "W4A8, dt rows W8A8",
                "most of what a token reads in Mamba-2 layers; dt feeds softplus and exp and keeps 8 bits",
            ),
            (Component::SsmConv1d, _) => ("f32", "a few taps a channel: nothing to gain"),
            (Component::SsmScan, _) => ("f32", "errors in the decay accumulate over the sequence"),
            (Component::Mlp | Component::Attention, Phase::Two) => {
                ("W4A8", "half the bytes of 8 bits; decoding is bound by them")
            }
            (Component::Mlp, _) => ("W8A8", "relu² makes few, large activations: 4-bit weights would hurt"),
            (Component::Attention, _) => ("W8A8", "few layers: little to save, much to lose"),
            (Component::Embedding, _) => ("8-bit rows", "one row a token is read and dequantized"),
            (Component::LmHead, Phase::Two) => ("W8A8", "next to the logits; a recipe may take 4 bits"),
            (Component::LmHead, _) => ("W8A8", "read whole for every token, and next to the logits"),
            (Component::Norms, _) => ("f32", "folded into the linears that follow where possible"),
        }
    }
}

/// What a phase does with a component.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Treatment {
    /// Which phase.
    pub phase: Phase,
    /// Stored bytes.
    pub bytes: u64,
    /// For example `W4A8`.
    pub format: &'static str,
    /// Why.
    pub why: &'static str,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which tensors.
    pub component: Component,
    /// For people.
    pub label: &'static str,
    /// How many there are: layers of the kind, or norms.
    pub count: usize,
    /// Parameters.
    pub parameters: u64,
    /// Part of the model's parameters, 0 to 1.
    pub share: f64,
    /// Bytes in the checkpoint.
    pub bytes: u64,
    /// Phases 1, 2 and 3.
    pub phases: [Treatment; 3],
}

/// Sums over all lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Parameters.
    pub parameters: u64,
    /// Bytes in the checkpoint.
    pub bytes: u64,
    /// Bytes under phases 1, 2 and 3.
    pub phases: [u64; 3],
    /// Phase 2 with embedding and lm_head in 4 bits, too, as a recipe can have them.
    pub phase_2_with_4_bit_vocabulary: u64,
}

/// How many layers of each kind there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LayerCounts {
    /// `M`.
    pub mamba: usize,
    /// `-`.
    pub mlp: usize,
    /// `*`.
    pub attention: usize,
}

/// Everything `nemoc analyze` prints; serialized for `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Analysis {
    /// The architecture.
    pub config: Config,
    /// One letter a layer.
    pub pattern: String,
    /// Layers by kind.
    pub layers: LayerCounts,
    /// Whether the folder holds weights; without, element types are those the configuration states.
    pub has_weights: bool,
    /// `backbone.` or `model.`.
    pub names: &'static str,
    /// Components that the model has.
    pub rows: Vec<Row>,
    /// Sums.
    pub totals: Totals,
    /// Tensors of the files that the model does not use.
    pub unknown_tensors: Vec<String>,
}

impl Analysis {
    /// Analyzes a checkpoint; reads nothing but what opening it has read.
    pub fn new(checkpoint: &Checkpoint) -> Analysis {
        let config = checkpoint.config();
        let parameters = checkpoint.parameters();
        let rows: Vec<Row> =
            Component::ALL.into_iter().filter_map(|component| row(checkpoint, component, parameters)).collect();
        Analysis {
            config: config.clone(),
            pattern: config.pattern(),
            layers: LayerCounts {
                mamba: config.count(LayerKind::Mamba),
                mlp: config.count(LayerKind::Mlp),
                attention: config.count(LayerKind::Attention),
            },
            has_weights: checkpoint.has_weights(),
            names: checkpoint.names().prefix(),
            totals: totals(checkpoint, &rows),
            rows,
            unknown_tensors: checkpoint.unknown_tensors().to_vec(),
        }
    }

    /// Column titles of [`Analysis::csv_rows`].
    pub const CSV_COLUMNS: [&'static str; 14] = [
        "component",
        "count",
        "parameters",
        "share",
        "bytes",
        "phase_1_bytes",
        "phase_1_format",
        "phase_1_why",
        "phase_2_bytes",
        "phase_2_format",
        "phase_2_why",
        "phase_3_bytes",
        "phase_3_format",
        "phase_3_why",
    ];

    /// One record a component, and a last one named `total`.
    pub fn csv_rows(&self) -> Vec<Vec<String>> {
        let numbers = |name: &str, count: usize, parameters: u64, share: f64, bytes: u64| {
            vec![name.to_owned(), count.to_string(), parameters.to_string(), share.to_string(), bytes.to_string()]
        };
        let mut records = Vec::with_capacity(self.rows.len() + 1);
        for row in &self.rows {
            let mut record = numbers(row.label, row.count, row.parameters, row.share, row.bytes);
            for cell in &row.phases {
                record.extend([cell.bytes.to_string(), cell.format.into(), cell.why.into()]);
            }
            records.push(record);
        }
        let totals = &self.totals;
        let mut last = numbers("total", self.config.layers.len(), totals.parameters, 1.0, totals.bytes);
        for bytes in totals.phases {
            last.extend([bytes.to_string(), String::new(), String::new()]);
        }
        records.push(last);
        records
    }
}

/// The line of a component, `None` if the model has no such tensors.
fn row(checkpoint: &Checkpoint, component: Component, model_parameters: u64) -> Option<Row> {
    let tensors: Vec<&TensorSpec> =
        checkpoint.tensors().iter().filter(|tensor| Component::of(tensor.role) == component).collect();
    let parameters: u64 = tensors.iter().map(|t| t.parameters()).sum();
    let mut layers: Vec<Option<usize>> = tensors.iter().map(|t| t.layer).collect();
    layers.dedup();
    let count = match component {
        Component::Norms => tensors.len(),
        _ => layers.len(),
    };
    let config = checkpoint.config();
    let stored = |phase| tensors.iter().map(|t| phase_bytes(t, config, phase)).sum();
    (!tensors.is_empty()).then(|| Row {
        component,
        label: component.label(),
        count,
        parameters,
        share: parameters as f64 / model_parameters as f64,
        bytes: tensors.iter().map(|t| t.parameters() * checkpoint.dtype(t).bytes() as u64).sum(),
        phases: Phase::ALL.map(|phase| {
            let (format, why) = component.treatment(phase);
            Treatment { phase, bytes: stored(phase), format, why }
        }),
    })
}

fn totals(checkpoint: &Checkpoint, rows: &[Row]) -> Totals {
    let phases = [0, 1, 2].map(|i| rows.iter().map(|row| row.phases[i].bytes).sum());
    let in_4_bits = StorageFormat::W4TwoLevel { group_size: GROUP_SIZE };
    let of_vocabulary = checkpoint.tensors().iter().filter(|t| matches!(t.role, Role::Embedding | Role::LmHead));
    let saved = of_vocabulary.map(|t| [StorageFormat::W8, in_4_bits].map(|f| stored_bytes(t.shape[0], t.shape[1], f)));
    Totals {
        parameters: checkpoint.parameters(),
        bytes: rows.iter().map(|row| row.bytes).sum(),
        phases,
        phase_2_with_4_bit_vocabulary: phases[1] - saved.map(|[wide, narrow]| wide - narrow).sum::<u64>(),
    }
}

/// Stored bytes of a tensor under a phase. The dt rows of in_proj, the last `heads`, keep 8 bits.
fn phase_bytes(tensor: &TensorSpec, config: &Config, phase: Phase) -> u64 {
    match Component::of(tensor.role).format(phase) {
        None => tensor.parameters() * 4,
        Some(format) => {
            let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
            let dt_rows = match tensor.role {
                Role::InProj => config.mamba.heads,
                _ => 0,
            };
            stored_bytes(rows - dt_rows, columns, format) + stored_bytes(dt_rows, columns, StorageFormat::W8)
        }
    }
}

/// Bytes of a stored weight `[rows, columns]` with its scales.
pub fn stored_bytes(rows: usize, columns: usize, format: StorageFormat) -> u64 {
    let padded = columns.next_multiple_of(K_ALIGN) as u64;
    let groups = |size: usize| columns.div_ceil(size) as u64;
    let row_bytes = match format {
        StorageFormat::Float { dtype } => columns as u64 * dtype.bytes() as u64,
        StorageFormat::W8 => padded + 4,
        StorageFormat::W4TwoLevel { group_size } => padded / 2 + groups(group_size) + 4,
        StorageFormat::W4Group { group_size } => padded / 2 + groups(group_size) * 2,
    };
    rows as u64 * row_bytes
}
