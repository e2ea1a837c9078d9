//! A model and the sequences it is calibrated on.

use super::place::{Place, PlaceArguments};
use crate::compile::files::{digest_of, folder_of};
use crate::failure::{Failure, Outcome, warn};
use crate::pipeline::compiled;
use crate::progress::count_bar;
use crate::table::{elapsed, table};
use crate::text::Text;
use codegen::calibrate::{
    Models, Probing, Rounded, STEP_TOKENS, Sensitivity, Settings, Times, collect_covariances, collect_statistics,
    round_weights, sensitivities, sequences, text_digest,
};
use codegen::plan::Compiled;
use frontend::Checkpoint;
use frontend::names::Role;
use ir::statistics::Statistics;
use ir::weights::{StorageFormat, StoredWeight, TensorSource};
use passes::recipe::Gptq;
use passes::{Phase, PipelineOptions, Recipe};
use runtime::artifact::TOKENIZER_TENSOR;
use runtime::generate::Tokenizer;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pieces of text, unless told otherwise.
pub const SAMPLES: usize = 128;
/// Tokens of a piece, unless told otherwise.
pub const LENGTH: usize = 512;

/// Pieces on which the model runs once for each weight, to choose precisions.
const PROBES: usize = 8;

/// The default text; see the README beside it.
const TEXT: &str = include_str!("text.txt");

/// What a parameter costs for each token, on one core: measured on nano and mini, both models and the sums.
const SECONDS_PER_TOKEN_PARAMETER: f64 = 3e-10;
/// What a weight `[m, k]` costs for each of `m k^2`, on one core: measured at the widths of the 8B model.
const SECONDS_PER_ROUNDING: f64 = 4e-10;
/// What a parameter costs for each token on a GPU.
const GPU_SECONDS_PER_TOKEN_PARAMETER: f64 = 5e-13;
/// Without being asked to, `compile` calibrates no longer than this.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// How `compile` calibrates.
#[derive(clap::Args)]
#[command(next_help_heading = "Calibration")]
pub struct CalibrationArguments {
    /// `none` rounds weights to nearest; a file of `nemoc calibrate` spares measuring activations.
    #[arg(long, value_name = "none|STATS")]
    calibration: Option<PathBuf>,
    /// UTF-8 text like what the model will read [default: a text that ships with nemoc].
    #[arg(long, value_name = "FILE")]
    calibration_text: Option<PathBuf>,
    /// Pieces of the text to look at [default: 128].
    #[arg(long, value_name = "N")]
    calibration_samples: Option<usize>,
    /// Tokens of a piece.
    #[arg(long, value_name = "L", default_value_t = LENGTH)]
    calibration_length: usize,
    /// Which pieces.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    calibration_seed: u64,
    /// Print how long the parts of rounding by GPTQ took, for each linear, to stderr.
    #[arg(long)]
    time_rounding: bool,
    #[command(flatten)]
    place: PlaceArguments,
}

impl CalibrationArguments {
    /// Tells a user who wants to know where the time went.
    pub fn report(&self, rounded: &Rounded) -> Outcome {
        if self.time_rounding {
            anstream::stderr().write_all(timings(rounded).as_bytes())?;
        }
        Ok(())
    }

    /// What to calibrate on; `None` when weights are to be rounded to nearest. To choose precisions takes longer.
    pub fn session(&self, checkpoint: &Checkpoint, chooses: bool) -> Result<Option<Session>, Failure> {
        if self.calibration.as_deref() == Some(Path::new("none")) {
            return Ok(None);
        }
        if !tokenizer_path(checkpoint).exists() {
            warn("there is no tokenizer.json to calibrate with: weights are rounded to nearest");
            return Ok(None);
        }
        let (samples, length) = (self.calibration_samples.unwrap_or(SAMPLES), self.calibration_length);
        // A run for each weight, half of the model in the mean, without the sums of calibration.
        let probed = checkpoint.config().layers.len() * PROBES.min(samples) * length / 2;
        let tokens = samples * length;
        let place = self.place.open()?;
        let estimate = match place.is_gpu() && !chooses {
            true => estimate_on_gpu(checkpoint, tokens),
            false => estimate(checkpoint.parameters(), if chooses { 2 * tokens + probed } else { tokens }),
        };
        if estimate > PATIENCE && self.calibration_samples.is_none() {
            warn(&format!(
                "calibrating on this machine would take about {}: weights are rounded to nearest\n\
                 help: --calibration-samples {samples} calibrates nevertheless, fewer samples are faster and worse",
                elapsed(estimate)
            ));
            return Ok(None);
        }
        let text = self.calibration_text.as_deref();
        Session::open(checkpoint, place, text, samples, length, self.calibration_seed).map(Some)
    }

    /// Statistics of a file, or measured.
    pub fn statistics(
        &self,
        session: &Session,
        checkpoint: &Checkpoint,
        covariance: bool,
    ) -> Result<Statistics, Failure> {
        let Some(path) = &self.calibration else { return session.statistics(checkpoint, covariance) };
        let refused = |error: ir::statistics::StatisticsError| {
            Failure::at(path.display(), format!("{error}\nhelp: {}", error.help()))
        };
        let statistics = Statistics::load(path).map_err(refused)?;
        statistics.check(&digest_of(checkpoint)).map_err(refused)?;
        if covariance && statistics.covariances.is_empty() {
            let help = "run nemoc calibrate --covariance, or leave --calibration away";
            return Err(Failure::at(path.display(), format!("rotations of kind klt need covariances\nhelp: {help}")));
        }
        Ok(statistics)
    }
}

fn timings(rounded: &Rounded) -> String {
    let mut drawn = table(&["linear", "models up to it>", "sums>", "factor>", "rounding>"]);
    for Times { name, models, sums, factor, rounding } in &rounded.times {
        drawn.add_row([name.clone(), elapsed(*models), elapsed(*sums), elapsed(*factor), elapsed(*rounding)]);
    }
    let sum = |of: fn(&Times) -> Duration| elapsed(rounded.times.iter().map(of).sum());
    drawn.add_row([
        "total".to_owned(),
        sum(|times| times.models),
        sum(|times| times.sums),
        sum(|times| times.factor),
        sum(|times| times.rounding),
    ]);
    format!("{drawn}\n")
}

fn estimate(parameters: u64, tokens: usize) -> Duration {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    Duration::from_secs_f64(SECONDS_PER_TOKEN_PARAMETER * parameters as f64 * tokens as f64 / threads)
}

/// Rounding alone stays on the CPU.
fn estimate_on_gpu(checkpoint: &Checkpoint, tokens: usize) -> Duration {
    let work = |[rows, columns]: [usize; 2]| rows as f64 * (columns as f64).powi(2);
    let weights = checkpoint.tensors().iter().filter(|tensor| tensor.role != Role::Embedding);
    let matrices = weights.filter_map(|tensor| <[usize; 2]>::try_from(&tensor.shape[..]).ok());
    let rounding = SECONDS_PER_ROUNDING * matrices.map(work).sum::<f64>();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let models = GPU_SECONDS_PER_TOKEN_PARAMETER * checkpoint.parameters() as f64 * tokens as f64;
    Duration::from_secs_f64(rounding / threads + models)
}

fn tokenizer_path(checkpoint: &Checkpoint) -> PathBuf {
    folder_of(checkpoint).join(TOKENIZER_TENSOR)
}

/// Token sequences of a text.
pub struct Session {
    place: Place,
    tokens: Vec<u32>,
    samples: usize,
    length: usize,
    seed: u64,
    text: String,
}

impl Session {
    /// Reads and tokenizes the text.
    pub fn open(
        checkpoint: &Checkpoint,
        place: Place,
        text: Option<&Path>,
        samples: usize,
        length: usize,
        seed: u64,
    ) -> Result<Session, Failure> {
        let content = match text {
            None => Cow::Borrowed(TEXT),
            Some(path) => Cow::Owned(Text::read(path)?.content),
        };
        let path = tokenizer_path(checkpoint);
        let bytes = std::fs::read(&path).map_err(|error| {
            let help = "calibration needs the tokenizer.json beside config.json";
            Failure::at(path.display(), format!("cannot read the tokenizer: {error}\nhelp: {help}"))
        })?;
        let tokens = Tokenizer::from_bytes(&bytes)?.encode(&content)?;
        let session = Session { place, tokens, samples, length, seed, text: text_digest(&content) };
        session.sequences()?;
        Ok(session)
    }

    /// Tokens looked at.
    pub fn tokens(&self) -> usize {
        self.samples * self.length
    }

    /// Where the model runs, for people.
    pub fn place(&self) -> String {
        self.place.description()
    }

    /// For the provenance of an artifact.
    pub fn describe(&self, recipe: &Recipe) -> String {
        let Session { samples, length, seed, text, .. } = self;
        let what = if recipe.rounds_to_nearest() { "activations measured" } else { "gptq" };
        let place = if self.place.is_gpu() { ", activations on a GPU" } else { "" };
        format!("{what} on {samples} x {length} tokens, seed {seed}, text {text}{place}")
    }

    fn sequences(&self) -> Result<Vec<&[u32]>, Failure> {
        Ok(sequences(&self.tokens, self.samples, self.length, self.seed)?)
    }

    /// Runs the model as it is and measures the inputs of its linears; once more for covariances.
    pub fn statistics(&self, checkpoint: &Checkpoint, covariance: bool) -> Result<Statistics, Failure> {
        let options = PipelineOptions { phase: Some(Phase::Reference), ..PipelineOptions::default() };
        let (compiled, _) = compiled(checkpoint, passes::pipeline(&options))?;
        let bar = count_bar("measuring activations");
        let sequences = self.sequences()?;
        let progress = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        let inputs = self.place.run(|machine| {
            collect_statistics(machine, &compiled, checkpoint, &sequences, STEP_TOKENS, &mut { progress })
        })?;
        let covariances = if covariance {
            self.place.run(|machine| {
                collect_covariances(machine, &compiled, checkpoint, &sequences, STEP_TOKENS, &mut { progress })
            })?
        } else {
            BTreeMap::new()
        };
        bar.finish_and_clear();
        Ok(Statistics {
            model: digest_of(checkpoint),
            samples: self.samples as u64,
            length: self.length as u64,
            seed: self.seed,
            text: self.text.clone(),
            inputs,
            covariances,
        })
    }

    /// Measures what weights cost in formats: each that `formats` names any for, as the reference has it. The options are
    /// those of a compilation that quantizes everything.
    pub fn sensitivities(
        &self,
        checkpoint: &Checkpoint,
        source: &dyn TensorSource,
        options: &PipelineOptions,
        formats: &dyn Fn(&StoredWeight) -> Vec<StorageFormat>,
    ) -> Result<Sensitivities, Failure> {
        let (reference, _) = compiled(checkpoint, passes::reference_pipeline(options))?;
        let stride = Settings::default().output_stride;
        let sequences = self.sequences()?;
        let probing = Probing { sequences: &sequences, probes: PROBES, output_stride: stride };
        let bar = count_bar("measuring weights");
        let found = sensitivities(&reference, source, probing, formats, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        let weight = |name: &str| reference.weights.iter().find(|weight| weight.name == name).cloned();
        let weights = found.into_iter().filter_map(|found| Some((weight(&found.name)?, found))).collect();
        Ok(Sensitivities { weights, tokens: PROBES.min(self.samples) * self.length })
    }

    /// Rounds the weights of a compiled model; the options are those it was compiled with, the source has what they
    /// depend on.
    pub fn round(
        &self,
        checkpoint: &Checkpoint,
        source: &dyn TensorSource,
        options: &PipelineOptions,
        quantized: &Compiled,
    ) -> Result<Rounded, Failure> {
        let (reference, _) = compiled(checkpoint, passes::reference_pipeline(options))?;
        let models = Models { reference: &reference, quantized };
        let settings = settings(&options.recipe().gptq);
        let bar = count_bar("rounding weights");
        let progress = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        let sequences = self.sequences()?;
        let rounded = self
            .place
            .run(|machine| round_weights(machine, models, source, &sequences, settings, &mut { progress }))?;
        bar.finish_and_clear();
        Ok(rounded)
    }
}

fn settings(gptq: &Gptq) -> Settings {
    let Gptq { damping, act_order, clip, refit, sweeps } = *gptq;
    Settings { refit, damping, act_order, clip, sweeps, ..Settings::default() }
}

/// What weights cost, and what that was measured on.
pub struct Sensitivities {
    /// The float weights, and what they cost in their formats.
    pub weights: Vec<(StoredWeight, Sensitivity)>,
    /// Tokens of the runs that were compared.
    pub tokens: usize,
}
