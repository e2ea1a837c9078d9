//! From a prompt to text: tokenizer, sampling, the generation loop, and the command line that `nemoc run` and
//! `nemo-run` share.

mod cli;
mod device;
mod error;
mod interrupt;
mod logits;
mod sampler;
mod sequence;
mod tokenizer;

pub use cli::{GenerateArgs, StepArgs, parse_bytes};
pub use device::{DeviceChoice, Fallback, Opened, open_cpu, open_cuda, open_device};
pub use error::GenerateError;
pub use interrupt::{INTERRUPTED, on_interrupt};
pub use logits::{logits, write_logits};
pub use sampler::{Sampler, Sampling};
pub use sequence::{Finish, Generation, Request, generate, prefill};
pub use tokenizer::{TextStream, Tokenizer};
