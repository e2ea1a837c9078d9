//! Factors that level the channels of an activation: `absmax^alpha / max |column|^(1 - alpha)`.

use super::chain::{self, Chain, Context};
use super::error::WeightError;
use super::rows::Rows;
use ir::weights::WeightExpr;
use rayon::prelude::*;

/// Rows of a weight that are looked at together.
const ROWS: usize = 16;

/// The largest absolute value in each column of each weight that factors depend on. A list, for weights have no order
/// to sort them by, and there are a few hundred at most.
#[derive(Default)]
pub(super) struct ColumnMaxima<'a>(Vec<(&'a WeightExpr, Vec<f32>)>);

impl<'a> ColumnMaxima<'a> {
    pub(super) fn find(&self, weight: &WeightExpr) -> Option<&[f32]> {
        self.0.iter().find(|(known, _)| *known == weight).map(|(_, maxima)| maxima.as_slice())
    }

    pub(super) fn insert(&mut self, weight: &'a WeightExpr, maxima: Vec<f32>) {
        self.0.push((weight, maxima));
    }
}

/// Reads a weight, a few rows at a time.
pub(super) fn column_maxima(weight: &WeightExpr, context: Context<'_>) -> Result<Vec<f32>, WeightError> {
    let chain = Chain::new(weight, context)?;
    let rows = Rows::new(&chain, context.source);
    let starts: Vec<usize> = (0..chain.rows).step_by(ROWS).collect();
    let none = || vec![0.0_f32; chain.cols];
    let of_block = |mut found: Vec<f32>, start: usize| {
        let range = start..chain.rows.min(start + ROWS);
        let mut values = vec![0.0; range.len() * chain.cols];
        rows.fill(range.clone(), &mut values);
        rows.release(range);
        values.chunks_exact(chain.cols).for_each(|row| raise(&mut found, row));
        found
    };
    let joined = |mut a: Vec<f32>, b: Vec<f32>| {
        raise(&mut a, &b);
        a
    };
    Ok(starts.into_par_iter().fold(none, of_block).reduce(none, joined))
}

fn raise(maxima: &mut [f32], values: &[f32]) {
    maxima.iter_mut().zip(values).for_each(|(max, value)| *max = max.max(value.abs()));
}

/// Evaluates [`WeightExpr::ColumnAbsmax`].
pub(super) fn column_absmax(
    base: &WeightExpr,
    other: Option<&WeightExpr>,
    context: Context<'_>,
) -> Result<Vec<f32>, WeightError> {
    let unread = || WeightError::invalid(context.weight, "depends on a weight that depends on factors itself");
    let mut maxima = context.maxima.find(base).ok_or_else(unread)?.to_vec();
    if let Some(other) = other {
        raise(&mut maxima, &chain::vector(other, context)?);
    }
    Ok(maxima)
}

/// What [`WeightExpr::SmoothFactors`] says beside its operands.
#[derive(Clone, Copy)]
pub(super) struct Smoothing {
    pub alpha: f64,
    pub power: f64,
    pub share: usize,
    pub block: usize,
    pub once: bool,
}

impl Smoothing {
    /// The factors of channels of these largest activations and weights.
    pub(super) fn factors(self, absmax: &[f32], columns: &[f32]) -> Vec<f32> {
        let Smoothing { alpha, power, share, block, once } = self;
        let factors = level(&shared(absmax, share, block), &shared(columns, share, block), alpha, power);
        if once { factors } else { repeated(&factors, share, block) }
    }
}

/// The largest value of each channel of a run of `share` blocks.
fn shared(values: &[f32], share: usize, block: usize) -> Vec<f32> {
    let run = |run: &[f32]| {
        let (first, rest) = run.split_at(block);
        let mut maxima = first.to_vec();
        rest.chunks_exact(block).for_each(|block| raise(&mut maxima, block));
        maxima
    };
    values.chunks_exact(share * block).flat_map(run).collect()
}

/// The inverse of [`shared`], as far as there is one.
fn repeated(values: &[f32], share: usize, block: usize) -> Vec<f32> {
    values.chunks_exact(block).flat_map(|block| block.repeat(share)).collect()
}

/// The factors of channels, with a geometric mean of 1, to the power. A channel that is always 0, or whose weights
/// are, says nothing about its range and keeps 1.
fn level(absmax: &[f32], maxima: &[f32], alpha: f64, power: f64) -> Vec<f32> {
    let logarithm = |(activation, weight): (&f32, &f32)| {
        let is_alive = |value: f32| value > 0.0 && value.is_finite();
        let (a, w) = (f64::from(*activation), f64::from(*weight));
        (is_alive(*activation) && is_alive(*weight)).then(|| alpha * a.ln() - (1.0 - alpha) * w.ln())
    };
    let logarithms: Vec<Option<f64>> = absmax.iter().zip(maxima).map(logarithm).collect();
    let alive: Vec<f64> = logarithms.iter().copied().flatten().collect();
    let mean = alive.iter().sum::<f64>() / alive.len().max(1) as f64;
    logarithms.into_iter().map(|value| value.map_or(1.0, |value| ((value - mean) * power).exp() as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_a_channel_by_its_range_and_that_of_its_column() {
        let factors = level(&[16.0, 4.0, 1.0], &[1.0, 4.0, 1.0], 0.5, 1.0);
        assert_eq!(factors.iter().map(|f| (f * 1e5).round() as i64).collect::<Vec<_>>(), [251_984, 62_996, 62_996]);
        let squared: Vec<f32> = level(&[16.0, 4.0, 1.0], &[1.0, 4.0, 1.0], 0.5, 0.5).iter().map(|f| f * f).collect();
        assert!(factors.iter().zip(squared).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn leaves_channels_alone_that_are_always_zero() {
        let factors = level(&[0.0, 8.0, 2.0, 5.0], &[3.0, 2.0, 2.0, 0.0], 0.5, 1.0);
        assert_eq!((factors[0], factors[3]), (1.0, 1.0));
        assert!((factors[1] * factors[2] - 1.0).abs() < 1e-6, "the geometric mean of the others is not 1");
        assert_eq!(level(&[0.0; 3], &[0.0; 3], 0.5, 1.0), [1.0; 3]);
        assert_eq!(level(&[f32::INFINITY, 1.0], &[1.0, 1.0], 0.5, 1.0), [1.0; 2]);
    }

    #[test]
    fn shares_the_largest_of_a_run_and_repeats_it() {
        let values = [1.0, 5.0, 3.0, 2.0, /* next run */ 7.0, 1.0, 0.0, 9.0];
        assert_eq!(shared(&values, 2, 2), [3.0, 5.0, 7.0, 9.0]);
        assert_eq!(repeated(&[3.0, 5.0, 7.0, 9.0], 2, 2), [3.0, 5.0, 3.0, 5.0, 7.0, 9.0, 7.0, 9.0]);
        assert_eq!(shared(&values, 1, 1), values);
    }
}
