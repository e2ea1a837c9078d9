//! What is measured of one model.

use super::baseline::Baseline;
use super::{Plan, warn_of};
use crate::failure::Failure;
use crate::progress::count_bar;
use crate::report::data::{Divergence, LinearFact, ModelReport, PerplexityFact, Predicted};
use crate::text::file_name;
use passes::cost::{Cost, TARGETS, Target, Workload};
use runtime::artifact::Artifact;
use runtime::device::Device;
use runtime::eval::{Partial, compare, perplexity, prepare, rolling};
use runtime::generate::Tokenizer;
use runtime::memory::Footprint;
use runtime::plan::{Activation, DType, Kernel, Plan as LaunchPlan, WeightFormat};
use runtime::tensors::TensorStore;
use std::path::Path;

/// What is known of an artifact before it runs.
pub fn facts(artifact: &Artifact, path: &Path) -> ModelReport {
    let (plan, provenance) = (artifact.plan(), artifact.provenance());
    ModelReport {
        name: plan.model.name.clone(),
        phase: plan.model.phase.clone(),
        file: file_name(path),
        digest: digest(artifact),
        source: provenance.source.clone(),
        source_digest: provenance.source_digest.clone(),
        compiler_version: provenance.nemoc_version.clone(),
        passes: provenance.passes.clone(),
        parameters: plan.model.parameters,
        artifact_bytes: artifact.file_bytes() as u64,
        layer_pattern: plan.model.layer_pattern.clone(),
        footprint: Footprint::of(artifact),
        linears: linears(artifact),
        perplexity: None,
        rolling: None,
        divergence: None,
        results: Default::default(),
        average: None,
        speed: None,
        predicted: TARGETS.iter().map(|target| predicted_speed(plan, target)).collect(),
        layer_errors: Vec::new(),
        seconds: 0.0,
    }
}

fn digest(artifact: &Artifact) -> String {
    format!("xxh3:{:016x}", artifact.checksums().digest())
}

fn linears(artifact: &Artifact) -> Vec<LinearFact> {
    let plan = artifact.plan();
    let fact = |weight: &str, format: WeightFormat, activation_bits: u32| LinearFact {
        layer: weight.strip_prefix("layers.").and_then(|rest| rest.split('.').next()?.parse().ok()),
        name: weight.to_owned(),
        bits: bits(format),
        activation_bits,
        bytes: [".weight", ".scale", ".group_scale"]
            .iter()
            .filter_map(|suffix| artifact.tensor(&format!("{weight}{suffix}")))
            .map(|view| view.bytes.len() as u64)
            .sum(),
    };
    let mut all = Vec::new();
    for launch in &plan.launches {
        match &launch.kernel {
            Kernel::Embed { table, .. } => all.push(fact(&table.weight, table.format, 32)),
            Kernel::Linear { x, segments, .. } => {
                let activation_bits = if matches!(x, Activation::Quantized { .. }) { 8 } else { 32 };
                all.extend(segments.iter().map(|segment| fact(&segment.weight, segment.format, activation_bits)));
            }
            _ => {}
        }
    }
    all
}

fn bits(format: WeightFormat) -> u32 {
    match format {
        WeightFormat::Float { dtype: DType::F32 } => 32,
        WeightFormat::Float { .. } => 16,
        WeightFormat::W8 => 8,
        WeightFormat::W4TwoLevel { .. } | WeightFormat::W4Group { .. } => 4,
    }
}

/// From the costs in the plan alone, as every model is compared on the same GPUs.
fn predicted_speed(plan: &LaunchPlan, target: &Target) -> Predicted {
    let seconds = |workload: Workload| -> f64 {
        let cost = |launch: &runtime::plan::Launch| {
            let cost = launch.cost;
            target.seconds(
                Cost {
                    fixed_bytes: cost.fixed_bytes,
                    row_bytes: cost.row_bytes,
                    sequence_bytes: cost.sequence_bytes,
                    row_ops: cost.row_ops,
                },
                workload,
            )
        };
        plan.launches.iter().map(cost).sum()
    };
    let batch = Workload { rows: 32, sequences: 32 };
    let prefill = Workload { rows: 2048, sequences: 1 };
    Predicted {
        target: target.name.to_owned(),
        decode_tokens_per_second: 1.0 / seconds(Workload::DECODE),
        decode_32_tokens_per_second: 32.0 / seconds(batch),
        prefill_2048_tokens_per_second: 2048.0 / seconds(prefill),
    }
}

impl Plan<'_> {
    pub(super) fn measure_text(
        &self,
        artifact: &Artifact,
        device: &mut dyn Device,
        tokenizer: &Tokenizer,
        baseline: Option<&mut Baseline<'_>>,
        report: &mut ModelReport,
    ) -> Result<(), Failure> {
        let Some(text) = &self.text else { return Ok(()) };
        let arguments = &self.arguments.perplexity;
        let windows = arguments.window.windows();
        let tokens = tokenizer.encode(&text.content)?;
        let bar = count_bar("windows");
        let mut progress = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        let measured = match baseline {
            None => perplexity(device, &tokens, &windows, &mut progress)?,
            Some(baseline) => {
                report.layer_errors = baseline.streams.errors(artifact, &tokens)?;
                let result = compare(&mut baseline.reference, device, &tokens, &windows, &mut progress)?;
                report.divergence = Some(Divergence::new(&baseline.phase, &result));
                result.model
            }
        };
        report.perplexity = Some(PerplexityFact::new(&text.name, windows.size, measured));
        if arguments.rolling {
            let prefix = device.plan().model.bos_token_id.unwrap_or(0);
            report.rolling = Some(rolling(device, &text.content, &tokens, prefix, windows.size, &mut progress)?);
        }
        bar.finish_and_clear();
        Ok(())
    }

    pub(super) fn measure_tasks(
        &self,
        device: &mut dyn Device,
        tokenizer: &Tokenizer,
        report: &mut ModelReport,
        mut partial: Option<&mut Partial>,
    ) -> Result<(), Failure> {
        let Some(data) = self.arguments.tasks.data.as_deref() else { return Ok(()) };
        let max_length = device.limits().context.or(device.plan().model.max_position_embeddings);
        let scoring = self.scoring();
        let mut prepared = Vec::new();
        for task in &self.tasks {
            let task = prepare(task, data, tokenizer, &self.preparation(max_length))?;
            warn_of(task.task, data, &task.problems);
            prepared.push(task);
        }
        let bar = count_bar("tokens");
        bar.set_length(prepared.iter().map(|task| task.rows(&scoring) as u64).sum());
        let mut before = 0;
        for task in &prepared {
            bar.set_message(format!("{} {}", report.label(), task.task.name));
            let result = task.evaluate(device, &scoring, &report.digest, partial.as_deref_mut(), &mut |done| {
                bar.set_position(before + done as u64);
            })?;
            before += task.rows(&scoring) as u64;
            report.results.insert(result.task.clone(), result);
        }
        bar.finish_and_clear();
        report.set_average();
        Ok(())
    }
}
