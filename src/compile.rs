//! `nemoc compile`: from a checkpoint to an artifact. This file is the way through the whole compiler.

pub mod files;
mod kernels;
mod report;
mod smoothing;

use crate::analyze::warn_of_unknown_tensors;
use crate::auto::{self, AutoArguments, Choice};
use crate::calibrate::{CalibrationArguments, Session};
use crate::failure::{Failure, Outcome};
use crate::interrupt::on_interrupt;
use crate::pipeline::PipelineArguments;
use crate::progress::byte_bar;
use crate::recipe::RecipeArguments;
use codegen::plan::{Compiled, plan_of};
use codegen::weights::{Calibrated, Contents, ExtraTensor, PackedWeights, Summary, layout, materialize_calibrated};
use codegen::writer::remove_partial;
use frontend::Checkpoint;
use ir::manager::{PassStatus, Report};
use ir::weights::{RotationKind, Rounding, TensorSource};
use passes::{Phase, PipelineOptions, Recipe};
use runtime::artifact::{Metadata, Provenance};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Compile a checkpoint into one artifact.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of a Hugging Face checkpoint; with --plan-only its config.json is enough.
    checkpoint: PathBuf,
    /// The artifact. It appears under its name when it is complete, and not before.
    #[arg(short, long, value_name = "M.nemo", required_unless_present = "plan_only")]
    output: Option<PathBuf>,
    /// Stop before weights are read: print planned sizes and timings.
    #[arg(long)]
    plan_only: bool,
    /// GPUs to compile kernels for, for example sm_90a,compute_80; or all, or none [default: all when NVRTC is found].
    #[arg(long, value_name = "SM,...", value_delimiter = ',')]
    kernels: Vec<String>,
    #[command(flatten)]
    recipe: RecipeArguments,
    #[command(flatten)]
    auto: AutoArguments,
    #[command(flatten)]
    calibration: CalibrationArguments,
    #[command(flatten)]
    pipeline: PipelineArguments,
}

pub fn run(arguments: &Arguments) -> Outcome {
    check(arguments)?;
    let started = Instant::now();
    let checkpoint = Checkpoint::open(&arguments.checkpoint)?;
    warn_of_unknown_tensors(&checkpoint);
    let output = arguments.output.as_ref().filter(|_| !arguments.plan_only);
    let chooses = arguments.recipe.is_auto();
    if output.is_some() || chooses {
        checkpoint.require_weights()?;
    }
    if let Some(output) = output {
        files::refuse_to_overwrite(&checkpoint, output)?;
    }
    let kernels = if output.is_some() { kernels::compile(&arguments.kernels)? } else { Vec::new() };
    let described = kernels::describe(&kernels);
    let kernels: Vec<ExtraTensor> = kernels.into_iter().flat_map(kernels::tensors).collect();
    let mut options = arguments.recipe.options()?;
    let session = if output.is_some() || chooses { calibrate(arguments, &checkpoint, &mut options)? } else { None };
    if chooses && session.is_none() {
        return Err(nothing_to_measure());
    }
    let calibrated = if output.is_some() || chooses { calibrated(&checkpoint, &options)? } else { None };
    let source: &dyn TensorSource = calibrated.as_ref().map_or(&checkpoint, |calibrated| calibrated);
    let mut out: Box<dyn Write> =
        if arguments.auto.json { Box::new(std::io::sink()) } else { Box::new(anstream::stdout()) };
    out.write_all(smoothing::search(&checkpoint, source, &mut options)?.as_bytes())?;
    if let Some(session) = session.as_ref().filter(|_| chooses) {
        let choice = choose(&arguments.auto, (&checkpoint, source), &options, session, &kernels)?;
        arguments.auto.report(&choice)?;
        options = PipelineOptions { phase: None, recipe: Some(choice.recipe), ..options };
    }
    let mut planned = plan(&arguments.pipeline, chooses, &checkpoint, &options, session.as_ref())?;
    out.write_all(report::plan(&checkpoint, &planned, started.elapsed()).as_bytes())?;
    let Some(output) = output else {
        let contents = planned.contents();
        out.write_all(report::planned_sizes(&contents, layout(&contents)?.file_bytes()).as_bytes())?;
        return Ok(());
    };
    out.write_all(described.as_bytes())?;
    planned.extra.extend(kernels);
    let packed = match &session {
        Some(session) => {
            let started = Instant::now();
            let rounded = session.round(&checkpoint, source, &options, &planned.compiled)?;
            out.write_all(report::calibrated(&rounded, session, started.elapsed()).as_bytes())?;
            arguments.calibration.report(&rounded)?;
            rounded.packed
        }
        None => PackedWeights::new(),
    };
    let (summary, elapsed) = write(&planned.contents(), &packed, source, &checkpoint, output)?;
    out.write_all(report::written(&checkpoint, &summary, elapsed).as_bytes())?;
    Ok(())
}

/// Whether the options belong together.
fn check(arguments: &Arguments) -> Outcome {
    if !arguments.recipe.is_given() {
        return Err(Failure::Usage("say how to quantize: --phase 0, 1, 2, 3 or auto, or --recipe R.toml".to_owned()));
    }
    match arguments.auto.given() {
        Some(option) if !arguments.recipe.is_auto() => Err(Failure::Usage(format!("{option} is for --phase auto"))),
        _ => Ok(()),
    }
}

/// The checkpoint with what calibration adds to its tensors.
fn calibrated<'a>(checkpoint: &'a Checkpoint, options: &PipelineOptions) -> Result<Option<Calibrated<'a>>, Failure> {
    let rotation = options.recipe().rotation;
    let follows_data = rotation.kind == Some(RotationKind::Klt);
    match options.statistics.as_deref() {
        Some(statistics) if follows_data => {
            Ok(Some(Calibrated::new(checkpoint, statistics).with_klt(statistics, rotation.seed)?))
        }
        Some(statistics) => Ok(Some(Calibrated::new(checkpoint, statistics))),
        None if follows_data => Err(Failure::Message(
            "rotations of kind klt follow covariances that calibration measures\nhelp: do not switch calibration off, or \
             choose --rotations hadamard"
                .to_owned(),
        )),
        None => Ok(None),
    }
}

/// Chooses precisions under the budget.
fn choose(
    arguments: &AutoArguments,
    (checkpoint, source): (&Checkpoint, &dyn TensorSource),
    options: &PipelineOptions,
    session: &Session,
    kernels: &[ExtraTensor],
) -> Result<Choice, Failure> {
    let file_bytes = |recipe: &Recipe| {
        let options = PipelineOptions { phase: None, recipe: Some(recipe.clone()), ..options.clone() };
        let mut planned = plan(&PipelineArguments::default(), true, checkpoint, &options, Some(session))?;
        planned.extra.extend(kernels.iter().cloned());
        Ok(layout(&planned.contents())?.file_bytes())
    };
    auto::choose(arguments, &auto::Model { checkpoint, source, session, options, file_bytes: &file_bytes })
}

fn nothing_to_measure() -> Failure {
    Failure::Message(
        "--phase auto measures what each linear costs, and there is nothing to measure it on\nhelp: do not switch \
         calibration off; it needs a tokenizer.json, and --calibration-samples N where it would take long"
            .to_owned(),
    )
}

/// Decides whether to calibrate; then the options say so, and rotations are on unless the user chose.
fn calibrate(
    arguments: &Arguments,
    checkpoint: &Checkpoint,
    options: &mut PipelineOptions,
) -> Result<Option<Session>, Failure> {
    if options.recipe().phase == Phase::Reference {
        return Ok(None);
    }
    let Some(session) = arguments.calibration.session(checkpoint, arguments.recipe.is_auto())? else {
        return if options.recipe().asks_for_gptq() { Err(needs_calibration()) } else { Ok(None) };
    };
    options.rounding = Rounding::Gptq;
    if !arguments.recipe.chooses_rotations() {
        options.rotations = Some(RotationKind::Hadamard);
    }
    let follows_data = options.recipe().rotation.kind == Some(RotationKind::Klt);
    if options.recipe().smooth.enabled != Some(false) || follows_data {
        options.statistics = Some(Arc::new(arguments.calibration.statistics(&session, checkpoint, follows_data)?));
    }
    Ok(Some(session))
}

fn needs_calibration() -> Failure {
    Failure::Message(
        "the recipe rounds by gptq, and there is no calibration\nhelp: calibrate, or take rounding = \"gptq\" out of the \
         recipe"
            .to_owned(),
    )
}

/// Everything that is known before weights are read.
pub struct Planned {
    compiled: Compiled,
    extra: Vec<ExtraTensor>,
    metadata: Metadata,
    passes: Report,
}

impl Planned {
    fn contents(&self) -> Contents<'_> {
        Contents {
            weights: &self.compiled.weights,
            parameters: &self.compiled.parameters,
            extra: &self.extra,
            metadata: &self.metadata,
        }
    }
}

fn plan(
    pipeline: &PipelineArguments,
    is_auto: bool,
    checkpoint: &Checkpoint,
    options: &PipelineOptions,
    session: Option<&Session>,
) -> Result<Planned, Failure> {
    let context = ir::irdl::context();
    let module = frontend::import::import(&context, checkpoint)?;
    let (module, report) = pipeline.run(&context, module, passes::pipeline(options), "import")?;
    if pipeline.stops_early() {
        return Err(Failure::Message(
            "--bisect leaves a module that cannot become an artifact\nhelp: look at it with --dump-ir DIR, or raise the \
             number until the whole pipeline runs"
                .to_owned(),
        ));
    }
    let mut compiled = plan_of(&module)?;
    if is_auto {
        compiled.plan.model.phase = "auto".to_owned();
    }
    let metadata = Metadata {
        plan: compiled.plan.clone(),
        recipe: toml::to_string(&options.recipe())?,
        provenance: provenance(checkpoint, &options.recipe(), &report, session),
        extra: BTreeMap::new(),
    };
    Ok(Planned { compiled, extra: files::companions(checkpoint)?, metadata, passes: report })
}

/// Where an artifact comes from.
pub fn provenance(checkpoint: &Checkpoint, recipe: &Recipe, report: &Report, session: Option<&Session>) -> Provenance {
    let ran = report.passes.iter().filter(|run| run.status != PassStatus::Skipped);
    let rotation = |name: &str| match (&recipe.rotation.kind, name) {
        (Some(kind), "insert-rotations") => format!(" (kind {}, seed {})", kind.as_str(), recipe.rotation.seed),
        _ => String::new(),
    };
    Provenance {
        nemoc_version: env!("CARGO_PKG_VERSION").to_owned(),
        source: checkpoint.config().name.clone(),
        source_digest: files::digest_of(checkpoint),
        passes: ran.map(|run| format!("{}{}", run.name, rotation(run.name))).collect(),
        parameters: checkpoint.parameters(),
        calibration: session.map(|session| session.describe(recipe)),
    }
}

fn write(
    contents: &Contents<'_>,
    packed: &PackedWeights,
    source: &dyn TensorSource,
    checkpoint: &Checkpoint,
    output: &std::path::Path,
) -> Result<(Summary, Duration), Failure> {
    let partial = output.to_owned();
    on_interrupt(move || remove_partial(&partial));
    let bar = byte_bar("weights");
    let started = Instant::now();
    let summary = materialize_calibrated(contents, packed, source, output, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .map_err(|error| Failure::at(checkpoint.path().display(), error))?;
    bar.finish_and_clear();
    Ok((summary, started.elapsed()))
}
