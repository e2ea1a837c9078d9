use super::{DeviceChoice, Finish, GenerateError, Generation, Request, Sampling, Tokenizer, generate};
use crate::device::{Device, Limits};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Resources of a run.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Resources")]
pub struct StepArgs {
    /// Most tokens of prompt and text together [default: as the memory allows]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Most memory for the states of the model, for example 512M or 4G [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub memory: Option<u64>,
    /// Prompt tokens computed at once
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = at_least_one)]
    pub chunk: usize,
    /// CPU threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// Where to run: auto, cpu, cuda or cuda:N; auto takes a GPU if there is one and the artifact has kernels for it
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Run on the GPU of this number, as the driver counts
    #[arg(long, value_name = "N")]
    pub gpu: Option<u32>,
}

impl StepArgs {
    /// What these flags allow a device.
    pub fn limits(&self) -> Limits {
        Limits { step_rows: self.chunk, context: self.context, state_bytes: self.memory }
    }
}

/// A prompt and how to continue it.
#[derive(Clone, Debug, clap::Args)]
pub struct GenerateArgs {
    /// Text to continue
    #[arg(short, long, required_unless_present = "prompt_file", conflicts_with = "prompt_file")]
    pub prompt: Option<String>,
    /// File with the text to continue
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
    /// Print the prompt before its continuation
    #[arg(long)]
    pub echo: bool,
    /// Most tokens to generate
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    pub max_tokens: usize,
    /// Go on after the model's end-of-text token
    #[arg(long)]
    pub ignore_eos: bool,
    /// 0 takes the likeliest token each time; higher is more varied
    #[arg(long, short = 't', default_value_t = 0.0, allow_negative_numbers = true, help_heading = "Sampling")]
    pub temperature: f32,
    /// Choose among this many of the likeliest tokens; 0 is all
    #[arg(long, default_value_t = 0, help_heading = "Sampling")]
    pub top_k: usize,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0, help_heading = "Sampling")]
    pub top_p: f32,
    /// Choose among tokens with this share of the likeliest token's probability
    #[arg(long, default_value_t = 0.0, help_heading = "Sampling")]
    pub min_p: f32,
    /// Above 1, tokens that occurred become less likely
    #[arg(long, default_value_t = 1.0, help_heading = "Sampling")]
    pub repetition_penalty: f32,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 0, help_heading = "Sampling")]
    pub seed: u64,
}

impl GenerateArgs {
    /// The sampling parameters.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            repetition_penalty: self.repetition_penalty,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
        }
    }

    /// The text to continue.
    pub fn prompt_text(&self) -> Result<String, GenerateError> {
        match (&self.prompt, &self.prompt_file) {
            (Some(prompt), _) => Ok(prompt.clone()),
            (None, Some(path)) => std::fs::read_to_string(path)
                .map_err(|source| GenerateError::File { path: path.display().to_string(), source }),
            (None, None) => Err(GenerateError::EmptyPrompt),
        }
    }

    /// Continues the prompt and writes text as it comes; ends early when the reader of `out` has gone, or `interrupted`
    /// is set.
    pub fn run(
        &self,
        device: &mut dyn Device,
        tokenizer: &Tokenizer,
        out: &mut dyn Write,
        interrupted: &AtomicBool,
    ) -> Result<Summary, GenerateError> {
        let text = self.prompt_text()?;
        if text.is_empty() {
            // A BOS that the tokenizer adds would make it legal; more likely a variable was not set.
            return Err(GenerateError::EmptyPrompt);
        }
        let prompt = tokenizer.encode(&text)?;
        let stop_tokens = if self.ignore_eos { Vec::new() } else { device.plan().model.eos_token_ids.clone() };
        let request = Request {
            prompt: &prompt,
            max_tokens: self.max_tokens,
            sampling: self.sampling(),
            stop_tokens: &stop_tokens,
            chunk: None,
            interrupted: Some(interrupted),
        };
        let mut stream = tokenizer.stream();
        let mut failure = None;
        if self.echo {
            print(out, &text).or_else(broken_pipe)?;
        }
        let generation = generate(device, &request, &mut |token| {
            let printed = stream.push(token).and_then(|text| print(out, &text));
            match printed {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        match failure {
            Some(error) => broken_pipe(error)?,
            None => print(out, &(stream.finish()? + "\n")).or_else(broken_pipe)?,
        }
        Ok(Summary { prompt_tokens: prompt.len(), generation })
    }
}

/// A finished run, printed as one line of statistics.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// What came after it.
    pub generation: Generation,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Generation { tokens, finish, prefill, decode } = &self.generation;
        let speed = |count: usize, time: &Duration| count as f64 / time.as_secs_f64().max(1e-9);
        write!(f, "prompt {} tokens, {:.1} tokens/s", self.prompt_tokens, speed(self.prompt_tokens, prefill))?;
        write!(f, "; text {} tokens", tokens.len())?;
        if tokens.len() > 1 {
            write!(f, ", {:.1} tokens/s", speed(tokens.len() - 1, decode))?;
        }
        f.write_str(match finish {
            Finish::Stop(_) => "; ended by the model",
            Finish::Length => "; ended by --max-tokens",
            Finish::ContextFull => "; ended because --context is full",
            Finish::Interrupted => "; interrupted",
        })
    }
}

fn print(out: &mut dyn Write, text: &str) -> Result<(), GenerateError> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| GenerateError::File { path: "standard output".to_owned(), source })
}

/// A reader that has seen enough (`| head`) is no failure.
fn broken_pipe(error: GenerateError) -> Result<(), GenerateError> {
    match error {
        GenerateError::File { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        error => Err(error),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// Reads `4096`, `512K`, `300M` or `4G` (powers of 1024; `KiB` and `KB` mean the same) as a number of bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let factor: u64 = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(format!("unknown unit {unit:?}, expected K, M, G or T")),
    };
    let number: f64 = digits.trim().parse().map_err(|_| "expected a number such as 4096, 512M or 1.5G".to_owned())?;
    if !(0.0..=1e6 * (1u64 << 40) as f64).contains(&(number * factor as f64)) {
        return Err("out of range".to_owned());
    }
    Ok((number * factor as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn reads_sizes_with_units() {
        for (text, bytes) in
            [("4096", 4096), ("512K", 512 << 10), ("300MiB", 300 << 20), ("1.5G", 3 << 29), ("2gb", 2 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1X", "1e40", "nan"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
