//! The command line that `nemoc bench` and `nemo-bench bench` share.

use super::{Load, Options, Report, Timed, measure};
use crate::artifact::Artifact;
use crate::device::{DeviceError, Limits};
use crate::generate::{DeviceChoice, GenerateError, open_cpu, open_cuda};
use crate::memory::Footprint;
use std::time::Instant;

/// What to measure, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Where to run: cuda, cuda:N or cpu
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    pub device: DeviceChoice,
    /// Number of the GPU, as the driver counts
    #[arg(long, value_name = "N")]
    pub gpu: Option<u32>,
    /// Numbers of sequences that decode together; `none` for no decode
    #[arg(long, value_name = "N,...", default_value = "1,4,16,64", value_parser = numbers)]
    pub decode: Numbers,
    /// Lengths of prompts; `none` for no prefill
    #[arg(long, value_name = "TOKENS,...", default_value = "512,2048,8192", value_parser = numbers)]
    pub prefill: Numbers,
    /// Tokens that each sequence has before it decodes; they are not computed, their keys and values are whatever is there
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    pub context: usize,
    /// Prompt tokens computed at once
    #[arg(long, value_name = "TOKENS", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..))]
    pub chunk: u32,
    /// Times each step is measured
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: u32,
    /// CPU threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

/// A list of sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers(pub Vec<usize>);

fn numbers(text: &str) -> Result<Numbers, String> {
    if text == "none" {
        return Ok(Numbers(Vec::new()));
    }
    let number = |part: &str| match part.trim().parse() {
        Ok(number @ 1..=1_048_576) => Ok(number),
        _ => Err(format!("{part:?} is no whole number from 1 to 1048576")),
    };
    text.split(',').map(number).collect::<Result<_, _>>().map(Numbers)
}

impl BenchArgs {
    /// What to measure.
    pub fn options(&self) -> Options {
        Options {
            decode: self.decode.0.clone(),
            prefill: self.prefill.0.clone(),
            context: self.context,
            step_rows: self.step_rows(),
            repeats: self.repeats as usize,
        }
    }

    fn step_rows(&self) -> usize {
        let longest = self.prefill.0.iter().copied().max().unwrap_or(1).max(self.context);
        let most = self.decode.0.iter().copied().max().unwrap_or(1);
        longest.min(self.chunk as usize).max(most)
    }

    /// Measures an artifact.
    pub fn run(&self, artifact: &Artifact) -> Result<Report, GenerateError> {
        let footprint = Footprint::of(artifact);
        let started = Instant::now();
        let mut device = self.open(artifact, Limits { step_rows: self.step_rows(), ..Limits::default() })?;
        let seconds = started.elapsed().as_secs_f64();
        let load = Load { seconds, bytes: footprint.weights, upload_seconds: None, copy_bytes_per_second: None };
        measure(device.as_mut(), footprint, load, &self.options())
    }

    fn open<'a>(&self, artifact: &'a Artifact, limits: Limits) -> Result<Box<dyn Timed + 'a>, DeviceError> {
        Ok(match self.device.with_gpu(self.gpu)? {
            DeviceChoice::Cpu => Box::new(open_cpu(artifact, self.threads, limits)?),
            DeviceChoice::Cuda(ordinal) => Box::new(open_cuda(artifact, ordinal, limits)?),
            DeviceChoice::Auto => Box::new(open_cuda(artifact, 0, limits)?),
        })
    }

    /// As the user wants it printed.
    pub fn render(&self, report: &Report) -> String {
        if self.json {
            return serde_json::to_string_pretty(report).unwrap_or_default() + "\n";
        }
        report.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::{Numbers, numbers};

    #[test]
    fn reads_lists_of_sizes() {
        assert_eq!(numbers("1,4, 16"), Ok(Numbers(vec![1, 4, 16])));
        assert_eq!(numbers("none"), Ok(Numbers(Vec::new())));
        for text in ["", "0", "1,,2", "-1", "many"] {
            assert!(numbers(text).is_err(), "{text}");
        }
    }
}
