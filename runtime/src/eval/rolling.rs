//! Perplexity of words and bytes by rolling log-likelihood, the harness's convention: the ids of the text follow one
//! prefix token, every token is predicted, in windows that share one token.

use super::EvalError;
use super::loglikelihood::{Scoring, log_likelihoods};
use super::request::Request;
use crate::device::Device;
use serde::{Deserialize, Serialize};

/// How well a text is predicted, by units that do not depend on the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rolling {
    /// Of the whole text, in nats.
    pub log_likelihood: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Words: what white space separates, as the harness counts (`re.split(r"\s+", text)`).
    pub words: usize,
    /// Bytes of UTF-8.
    pub bytes: usize,
    /// Tokens of a window.
    pub window: usize,
    /// `exp(-log_likelihood / words)`.
    pub word_perplexity: f64,
    /// `exp(-log_likelihood / bytes)`.
    pub byte_perplexity: f64,
    /// `-log_likelihood / bytes / ln 2`.
    pub bits_per_byte: f64,
}

/// Predicts `tokens`, the ids of `text`, after `prefix`.
///
/// # Errors
/// Those of the device.
pub fn rolling(
    device: &mut dyn Device,
    text: &str,
    tokens: &[u32],
    prefix: u32,
    window: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Rolling, EvalError> {
    let windows = windows(tokens, prefix, window.max(1));
    let documents: Vec<&[Request]> = windows.iter().map(std::slice::from_ref).collect();
    let mut sums = vec![0.0; documents.len()];
    let mut done = 0;
    let scoring = Scoring { sequences: 8, share_context: true };
    progress(done, documents.len());
    log_likelihoods(device, &documents, &scoring, &mut |index, scores| {
        sums[index] = scores.iter().map(|score| score.log_likelihood).sum();
        done += 1;
        progress(done, documents.len());
        Ok(())
    })?;
    let log_likelihood: f64 = sums.iter().sum();
    let (words, bytes) = (count_words(text), text.len());
    let per = |count: usize| -log_likelihood / count.max(1) as f64;
    Ok(Rolling {
        log_likelihood,
        tokens: tokens.len(),
        words,
        bytes,
        window,
        word_perplexity: per(words).exp(),
        byte_perplexity: per(bytes).exp(),
        bits_per_byte: per(bytes) / std::f64::consts::LN_2,
    })
}

/// Windows that predict up to `size` tokens each, with a context of one token.
fn windows(tokens: &[u32], prefix: u32, size: usize) -> Vec<Request> {
    let before = std::iter::once(prefix).chain(tokens.iter().copied().skip(size - 1).step_by(size));
    let window = |(before, tokens): (u32, &[u32])| {
        let tokens = std::iter::once(before).chain(tokens.iter().copied()).collect();
        Request { tokens, split: 1 }
    };
    before.zip(tokens.chunks(size)).map(window).collect()
}

/// `len(re.split(r"\s+", text))`: white space at an end counts an empty word.
fn count_words(text: &str) -> usize {
    let inner = text.split_whitespace().count();
    let edges = text.starts_with(char::is_whitespace) as usize + text.ends_with(char::is_whitespace) as usize;
    if inner == 0 { 1 + edges.min(1) } else { inner + edges }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::plan::{DType, WeightFormat};
    use crate::synthetic::{self, Layout, Shape};

    #[test]
    fn windows_predict_every_token_once_after_the_one_before() {
        let windows = windows(&[10, 11, 12, 13, 14], 1, 2);
        let tokens: Vec<&[u32]> = windows.iter().map(|window| window.tokens.as_slice()).collect();
        assert_eq!(tokens, [&[1, 10, 11][..], &[11, 12, 13], &[13, 14]]);
    }

    #[test]
    fn counts_words_as_the_harness_does() {
        for (text, words) in [("", 1), (" ", 2), ("a", 1), ("a b\n\nc", 3), (" a b ", 4)] {
            assert_eq!(count_words(text), words, "{text:?}");
        }
    }

    #[test]
    fn adds_up_the_probabilities_of_all_tokens() {
        let format = WeightFormat::Float { dtype: DType::F32 };
        let (plan, store) = synthetic::model(&Shape::tiny(), &Layout::of(format), 5);
        let mut device = cpu::Device::new(&plan, &store, &cpu::Options::default()).unwrap();
        let tokens = [4, 8, 15, 16, 23, 42];
        let whole = rolling(&mut device, "six bytes?", &tokens, 1, 1024, &mut |_, _| {}).unwrap();
        let logits = crate::generate::logits(&mut device, &[1, 4, 8, 15, 16, 23], None).unwrap();
        let one = |(row, target): (&[f32], &u32)| {
            let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            f64::from(row[*target as usize]) - sum.ln()
        };
        let expected: f64 = logits.chunks_exact(plan.model.vocab_size).zip(&tokens).map(one).sum();
        assert!((whole.log_likelihood - expected).abs() < 1e-9);
        assert!((whole.byte_perplexity - (-expected / 10.0).exp()).abs() < 1e-9);
        assert!((whole.word_perplexity - (-expected / 2.0).exp()).abs() < 1e-6 * whole.word_perplexity);
    }
}
