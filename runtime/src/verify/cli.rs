//! The command line that `nemoc verify` and `nemo-bench verify` share.

use super::whole::SEQUENCES;
use super::{GREEDY_PROMPT, Options, Report, verify};
use crate::artifact::Artifact;
use crate::device::{DeviceError, Limits};
use crate::generate::{DeviceChoice, open_cpu, open_cuda};

/// What to verify, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// What to compare with the CPU: cuda or cuda:N; cpu compares one thread with many, which must agree to the bit
    #[arg(long, value_name = "DEVICE", default_value = "cuda", value_parser = gpu_or_cpu)]
    pub device: DeviceChoice,
    /// Number of the GPU, as the driver counts
    #[arg(long, value_name = "N")]
    pub gpu: Option<u32>,
    /// Numbers of sequences
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,8", value_parser = size)]
    pub batch: Vec<usize>,
    /// Lengths of prompts
    #[arg(long, value_name = "TOKENS,...", value_delimiter = ',', default_value = "1,129", value_parser = size)]
    pub prefill: Vec<usize>,
    /// Steps of one token after each prompt
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub steps: usize,
    /// Tokens to continue a prompt by on both; the text must be the same, or part at a tie
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub greedy: usize,
    /// CPU threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Seed of the made-up tokens
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print every launch, not only the worst of each kernel
    #[arg(long)]
    pub launches: bool,
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

/// `auto` would leave open what is verified.
fn gpu_or_cpu(text: &str) -> Result<DeviceChoice, String> {
    match text.parse() {
        Ok(DeviceChoice::Auto) | Err(_) => Err("expected cuda, cuda:N or cpu".to_owned()),
        choice => choice,
    }
}

fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=65536) => Ok(number),
        _ => Err("expected a whole number from 1 to 65536".to_owned()),
    }
}

impl VerifyArgs {
    fn step_rows(&self) -> usize {
        let most = |numbers: &[usize]| numbers.iter().copied().max().unwrap_or(1);
        (most(&self.batch) * most(&self.prefill)).max(GREEDY_PROMPT * SEQUENCES)
    }

    fn options(&self, exact: bool) -> Options {
        Options {
            batches: self.batch.clone(),
            prefill: self.prefill.clone(),
            decode_steps: self.steps,
            greedy_tokens: self.greedy,
            exact,
            seed: self.seed,
        }
    }

    /// Verifies an artifact.
    pub fn run(&self, artifact: &Artifact) -> Result<Report, DeviceError> {
        let limits = Limits { step_rows: self.step_rows(), ..Limits::default() };
        let on_cpu = |threads| open_cpu(artifact, threads, limits);
        let DeviceChoice::Cuda(ordinal) = self.device.with_gpu(self.gpu)? else {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let threads = self.threads.unwrap_or(cores).max(2);
            return verify(&mut on_cpu(Some(1))?, &mut on_cpu(Some(threads))?, &self.options(true));
        };
        let mut device = open_cuda(artifact, ordinal, limits)?;
        verify(&mut on_cpu(self.threads)?, &mut device, &self.options(false))
    }

    /// As the user wants it printed.
    pub fn render(&self, report: &Report) -> String {
        if self.json {
            return serde_json::to_string_pretty(report).unwrap_or_default() + "\n";
        }
        let launches = if self.launches { report.launches_text() + "\n" } else { String::new() };
        format!("{launches}{report}")
    }
}
