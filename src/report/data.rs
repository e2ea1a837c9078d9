//! What is measured of models, as JSON keeps it. Fields may be added; those that are here keep their meaning.

use runtime::eval::{Comparison, Perplexity, PositionDivergence, Rolling, TaskResult};
use runtime::memory::Footprint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schema this build writes and reads.
pub const SCHEMA: &str = "nemoc-eval/1";

/// One run of `nemoc eval`, or several joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    pub nemoc_version: String,
    pub settings: Settings,
    pub hardware: Hardware,
    /// The results of the first model again, without its samples if there are several models: `.results.TASK.acc`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<String, TaskResult>,
    pub models: Vec<ModelReport>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Whose rules the tasks are scored by.
    pub scoring: String,
    pub tasks: Vec<String>,
    /// Documents of each task; none is all.
    pub limit: Option<usize>,
    pub num_fewshot: usize,
    /// Shared context is read once.
    pub share_context: bool,
    /// Of drawing examples; nothing else is drawn at random.
    pub seed: u64,
}

/// Where it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    pub device: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub gpus: Vec<String>,
    /// Plain reads, measured on all cores; only with `--speed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<f64>,
}

/// One model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelReport {
    pub name: String,
    pub phase: String,
    /// Name of the artifact's file, no path.
    pub file: String,
    /// XXH3 of the artifact's table of checksums, which covers every byte.
    pub digest: String,
    pub source: String,
    pub source_digest: String,
    pub compiler_version: String,
    pub passes: Vec<String>,
    pub parameters: u64,
    pub artifact_bytes: u64,
    pub layer_pattern: String,
    pub footprint: Footprint,
    pub linears: Vec<LinearFact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<PerplexityFact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Rolling>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<String, TaskResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<Average>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// What the cost model expects of known GPUs.
    pub predicted: Vec<Predicted>,
    /// Relative error of the residual stream before each layer, against the baseline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_errors: Vec<f64>,
    /// Time all of this took.
    pub seconds: f64,
}

/// A stored matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearFact {
    pub layer: Option<usize>,
    pub name: String,
    /// Bits of a weight, scales not counted.
    pub bits: u32,
    /// Bits of an activation it is multiplied with; 32 is f32.
    pub activation_bits: u32,
    pub bytes: u64,
}

/// Token perplexity on non-overlapping windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerplexityFact {
    pub text: String,
    pub window: usize,
    pub windows: usize,
    pub tokens: usize,
    pub mean_nll: f64,
    pub perplexity: f64,
}

/// How far a model is from the baseline on the same windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    pub baseline: String,
    pub baseline_perplexity: f64,
    pub positions: usize,
    pub mean_kl: f64,
    pub kl_p999: f64,
    pub top1_agreement: f64,
    /// Mean KL by the place in the window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_position: Vec<PositionDivergence>,
}

/// Mean over tasks of `acc_norm`, or `acc` where the harness reports no other; errors are taken to be independent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Average {
    pub value: f64,
    pub stderr: Option<f64>,
}

/// Measured on [`Hardware::device`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    pub prefill_tokens: usize,
    pub prefill_tokens_per_second: f64,
    pub decode_tokens: usize,
    pub decode_tokens_per_second: f64,
    /// Bytes that one decoded token moves, by the plan.
    pub decode_bytes: u64,
}

/// Tokens a second by the roofline of a GPU: bytes over bandwidth or operations over peak, and launch overhead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    pub target: String,
    pub decode_tokens_per_second: f64,
    pub decode_32_tokens_per_second: f64,
    pub prefill_2048_tokens_per_second: f64,
}

impl PerplexityFact {
    /// Of a text's windows of so many tokens.
    pub fn new(text: &str, window: usize, found: Perplexity) -> PerplexityFact {
        PerplexityFact {
            text: text.to_owned(),
            window,
            windows: found.windows,
            tokens: found.tokens,
            mean_nll: found.mean_nll,
            perplexity: found.perplexity(),
        }
    }
}

impl Divergence {
    /// From a baseline of this phase.
    pub fn new(baseline: &str, found: &Comparison) -> Divergence {
        Divergence {
            baseline: baseline.to_owned(),
            baseline_perplexity: found.reference.perplexity(),
            positions: found.positions,
            mean_kl: found.mean_kl,
            kl_p999: found.kl_p999,
            top1_agreement: found.top1_agreement,
            by_position: found.by_position.clone(),
        }
    }
}

impl ModelReport {
    /// `nano, phase 3`.
    pub fn label(&self) -> String {
        format!("{} phase {}", self.name, self.phase)
    }

    /// Weights, states, buffers and keys and values of one sequence.
    pub fn memory_bytes(&self, context: u64) -> u64 {
        let of = runtime::memory::Use { context, batch: 1, step_rows: 512 };
        self.footprint.needs(of).total()
    }

    /// Sets the average of the results.
    pub fn set_average(&mut self) {
        let mains: Vec<(f64, Option<f64>)> = self.results.values().map(|result| result.metrics.main()).collect();
        if mains.is_empty() {
            return;
        }
        let count = mains.len() as f64;
        let squares: Option<f64> = mains.iter().map(|(_, error)| error.map(|error| error * error)).sum();
        self.average = Some(Average {
            value: mains.iter().map(|(value, _)| value).sum::<f64>() / count,
            stderr: squares.map(|squares| squares.sqrt() / count),
        });
    }
}

impl Report {
    /// Names of all tasks that some model has, in the order they were asked for.
    pub fn tasks(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.settings.tasks.iter().map(String::as_str).collect();
        for name in self.models.iter().flat_map(|model| model.results.keys()) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names.retain(|name| self.models.iter().any(|model| model.results.contains_key(*name)));
        names
    }

    /// Leaves the results of single documents out.
    pub fn drop_samples(&mut self) {
        let all = self.models.iter_mut().flat_map(|model| model.results.values_mut());
        all.chain(self.results.values_mut()).for_each(|result| result.samples = None);
    }

    /// As JSON, `results` being those of the first model.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut report = self.clone();
        if let Some(first) = report.models.first_mut() {
            report.results = first.results.clone();
            first.results.values_mut().for_each(|result| result.samples = None);
        }
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }
}
