//! A weight expression, made ready to be evaluated.
//!
//! Operations on rows multiply the weight from the left, operations on columns from the right, so each kind may go
//! before the other: a [`Chain`] does everything on rows first, then everything on columns.

use super::convert;
use super::error::WeightError;
use super::rotation::Orthogonal;
use super::shape::{self, flat_shape};
use super::smooth::{self, ColumnMaxima, Smoothing};
use ir::weights::{FloatType, Rotation, Side, TensorSource, WeightExpr};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The matrices of all rotations of a model.
pub(super) type Rotations = BTreeMap<Rotation, Arc<Orthogonal>>;

/// A matrix-valued expression.
pub(super) struct Chain<'a> {
    pub tensor: &'a str,
    /// All of its bytes.
    pub bytes: &'a [u8],
    pub dtype: FloatType,
    pub rows: usize,
    pub cols: usize,
    /// The rows of the tensor that are read.
    pub read: Range<usize>,
    pub left: Vec<Left>,
    pub right: Vec<Right>,
}

/// An operation on rows.
pub(super) enum Left {
    Slice(Range<usize>),
    Scale(Vec<f32>),
    Rotate { by: Arc<Orthogonal>, inverse: bool },
}

/// An operation on columns.
pub(super) enum Right {
    Scale(Vec<f32>),
    Rotate { by: Arc<Orthogonal>, inverse: bool },
}

/// What every step needs.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// For messages.
    pub weight: &'a str,
    pub source: &'a dyn TensorSource,
    pub rotations: &'a Rotations,
    pub maxima: &'a ColumnMaxima<'a>,
}

impl<'a> Chain<'a> {
    /// Reads the vectors that the expression scales by; the weight itself stays unread.
    pub(super) fn new(expr: &'a WeightExpr, context: Context<'a>) -> Result<Self, WeightError> {
        let [rows, cols] = shape::matrix(context.weight, expr)?;
        let mut chain = Chain {
            tensor: "",
            bytes: &[],
            dtype: FloatType::F32,
            rows,
            cols,
            read: 0..0,
            left: vec![],
            right: vec![],
        };
        chain.push(expr, context)?;
        chain.absorb_slices();
        Ok(chain)
    }

    fn push(&mut self, expr: &'a WeightExpr, context: Context<'a>) -> Result<(), WeightError> {
        match expr {
            WeightExpr::Tensor { name, shape, dtype } => {
                let [rows, _] = flat_shape(shape)[..] else {
                    return Err(WeightError::invalid(
                        context.weight,
                        format!("is made of `{name}`, which is no matrix"),
                    ));
                };
                self.bytes = tensor_bytes(context.source, context.weight, name, shape, *dtype)?;
                (self.tensor, self.dtype, self.read) = (name, *dtype, 0..rows);
            }
            WeightExpr::SliceRows { base, start, count } => {
                self.push(base, context)?;
                self.left.push(Left::Slice(*start..*start + *count));
            }
            WeightExpr::ScaleRows { base, by, inverse } => {
                self.push(base, context)?;
                self.left.push(Left::Scale(factors(by, *inverse, context)?));
            }
            WeightExpr::ScaleColumns { base, by, inverse } => {
                self.push(base, context)?;
                self.right.push(Right::Scale(factors(by, *inverse, context)?));
            }
            WeightExpr::ColumnAbsmax { .. } | WeightExpr::SmoothFactors { .. } => {
                return Err(WeightError::invalid(context.weight, "is a vector, expected a matrix"));
            }
            WeightExpr::Rotate { base, side, rotation, transpose } => {
                self.push(base, context)?;
                let by = Arc::clone(&context.rotations[rotation]);
                match side {
                    Side::In => self.right.push(Right::Rotate { by, inverse: *transpose }),
                    Side::Out => self.left.push(Left::Rotate { by, inverse: *transpose }),
                }
            }
        }
        Ok(())
    }

    /// Without rotations of rows, slices only say which rows to read and which factors to keep.
    fn absorb_slices(&mut self) {
        if !self.mixes_rows() {
            let mut product: Option<Vec<f32>> = None;
            for op in std::mem::take(&mut self.left) {
                match (op, &mut product) {
                    (Left::Slice(rows), _) => {
                        let start = self.read.start + rows.start;
                        self.read = start..start + rows.len();
                        product = product.map(|factors| factors[rows].to_vec());
                    }
                    (Left::Scale(factors), None) => product = Some(factors),
                    (Left::Scale(factors), Some(product)) => multiply(product, &factors),
                    (Left::Rotate { .. }, _) => unreachable!("rows are not mixed"),
                }
            }
            self.left.extend(product.map(Left::Scale));
        } else if let Some(Left::Slice(rows)) = self.left.first() {
            self.read = rows.clone();
            self.left.remove(0);
        }
    }

    /// Whether a row of the result depends on other rows.
    pub(super) fn mixes_rows(&self) -> bool {
        self.left.iter().any(|op| matches!(op, Left::Rotate { .. }))
    }

    /// Bytes of a row of the tensor.
    pub(super) fn row_bytes(&self) -> usize {
        self.cols * self.dtype.bytes()
    }

    /// Applies the column operations to whole rows.
    pub(super) fn finish_rows(&self, data: &mut [f32]) {
        for op in &self.right {
            match op {
                Right::Scale(factors) => data.chunks_exact_mut(self.cols).for_each(|row| multiply(row, factors)),
                Right::Rotate { by, inverse } => by.rotate_rows(data, *inverse),
            }
        }
    }
}

fn multiply(values: &mut [f32], factors: &[f32]) {
    values.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
}

fn factors(by: &WeightExpr, inverse: bool, context: Context<'_>) -> Result<Vec<f32>, WeightError> {
    let mut factors = vector(by, context)?;
    if inverse {
        factors.iter_mut().for_each(|factor| *factor = 1.0 / *factor);
    }
    Ok(factors)
}

/// Evaluates an expression whose value is a vector. On a vector, rows and columns are the same.
pub(super) fn vector(expr: &WeightExpr, context: Context<'_>) -> Result<Vec<f32>, WeightError> {
    Ok(match expr {
        WeightExpr::Tensor { name, shape, dtype } => {
            let bytes = tensor_bytes(context.source, context.weight, name, shape, *dtype)?;
            let mut values = vec![0.0; bytes.len() / dtype.bytes()];
            convert::to_f32(*dtype, bytes, &mut values);
            values
        }
        WeightExpr::SliceRows { base, start, count } => vector(base, context)?[*start..][..*count].to_vec(),
        WeightExpr::ScaleColumns { base, by, inverse } | WeightExpr::ScaleRows { base, by, inverse } => {
            let mut values = vector(base, context)?;
            multiply(&mut values, &factors(by, *inverse, context)?);
            values
        }
        WeightExpr::ColumnAbsmax { base, other } => smooth::column_absmax(base, other.as_deref(), context)?,
        WeightExpr::SmoothFactors { absmax, columns, alpha, power, share, block, once } => {
            let (alpha, power, share, block, once) = (*alpha, *power, *share, *block, *once);
            let smoothing = Smoothing { alpha, power, share, block, once };
            smoothing.factors(&vector(absmax, context)?, &vector(columns, context)?)
        }
        WeightExpr::Rotate { base, rotation, transpose, .. } => {
            let mut values = vector(base, context)?;
            context.rotations[rotation].rotate_rows(&mut values, *transpose);
            values
        }
    })
}

/// The bytes of a tensor that must have this shape and type.
pub(super) fn tensor_bytes<'s>(
    source: &'s dyn TensorSource,
    weight: &str,
    tensor: &str,
    shape: &[usize],
    dtype: FloatType,
) -> Result<&'s [u8], WeightError> {
    let (found_shape, found_dtype) = source
        .describe(tensor)
        .ok_or_else(|| WeightError::MissingTensor { weight: weight.into(), tensor: tensor.into() })?;
    let mismatch = |found: String| WeightError::TensorMismatch {
        tensor: tensor.into(),
        expected: format!("{dtype:?} {shape:?}"),
        found,
    };
    if flat_shape(&found_shape) != flat_shape(shape) || found_dtype != dtype {
        return Err(mismatch(format!("{found_dtype:?} {found_shape:?}")));
    }
    let bytes = source.bytes(tensor).map_err(|source| WeightError::Source { tensor: tensor.into(), source })?;
    if bytes.len() != shape.iter().product::<usize>() * dtype.bytes() {
        return Err(mismatch(format!("{found_dtype:?} {found_shape:?} in {} bytes", bytes.len())));
    }
    Ok(bytes)
}
