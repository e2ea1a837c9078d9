//! Single weights, in memory: what calibration runs on and rounds, and what it hands over to be written.

use super::chain::{self, Chain, Context, Rotations};
use super::error::WeightError;
use super::quantize::{ErrorStats, quantizer, stored_tensors};
use super::rows::Rows;
use super::smooth::ColumnMaxima;
use super::stream::{self, Job};
use super::{maxima_of, rotations_of, shape};
use ir::weights::{StorageFormat, StoredParameter, StoredWeight, TensorSource, WeightExpr};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The bytes of a weight's tensors, empty where its format has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackedWeight {
    /// Of `NAME.weight`.
    pub weight: Vec<u8>,
    /// Of `NAME.group_scale`.
    pub group_scale: Vec<u8>,
    /// Of `NAME.scale`.
    pub scale: Vec<u8>,
    /// How far the values are from what they stand for.
    pub error: ErrorStats,
}

/// Weights that were rounded by calibration, by name.
pub type PackedWeights = BTreeMap<String, PackedWeight>;

/// Evaluates the expressions of a model one by one.
pub struct Evaluator<'a> {
    source: &'a dyn TensorSource,
    rotations: Rotations,
    maxima: ColumnMaxima<'a>,
}

impl<'a> Evaluator<'a> {
    /// For these weights and parameters and no others.
    ///
    /// # Errors
    /// When an expression is impossible, or what it depends on cannot be read.
    pub fn new(
        weights: &'a [StoredWeight],
        parameters: &'a [StoredParameter],
        source: &'a dyn TensorSource,
    ) -> Result<Evaluator<'a>, WeightError> {
        let weights = weights.iter().map(|weight| (weight.name.as_str(), &weight.expr));
        let parameters = parameters.iter().map(|parameter| (parameter.name.as_str(), &parameter.expr));
        let expressions: Vec<(&str, &WeightExpr)> = weights.chain(parameters).collect();
        for (name, expr) in &expressions {
            shape::shape(name, expr)?;
        }
        let rotations = rotations_of(expressions.iter().map(|(_, expr)| *expr), source)?;
        let maxima = maxima_of(expressions.into_iter(), source, &rotations)?;
        Ok(Evaluator { source, rotations, maxima })
    }

    /// The exact values `[rows, cols]` of a weight.
    ///
    /// # Errors
    /// On missing or wrong tensors.
    pub fn values(&self, name: &str, expr: &WeightExpr) -> Result<Vec<f32>, WeightError> {
        let chain = Chain::new(expr, self.context(name))?;
        let rows = Rows::new(&chain, self.source);
        let mut values = vec![0.0; chain.rows * chain.cols];
        values.par_chunks_mut(BLOCK_ROWS * chain.cols).enumerate().for_each(|(block, out)| {
            let start = block * BLOCK_ROWS;
            rows.fill(start..start + out.len() / chain.cols, out);
        });
        Ok(values)
    }

    /// The values of a parameter, in the shape of its tensor.
    ///
    /// # Errors
    /// On missing or wrong tensors.
    pub fn parameter(&self, parameter: &StoredParameter) -> Result<Vec<f32>, WeightError> {
        match shape::shape(&parameter.name, &parameter.expr)?.len() {
            1 => chain::vector(&parameter.expr, self.context(&parameter.name)),
            _ => self.values(&parameter.name, &parameter.expr),
        }
    }

    /// A weight as it is stored when it is rounded to nearest.
    ///
    /// # Errors
    /// On missing or wrong tensors and values that cannot be quantized.
    pub fn rounded_to_nearest(&self, weight: &StoredWeight) -> Result<PackedWeight, WeightError> {
        let StoredWeight { name, expr, format, rounding } = weight;
        let [rows, cols] = shape::matrix(name, expr)?;
        let job = Job {
            name,
            expr,
            format: *format,
            rounding: Some(quantizer(name, *format, rounding.to_nearest())?),
            tensors: stored_tensors(name, *format, rows, cols)?,
        };
        stream::in_memory(&job, &Chain::new(expr, self.context(name))?, self.source)
    }

    fn context<'c>(&'c self, weight: &'c str) -> Context<'c> {
        Context { weight, source: self.source, rotations: &self.rotations, maxima: &self.maxima }
    }
}

/// Rows that one thread evaluates at a time.
const BLOCK_ROWS: usize = 64;

impl PackedWeight {
    pub(super) fn parts(&self) -> [&[u8]; 3] {
        [&self.weight, &self.group_scale, &self.scale]
    }

    /// Whether the bytes are as many as the tensors of such a weight have.
    pub(super) fn fits(&self, format: StorageFormat, rows: usize, cols: usize) -> bool {
        let row = super::quantize::RowBytes::new(format, cols);
        let expected = [row.weight, row.group_scale, row.scale].map(|bytes| bytes * rows);
        self.parts().map(<[u8]>::len) == expected
    }
}
