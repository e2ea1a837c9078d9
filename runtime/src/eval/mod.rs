//! What quantization costs: perplexity of a text and divergence from a reference model.

mod perplexity;

pub use perplexity::{Comparison, Perplexity, Windows, compare, perplexity};
