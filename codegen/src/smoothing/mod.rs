//! What each share of smoothing is expected to cost: which `alpha` an activation should have.
//!
//! Smoothing divides channel `j` of an activation by `s_j = absmax_j^alpha / columns_j^(1 - alpha)` and multiplies
//! column `j` of the weights that read it by `s_j`. Exact, whatever alpha; what changes is what rounding leaves. For
//! an activation `x` and each alpha, the expected energy of the error of the outputs of all linears that read it, a token, is
//!
//! ```text
//! weights      sum_j |column j of W' - W|^2 m_j      W as it is stored in the end: scaled, rotated; W' rounded to nearest
//! activations  |W|^2 E[max_j x_j^2] / (12 * 127^2)   a token is rounded in steps of a 127th of its largest value
//! source       sum_j |column j of W|^2 m_j e_j       e_j the relative error of the row of v_proj that makes channel j
//! ```
//!
//! - `m_j` is the mean square of channel `j` where the linear reads it: `mean_square_j / s_j^2`, and the mean over each
//!   block that a rotation mixes. A Hadamard matrix does that to channels whose products average out, one of kind klt to
//!   all. Rounding errors of columns are taken for independent of each other and of the activation.
//! - `E[max_j x_j^2]` is `tails.rs`'s: of channels as they are from their mean square and largest value, of rotated ones
//!   as for normal values.
//! - Rows that are scaled and not mixed afterwards lose nothing: their scales take it up. So up_proj has no part in it, and v_proj
//!   only where heads are rotated: factors change what a rotation averages. Its error is spread over the head, and attention is taken to keep
//!   it in proportion.
//!
//! What it does not know: zeros are not rounded, and the mean of channels that are never negative is gathered in few channels by a
//! Hadamard matrix. Both change the part of activations by up to a factor of three, for all shares alike. GPTQ leaves less than rounding to nearest, on other columns; the search does not know by how much.
//! Everything is summed in an order that does not depend on the number of threads. One weight is in memory at a time, as
//! floats and rounded: 0.8 GB for down_proj of the 8B model.

mod expression;
mod tails;

use crate::weights::{Evaluator, WeightError, dequantize, matrix};
use expression::{Source, with_share};
use ir::statistics::{InputStatistics, Statistics, absmax_tensor};
use ir::weights::{StorageFormat, StoredParameter, StoredWeight, TensorSource, WeightExpr};
use rayon::prelude::*;
use std::collections::BTreeMap;
use tails::Channels;

/// The largest integer of an activation of 8 bits.
const ACTIVATION_MAX: f64 = 127.0;
/// Rows whose energies one thread sums.
const BLOCK_ROWS: usize = 256;

/// An activation that is smoothed, and what that is expected to cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Smoothed {
    /// The first linear that reads it.
    pub name: String,
    /// Of each share that was asked for, in order.
    pub costs: Vec<ShareCost>,
}

/// What is expected of a share. Energies are those of a token, summed over outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareCost {
    /// How much of the activation's range moves into the weights.
    pub alpha: f64,
    /// Errors of the weights.
    pub weights: f64,
    /// Errors of the activation.
    pub activations: f64,
    /// Errors of the weight that makes the activation.
    pub source: f64,
    /// The outputs themselves, as the mean squares of rotated channels have them: about the same for every share.
    pub outputs: f64,
}

impl ShareCost {
    /// All errors.
    pub fn errors(&self) -> f64 {
        self.weights + self.activations + self.source
    }
}

/// Of every smoothed activation of a model whose expressions have any shares: what each of `shares` would cost.
/// `progress` is called with the activations done and the activations there are.
///
/// # Errors
/// On missing or wrong tensors and statistics.
pub fn share_costs(
    (weights, parameters): (&[StoredWeight], &[StoredParameter]),
    source: &dyn TensorSource,
    statistics: &Statistics,
    shares: &[f64],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Smoothed>, WeightError> {
    let evaluator = Evaluator::new(weights, parameters, source)?;
    let sites = sites(weights);
    let mut found = Vec::with_capacity(sites.len());
    for (index, site) in sites.iter().enumerate() {
        progress(index, sites.len());
        let measured = site.measured(statistics)?;
        let cost = |share: &f64| site.cost(&evaluator, &measured, *share);
        let costs = shares.iter().map(cost).collect::<Result<Vec<_>, _>>()?;
        found.push(Smoothed { name: site.readers[0].weight.name.clone(), costs });
    }
    progress(sites.len(), sites.len());
    Ok(found)
}

/// The share that loses least; of those that lose the same, the one nearest to a half.
pub fn best(costs: &[ShareCost]) -> Option<ShareCost> {
    let from_half = |cost: &ShareCost| (cost.alpha - 0.5).abs();
    let order =
        |a: &ShareCost, b: &ShareCost| a.errors().total_cmp(&b.errors()).then(from_half(a).total_cmp(&from_half(b)));
    costs.iter().copied().min_by(order)
}

/// An activation that is smoothed.
struct Site<'a> {
    /// The tensor of its largest values.
    absmax: &'a str,
    readers: Vec<Reader<'a>>,
    /// What makes it, where its rows are mixed after they were scaled.
    source: Option<(&'a StoredWeight, Source<'a>)>,
}

/// A linear that reads a smoothed activation.
struct Reader<'a> {
    weight: &'a StoredWeight,
    /// The factors of its columns.
    factors: &'a WeightExpr,
    /// Channels that a rotation mixes afterwards, 1 for none.
    mixed: usize,
}

/// What calibration saw of an activation.
struct Measured<'a> {
    input: &'a InputStatistics,
    tokens: f64,
}

/// In the order of their first readers.
fn sites(weights: &[StoredWeight]) -> Vec<Site<'_>> {
    let mut sites: Vec<Site<'_>> = Vec::new();
    let mut by_tensor: BTreeMap<&str, usize> = BTreeMap::new();
    for weight in weights {
        let Some((factors, mixed)) = expression::read_factors(&weight.expr) else { continue };
        let absmax = factors.tensor_name();
        let index = *by_tensor.entry(absmax).or_insert(sites.len());
        if index == sites.len() {
            sites.push(Site { absmax, readers: Vec::new(), source: None });
        }
        sites[index].readers.push(Reader { weight, factors, mixed });
    }
    for weight in weights {
        if let Some(source) = expression::mixed_source(&weight.expr)
            && let Some(index) = by_tensor.get(source.absmax)
        {
            sites[*index].source = Some((weight, source));
        }
    }
    sites
}

impl Site<'_> {
    fn measured<'s>(&self, statistics: &'s Statistics) -> Result<Measured<'s>, WeightError> {
        let name = &self.readers[0].weight.name;
        let [_, channels] = matrix(name, &self.readers[0].weight.expr)?;
        let tensor = statistics.inputs.keys().find(|tensor| absmax_tensor(tensor) == self.absmax);
        let input = statistics.input(tensor.map_or(name, |tensor| tensor), channels);
        let input = input.map_err(|error| WeightError::invalid(name, format!("cannot be smoothed: {error}")))?;
        Ok(Measured { input, tokens: (statistics.samples * statistics.length) as f64 })
    }

    fn cost(&self, evaluator: &Evaluator<'_>, measured: &Measured<'_>, alpha: f64) -> Result<ShareCost, WeightError> {
        let mut cost = ShareCost { alpha, weights: 0.0, activations: 0.0, source: 0.0, outputs: 0.0 };
        let lost = match &self.source {
            Some((weight, source)) => Some((self.rounded(evaluator, weight, alpha)?.relative_rows(), source)),
            None => None,
        };
        for reader in &self.readers {
            let squares = measured.squares(&self.factors(evaluator, reader, alpha)?);
            let read = blocks(&squares, reader.mixed);
            let columns = self.rounded(evaluator, reader.weight, alpha)?.columns();
            cost.weights += dot(&columns.errors, &read);
            cost.outputs += dot(&columns.values, &read);
            if !matches!(reader.weight.format, StorageFormat::Float { .. }) {
                let step = measured.largest(&squares, &read, reader.mixed) / (ACTIVATION_MAX * ACTIVATION_MAX);
                cost.activations += columns.values.iter().sum::<f64>() * step / 12.0;
            }
            if let Some((rows, source)) = &lost {
                let outputs = columns.values.iter().zip(&read).enumerate();
                cost.source += outputs.map(|(column, (w, m))| w * m * rows[source.row(column)]).sum::<f64>();
            }
        }
        Ok(cost)
    }

    fn factors(&self, evaluator: &Evaluator<'_>, reader: &Reader<'_>, alpha: f64) -> Result<Vec<f32>, WeightError> {
        let expr = with_share(reader.factors, self.absmax, alpha);
        evaluator.parameter(&StoredParameter { name: reader.weight.name.clone(), expr })
    }

    fn rounded(
        &self,
        evaluator: &Evaluator<'_>,
        weight: &StoredWeight,
        alpha: f64,
    ) -> Result<RoundedWeight, WeightError> {
        let weight = StoredWeight { expr: with_share(&weight.expr, self.absmax, alpha), ..weight.clone() };
        let StoredWeight { name, expr, format, .. } = &weight;
        let [rows, cols] = matrix(name, expr)?;
        let exact = evaluator.values(name, expr)?;
        if matches!(format, StorageFormat::Float { .. }) {
            return Ok(RoundedWeight { cols, rounded: exact.clone(), exact });
        }
        let packed = evaluator.rounded_to_nearest(&weight)?;
        let rounded = dequantize(*format, rows, cols, &packed.weight, &packed.group_scale, &packed.scale);
        Ok(RoundedWeight { cols, exact, rounded: rounded.unwrap_or_else(|| panic!("bug: {name} has another format")) })
    }
}

impl Measured<'_> {
    /// The mean square of each channel, divided by its factor.
    fn squares(&self, factors: &[f32]) -> Vec<f64> {
        let scaled = |(square, factor): (&f32, &f32)| f64::from(*square) / f64::from(*factor).powi(2);
        self.input.mean_square.iter().zip(factors).map(scaled).collect()
    }

    /// The largest square of a token in the mean.
    fn largest(&self, squares: &[f64], mixed_squares: &[f64], mixed: usize) -> f64 {
        if mixed > 1 {
            return Channels::normal(mixed_squares, mixed, self.tokens).largest();
        }
        let crest = |(absmax, square): (&f32, &f32)| f64::from(*absmax).powi(2) / f64::from(*square);
        let crests = self.input.absmax.iter().zip(&self.input.mean_square).map(crest);
        Channels::measured(squares, crests, self.tokens).largest()
    }
}

/// The mean of each block, in place of its values.
fn blocks(values: &[f64], size: usize) -> Vec<f64> {
    values.chunks(size).flat_map(|block| vec![block.iter().sum::<f64>() / block.len() as f64; block.len()]).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A weight and what rounding makes of it.
struct RoundedWeight {
    cols: usize,
    exact: Vec<f32>,
    rounded: Vec<f32>,
}

/// Energies of columns.
struct Columns {
    values: Vec<f64>,
    errors: Vec<f64>,
}

impl RoundedWeight {
    fn columns(&self) -> Columns {
        let block = BLOCK_ROWS * self.cols;
        let parts: Vec<Columns> = self
            .exact
            .par_chunks(block)
            .zip(self.rounded.par_chunks(block))
            .map(|(w, q)| self.energies(w, q))
            .collect();
        let none = Columns { values: vec![0.0; self.cols], errors: vec![0.0; self.cols] };
        parts.iter().fold(none, |mut sum, part| {
            add(&mut sum.values, &part.values);
            add(&mut sum.errors, &part.errors);
            sum
        })
    }

    fn energies(&self, exact: &[f32], rounded: &[f32]) -> Columns {
        let mut sums = Columns { values: vec![0.0; self.cols], errors: vec![0.0; self.cols] };
        for (exact, rounded) in exact.chunks_exact(self.cols).zip(rounded.chunks_exact(self.cols)) {
            for (column, (w, q)) in exact.iter().zip(rounded).enumerate() {
                sums.values[column] += f64::from(*w).powi(2);
                sums.errors[column] += (f64::from(*q) - f64::from(*w)).powi(2);
            }
        }
        sums
    }

    /// Energy of the error of each row relative to that of the row.
    fn relative_rows(&self) -> Vec<f64> {
        let rows = self.exact.chunks_exact(self.cols).zip(self.rounded.chunks_exact(self.cols));
        let relative = |(exact, rounded): (&[f32], &[f32])| {
            let energy: f64 = exact.iter().map(|w| f64::from(*w).powi(2)).sum();
            let error: f64 = exact.iter().zip(rounded).map(|(w, q)| (f64::from(*q) - f64::from(*w)).powi(2)).sum();
            if energy > 0.0 { error / energy } else { 0.0 }
        };
        rows.map(relative).collect()
    }
}

fn add(sums: &mut [f64], values: &[f64]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}
