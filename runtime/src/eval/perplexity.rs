//! Perplexity on non-overlapping windows, each from a fresh state.
//!
//! Within a window, every token but the first is predicted. A comparison looks at the logits of every token of a window, the
//! last included. Sums are f64.

use super::reference::Reference;
use super::windows::{Fresh, Predictor, Windows, each_step};
use crate::device::Device;
use crate::generate::GenerateError;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How well a model predicts a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// Windows computed.
    pub windows: usize,
    /// Tokens predicted.
    pub tokens: usize,
    /// Mean negative log-likelihood of a token, in nats.
    pub mean_nll: f64,
}

impl Perplexity {
    /// `exp(mean_nll)`.
    pub fn perplexity(&self) -> f64 {
        self.mean_nll.exp()
    }
}

/// How far a model is from a reference on the same text.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Of the reference.
    pub reference: Perplexity,
    /// Of the model.
    pub model: Perplexity,
    /// Positions compared.
    pub positions: usize,
    /// Mean KL(reference || model) over positions, in nats.
    pub mean_kl: f64,
    /// The KL that 99.9 % of the positions stay below.
    pub kl_p999: f64,
    /// Share of positions where both find the same token likeliest.
    pub top1_agreement: f64,
    /// Mean KL by the place in the window: what adds up from token to token grows here.
    pub by_position: Vec<PositionDivergence>,
}

/// Divergence over some positions of every window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PositionDivergence {
    /// First position.
    pub start: usize,
    /// Behind the last one.
    pub end: usize,
    /// Positions of all windows.
    pub positions: usize,
    /// Mean KL over them, in nats.
    pub mean_kl: f64,
}

/// The first positions that are counted together; then as many as came before, again and again.
const FIRST_POSITIONS: usize = 256;

/// Perplexity of a model. `progress` is told how many windows of how many are done.
pub fn perplexity(
    device: &mut dyn Device,
    tokens: &[u32],
    windows: &Windows,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Perplexity, GenerateError> {
    let mut nll = Vec::new();
    let count = each_step(&mut [&mut Fresh::new(device)], tokens, windows, progress, &mut |steps| {
        let targets = steps.targets.par_iter().enumerate();
        let rows =
            targets.filter_map(|(row, target)| target.map(|target| negative_log_likelihood(steps.row(0, row), target)));
        nll.par_extend(rows);
    })?;
    Ok(summarize(count, &nll))
}

/// Perplexity of two models and the divergence of `model` from `reference`.
pub fn compare(
    reference: &mut Reference<'_>,
    model: &mut dyn Device,
    tokens: &[u32],
    windows: &Windows,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Comparison, GenerateError> {
    let mut model = Fresh::new(model);
    let sizes = (reference.vocab_size(), model.vocab_size());
    if sizes.0 != sizes.1 {
        return Err(GenerateError::DifferentVocabularies { reference: sizes.0, model: sizes.1 });
    }
    let mut rows: Vec<RowComparison> = Vec::new();
    let count = each_step(&mut [reference, &mut model], tokens, windows, progress, &mut |steps| {
        let targets = steps.targets.par_iter().enumerate();
        rows.par_extend(targets.map(|(row, target)| RowComparison {
            position: steps.positions[row],
            ..compare_rows(steps.row(0, row), steps.row(1, row), *target)
        }));
    })?;
    let nll = |which: usize| -> Vec<f64> { rows.iter().filter_map(|row| row.nll.map(|nll| nll[which])).collect() };
    let mut kl: Vec<f64> = rows.iter().map(|row| row.kl).collect();
    let mean_kl = kl.iter().sum::<f64>() / kl.len() as f64;
    kl.sort_unstable_by(f64::total_cmp);
    let by_position = by_position(&rows);
    let agreed = rows.iter().filter(|row| row.same_top1).count();
    Ok(Comparison {
        reference: summarize(count, &nll(0)),
        model: summarize(count, &nll(1)),
        positions: rows.len(),
        mean_kl,
        kl_p999: kl[((kl.len() - 1) as f64 * 0.999).ceil() as usize],
        top1_agreement: agreed as f64 / rows.len() as f64,
        by_position,
    })
}

/// Means over 256 positions, the next 256, the next 512, and so on.
fn by_position(rows: &[RowComparison]) -> Vec<PositionDivergence> {
    let size = rows.iter().map(|row| row.position + 1).max().unwrap_or(0);
    let ends = std::iter::successors(Some(FIRST_POSITIONS), |end| Some(2 * end));
    let mut found = Vec::new();
    for (start, end) in std::iter::once(0).chain(ends.clone()).zip(ends).take_while(|(start, _)| *start < size) {
        let end = end.min(size);
        let (mut positions, mut sum) = (0, 0.0);
        for row in rows.iter().filter(|row| (start..end).contains(&row.position)) {
            (positions, sum) = (positions + 1, sum + row.kl);
        }
        found.push(PositionDivergence { start, end, positions, mean_kl: sum / positions as f64 });
    }
    found
}

fn summarize(windows: usize, nll: &[f64]) -> Perplexity {
    Perplexity { windows, tokens: nll.len(), mean_nll: nll.iter().sum::<f64>() / nll.len() as f64 }
}

/// The mean divergence of rows of logits from those of a reference, in nats.
pub fn mean_divergence(reference: &[f32], model: &[f32], vocab_size: usize) -> f64 {
    let rows = reference.par_chunks_exact(vocab_size).zip(model.par_chunks_exact(vocab_size));
    let kl: Vec<f64> = rows.map(|(reference, model)| compare_rows(reference, model, None).kl).collect();
    kl.iter().sum::<f64>() / kl.len().max(1) as f64
}

/// `ln sum exp(logits)`.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|logit| (f64::from(*logit) - max).exp()).sum::<f64>().ln()
}

fn negative_log_likelihood(logits: &[f32], target: u32) -> f64 {
    log_sum_exp(logits) - f64::from(logits[target as usize])
}

struct RowComparison {
    /// In its window.
    position: usize,
    kl: f64,
    same_top1: bool,
    /// Of the reference and of the model.
    nll: Option<[f64; 2]>,
}

fn compare_rows(reference: &[f32], model: &[f32], target: Option<u32>) -> RowComparison {
    let (p_sum, q_sum) = (log_sum_exp(reference), log_sum_exp(model));
    let terms = reference.iter().zip(model).map(|(p, q)| {
        let (log_p, log_q) = (f64::from(*p) - p_sum, f64::from(*q) - q_sum);
        log_p.exp() * (log_p - log_q)
    });
    let nll = target.map(|target| {
        let target = target as usize;
        [p_sum - f64::from(reference[target]), q_sum - f64::from(model[target])]
    });
    // KL is never negative; rounding of equal rows may say otherwise.
    RowComparison { position: 0, kl: terms.sum::<f64>().max(0.0), same_top1: top1(reference) == top1(model), nll }
}

fn top1(logits: &[f32]) -> usize {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
    best.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_two_known_distributions() {
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln(2) / 2 + ln(2/3) / 2.
        let row = compare_rows(&[1.0, 1.0], &[0.0, 3f32.ln()], Some(0));
        let expected = 0.5 * 2f64.ln() + 0.5 * (2.0 / 3.0f64).ln();
        assert!((row.kl - expected).abs() < 1e-7, "{}", row.kl);
        assert!(!row.same_top1);
        let [p, q] = row.nll.unwrap();
        assert!((p - 2f64.ln()).abs() < 1e-7 && (q - 4f64.ln()).abs() < 1e-7);
    }

    #[test]
    fn positions_are_counted_in_ranges_that_double() {
        let row = |position| RowComparison { position, kl: position as f64, same_top1: true, nll: None };
        let rows: Vec<RowComparison> = (0..2).flat_map(|_| (0..700).map(row)).collect();
        let found = by_position(&rows);
        let ranges: Vec<_> = found.iter().map(|range| (range.start, range.end, range.positions)).collect();
        assert_eq!(ranges, [(0, 256, 512), (256, 512, 512), (512, 700, 376)]);
        assert_eq!(found[2].mean_kl, f64::from(512 + 699) / 2.0);
    }

    #[test]
    fn equal_rows_do_not_diverge() {
        let row = compare_rows(&[0.3, -2.0, 40.0], &[0.3, -2.0, 40.0], None);
        assert!(row.kl.abs() < 1e-12 && row.same_top1 && row.nll.is_none());
    }
}
