//! Measures a model on a device and says what the time could have been: a roofline of the bandwidth and of the INT8
//! peak that plain kernels reach in the same run.

pub mod cli;
mod measure;
mod text;
mod timed;
mod work;

pub use measure::{measure, predicted};
pub use timed::{Memory, Peak, Timed, host_read_bandwidth};
pub use work::{Roofline, StepSize, Work, of_launch, of_step, predict};

use crate::cuda::Race;
use serde::Serialize;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sequences of the decode steps.
    pub decode: Vec<usize>,
    /// Lengths of prompts.
    pub prefill: Vec<usize>,
    /// Tokens that each sequence has before it decodes.
    pub context: usize,
    /// Tokens that a step has room for.
    pub step_rows: usize,
    /// Times that each step is measured.
    pub repeats: usize,
}

/// What was measured, or predicted.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// Its phase.
    pub phase: String,
    /// The machine.
    pub device: String,
    /// What is predicted with.
    pub roofline: Roofline,
    /// Whether `roofline` was measured in this run.
    pub roofline_measured: bool,
    /// What reached the INT8 peak, where one was measured.
    pub int8_peak: Option<Peak>,
    /// From the file to the device.
    pub load: Option<Load>,
    /// After the last measurement; planned where the device does not count.
    pub memory: Memory,
    /// Steps of one token a sequence.
    pub decode: Vec<Row>,
    /// Prompts.
    pub prefill: Vec<Row>,
    /// Where the time goes.
    pub kernels: Vec<KernelTable>,
    /// Compiled kernels that ran.
    pub kernels_used: Vec<&'static str>,
}

/// How long it took until the device was ready.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// From an open artifact to a device that can step.
    pub seconds: f64,
    /// Bytes of weights.
    pub bytes: u64,
    /// Part of it: from the file's pages to the GPU.
    pub upload_seconds: Option<f64>,
    /// Of copies from page-locked memory, measured afterwards.
    pub copy_bytes_per_second: Option<f64>,
}

impl Load {
    /// Bytes a second of the upload, where there was one.
    pub fn upload_rate(&self) -> Option<f64> {
        self.upload_seconds.map(|seconds| self.bytes as f64 / seconds)
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    /// Sequences.
    pub sequences: usize,
    /// New tokens of each.
    pub tokens: usize,
    /// Tokens that each had before.
    pub context: usize,
    /// What is done.
    #[serde(flatten)]
    pub work: Work,
    /// By the roofline, launch after launch.
    pub predicted_us: f64,
    /// By the device's clock, without copies.
    pub measured_us: Option<f64>,
    /// By the host's clock, with everything that a user waits for.
    pub wall_us: Option<f64>,
}

impl Row {
    /// Tokens a second: measured, else predicted.
    pub fn tokens_per_second(&self) -> f64 {
        let elapsed_us = self.measured_us.or(self.wall_us).unwrap_or(self.predicted_us);
        (self.sequences * self.tokens) as f64 / elapsed_us * 1e6
    }
}

/// Launches of a step, by kernel and origin.
#[derive(Clone, Debug, Serialize)]
pub struct KernelTable {
    /// Sequences of the step.
    pub sequences: usize,
    /// New tokens of each.
    pub tokens: usize,
    /// Longest first.
    pub rows: Vec<KernelRow>,
    /// Linears beside the vendor's product.
    pub races: Vec<RaceRow>,
}

/// A linear beside the vendor's product of its shape.
#[derive(Clone, Debug, Serialize)]
pub struct RaceRow {
    /// Where it comes from, without the number of the layer.
    pub origin: String,
    /// What they took.
    #[serde(flatten)]
    pub race: Race,
}

/// Launches of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct KernelRow {
    /// The kernel of the plan.
    pub kernel: &'static str,
    /// Where it comes from, without the number of the layer.
    pub origin: String,
    /// How many a step.
    pub launches: usize,
    /// What they do together.
    #[serde(flatten)]
    pub work: Work,
    /// Together, by the roofline.
    pub predicted_us: f64,
    /// Together, each timed by itself.
    pub measured_us: Option<f64>,
    /// Whether it runs beside another row, so that its time is no part of the sum.
    pub beside: bool,
    /// What the vendor's INT8 product takes for the shapes of these linears together, as raced.
    pub vendor_us: Option<f64>,
}
