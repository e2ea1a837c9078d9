//! `nemoc eval`: the numbers that decide between phases.

mod baseline;
mod basis;
pub mod hardware;
pub mod layers;
pub mod model;
mod speed;

use self::baseline::Baseline;
use crate::device;
use crate::failure::{Failure, Outcome, warn};
use crate::reference;
use crate::report::data::{ModelReport, Report, SCHEMA, Settings};
use crate::report::{show, write, write_files};
use crate::text::{Text, WindowArguments};
use runtime::artifact::Artifact;
use runtime::device::Device;
use runtime::eval::{Fewshot, Partial, Preparation, Scoring, Task};
use runtime::generate::StepArgs;
use std::path::{Path, PathBuf};

/// Measure models: perplexity, divergence from a baseline, benchmarks as lm-evaluation-harness scores them, speed.
#[derive(clap::Args)]
pub struct Arguments {
    /// Artifacts, or checkpoint folders: these are measured as they are, under phase 0.
    #[arg(value_name = "M.nemo|CKPT", required = true)]
    artifacts: Vec<PathBuf>,
    #[command(flatten)]
    perplexity: PerplexityArgs,
    #[command(flatten)]
    tasks: TaskArgs,
    /// Measure prefill and decode of one sequence.
    #[arg(long)]
    speed: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    step: StepArgs,
}

/// What text is predicted.
#[derive(clap::Args)]
#[command(next_help_heading = "Perplexity")]
pub struct PerplexityArgs {
    /// Measure the perplexity of this text.
    #[arg(long = "perplexity", visible_alias = "text", value_name = "FILE")]
    text: Option<PathBuf>,
    /// Compare with this checkpoint or artifact of the same model: mean KL divergence and agreement.
    #[arg(long, value_name = "CKPT|REF.nemo", requires = "text")]
    baseline: Option<PathBuf>,
    #[command(flatten)]
    window: WindowArguments,
    /// Also the perplexity of words and bytes over the whole text, by rolling log-likelihood as the harness does it.
    #[arg(long, requires = "text")]
    rolling: bool,
}

/// What benchmarks are scored.
#[derive(clap::Args)]
#[command(next_help_heading = "Benchmarks")]
pub struct TaskArgs {
    /// Of arc_easy, arc_challenge, hellaswag, piqa, winogrande, lambada_openai.
    #[arg(long, value_name = "TASK,...", value_delimiter = ',', requires = "data")]
    tasks: Vec<String>,
    /// Folder with a TASK.jsonl for each task.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Score the first documents of each task only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Solved examples before each document, drawn from the task's file in --examples as the harness draws them.
    #[arg(long, value_name = "K", default_value_t = 0, requires = "examples")]
    num_fewshot: u32,
    /// Folder with a TASK.jsonl of examples for each task, such as the training split.
    #[arg(long, value_name = "DIR")]
    examples: Option<PathBuf>,
    /// Which examples are drawn; the harness's own seed unless told otherwise.
    #[arg(long, value_name = "SEED", default_value_t = 1234)]
    fewshot_seed: u64,
    /// Stop at a document that cannot be scored as it stands.
    #[arg(long)]
    strict: bool,
    /// Put the result of every document into the JSON.
    #[arg(long)]
    log_samples: bool,
    /// Sequences in flight.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..65536))]
    sequences: u32,
    /// Read the context of a document again for each choice; only to measure what sharing it is worth.
    #[arg(long)]
    from_scratch: bool,
}

/// Where the results go.
#[derive(clap::Args)]
#[command(next_help_heading = "Results")]
pub struct OutputArgs {
    /// Write the results as JSON. An interrupted run leaves RESULTS.json.partial, and the same command goes on from it.
    #[arg(short, long, value_name = "RESULTS.json")]
    output: Option<PathBuf>,
    /// Write one HTML page with plots.
    #[arg(long, value_name = "REPORT.html")]
    html: Option<PathBuf>,
    /// Write one line a model and metric.
    #[arg(long, value_name = "F.csv")]
    csv: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// What is measured of every model.
struct Plan<'a> {
    arguments: &'a Arguments,
    tasks: Vec<&'static Task>,
    text: Option<Text>,
    baseline: Option<Artifact>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let plan = Plan::new(arguments)?;
    let mut report = Report {
        schema: SCHEMA.to_owned(),
        nemoc_version: env!("CARGO_PKG_VERSION").to_owned(),
        settings: plan.settings(),
        hardware: hardware::detect(String::new()),
        results: Default::default(),
        models: Vec::new(),
    };
    let mut partial = plan.partial()?;
    let mut device = plan.baseline_device()?;
    let mut baseline = plan
        .baseline
        .as_ref()
        .zip(device.as_deref_mut())
        .map(|(artifact, device)| Baseline::new(artifact, device, arguments.artifacts.len() > 1));
    for path in &arguments.artifacts {
        let (model, description) = plan.measure(path, baseline.as_mut(), partial.as_mut())?;
        report.hardware.device = description;
        report.models.push(model);
    }
    if arguments.speed {
        report.hardware.read_bytes_per_second = Some(runtime::bench::host_read_bandwidth());
    }
    if !arguments.tasks.log_samples {
        report.drop_samples();
    }
    let output = &arguments.output;
    if let Some(path) = &output.output {
        write(path, &report.to_json()?)?;
    }
    if let Some(partial) = partial {
        partial.remove()?;
    }
    write_files(&report, output.html.as_deref(), output.csv.as_deref())?;
    show(&report, output.json)
}

impl<'a> Plan<'a> {
    fn new(arguments: &'a Arguments) -> Result<Plan<'a>, Failure> {
        let tasks: Result<Vec<&'static Task>, _> = arguments.tasks.tasks.iter().map(|name| Task::named(name)).collect();
        let tasks = tasks?;
        let PerplexityArgs { text, baseline, .. } = &arguments.perplexity;
        if tasks.is_empty() && text.is_none() && !arguments.speed {
            return Err(Failure::Usage(
                "nothing to measure: give --perplexity FILE, --tasks TASK,... with --data DIR, or --speed".to_owned(),
            ));
        }
        let text = text.as_deref().map(Text::read).transpose()?;
        let baseline = baseline.as_deref().map(reference::open).transpose()?;
        Ok(Plan { arguments, tasks, text, baseline })
    }

    fn settings(&self) -> Settings {
        let tasks = &self.arguments.tasks;
        Settings {
            scoring: "Scored by the rules of lm-evaluation-harness 0.4.13".to_owned(),
            tasks: self.tasks.iter().map(|task| task.name.to_owned()).collect(),
            limit: tasks.limit.map(|limit| limit as usize),
            num_fewshot: tasks.num_fewshot as usize,
            share_context: !tasks.from_scratch,
            seed: if tasks.num_fewshot == 0 { 0 } else { tasks.fewshot_seed },
        }
    }

    fn partial(&self) -> Result<Option<Partial>, Failure> {
        let path = self.arguments.output.output.as_ref().filter(|_| !self.tasks.is_empty());
        Ok(path.map(|path| Partial::open(&path.with_added_extension("partial"))).transpose()?)
    }

    fn scoring(&self) -> Scoring {
        let tasks = &self.arguments.tasks;
        Scoring { sequences: tasks.sequences as usize, share_context: !tasks.from_scratch }
    }

    fn preparation(&self, max_length: Option<usize>) -> Preparation {
        let tasks = &self.arguments.tasks;
        Preparation {
            limit: tasks.limit.map(|limit| limit as usize),
            max_length,
            strict: tasks.strict,
            fewshot: Fewshot { count: tasks.num_fewshot as usize, seed: tasks.fewshot_seed },
            examples_dir: tasks.examples.clone(),
        }
    }

    /// What the baseline runs on, for all models.
    fn baseline_device(&self) -> Result<Option<Box<dyn Device + '_>>, Failure> {
        let baseline = self.baseline.as_ref().filter(|_| self.text.is_some());
        Ok(baseline
            .map(|baseline| device::open_for(baseline, &self.arguments.step))
            .transpose()?
            .map(|opened| opened.device))
    }

    /// Everything that was asked for, of one model; also what it ran on.
    fn measure(
        &self,
        path: &Path,
        baseline: Option<&mut Baseline<'_>>,
        partial: Option<&mut Partial>,
    ) -> Result<(ModelReport, String), Failure> {
        let started = std::time::Instant::now();
        let artifact = reference::open(path)?;
        let mut device = device::open_for(&artifact, &self.arguments.step)?.device;
        let mut report = model::facts(&artifact, path);
        if self.text.is_some() || !self.tasks.is_empty() {
            let tokenizer = device::tokenizer(&artifact, path)?;
            self.measure_text(&artifact, &mut *device, &tokenizer, baseline, &mut report)?;
            self.measure_tasks(&mut *device, &tokenizer, &mut report, partial)?;
        }
        if self.arguments.speed {
            report.speed = Some(speed::measure(&mut *device)?);
        }
        report.seconds = started.elapsed().as_secs_f64();
        Ok((report, device.description()))
    }
}

/// Problems of a task's documents, the first few of them word by word.
fn warn_of(task: &Task, data: &Path, problems: &[runtime::eval::Problem]) {
    const SHOWN: usize = 5;
    let path = data.join(task.file).with_extension("jsonl");
    for problem in problems.iter().take(SHOWN) {
        let left_out = if problem.skipped { "; the document is left out" } else { "" };
        warn(&format!("{problem}{left_out}\n  --> {}:{}", path.display(), problem.line));
    }
    if problems.len() > SHOWN {
        warn(&format!("{} more documents of {} have problems", problems.len() - SHOWN, task.name));
    }
}
