//! What quantization costs: perplexity of a text, divergence from a reference model, and benchmarks scored as
//! lm-evaluation-harness scores them.

mod document;
mod error;
mod examples;
mod harness;
mod loglikelihood;
mod metrics;
mod partial;
mod perplexity;
mod published;
mod reference;
mod request;
mod rolling;
mod task;
mod windows;

pub use document::{Document, Pair};
pub use error::{EvalError, Problem};
pub use examples::Fewshot;
pub use harness::{Preparation, Prepared, TaskResult, prepare};
pub use loglikelihood::{Score, Scoring, log_likelihoods};
pub use metrics::{Metrics, Sample};
pub use partial::Partial;
pub use perplexity::{Comparison, Perplexity, PositionDivergence, compare, mean_divergence, perplexity};
pub use published::convert;
pub use reference::Reference;
pub use request::{Request, encode_pair};
pub use rolling::{Rolling, rolling};
pub use task::{Form, TASKS, Task};
pub use windows::Windows;
