//! Rows of f32 to rows of bytes, in the formats of [`runtime::plan::WeightFormat`].

mod float;
mod lanes;
mod pack;
mod w4;
mod w8;

pub use pack::{pack_nibbles, unpack_nibbles};
pub(crate) use w4::{Q_MAX, S_MAX};

use super::error::WeightError;
use ir::weights::{FloatType, Rounding, StorageFormat};
use runtime::artifact::TensorSpec;
use runtime::plan::{DType, K_ALIGN};

/// Bytes that one row takes in each tensor of a format; 0 where the format has no such tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowBytes {
    /// In `NAME.weight`.
    pub weight: usize,
    /// In `NAME.group_scale`.
    pub group_scale: usize,
    /// In `NAME.scale`.
    pub scale: usize,
}

impl RowBytes {
    /// For rows of `k` elements.
    pub fn new(format: StorageFormat, k: usize) -> Self {
        let kp = k.next_multiple_of(K_ALIGN);
        match format {
            StorageFormat::Float { dtype } => RowBytes { weight: k * dtype.bytes(), group_scale: 0, scale: 0 },
            StorageFormat::W8 => RowBytes { weight: kp, group_scale: 0, scale: 4 },
            StorageFormat::W4TwoLevel { group_size } => {
                RowBytes { weight: kp / 2, group_scale: k.div_ceil(group_size), scale: 4 }
            }
            StorageFormat::W4Group { group_size } => {
                RowBytes { weight: kp / 2, group_scale: 2 * k.div_ceil(group_size), scale: 0 }
            }
        }
    }
}

/// Whole rows to fill.
#[derive(Debug)]
pub struct PackedRows<'a> {
    /// Of `NAME.weight`.
    pub weight: &'a mut [u8],
    /// Of `NAME.group_scale`; empty where the format has none.
    pub group_scale: &'a mut [u8],
    /// Of `NAME.scale`; empty where the format has none.
    pub scale: &'a mut [u8],
}

/// How far stored values are from what they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorStats {
    /// Sum of the squared differences.
    pub squared_error: f64,
    /// Sum of the squared values.
    pub squared_weight: f64,
    /// The largest difference.
    pub max_error: f32,
}

impl ErrorStats {
    /// `sqrt(sum of squared differences / sum of squared values)`; 0 for a weight of zeros.
    pub fn relative(&self) -> f64 {
        if self.squared_weight == 0.0 { 0.0 } else { (self.squared_error / self.squared_weight).sqrt() }
    }

    pub(crate) fn add(&mut self, other: ErrorStats) {
        self.squared_error += other.squared_error;
        self.squared_weight += other.squared_weight;
        self.max_error = self.max_error.max(other.max_error);
    }
}

/// A row holds NaN, infinity, or values whose squares are infinite. Rows count from the first of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// The first such row.
    pub row: usize,
}

/// A rounding to nearest of one weight, row by row. GPTQ, which needs to see the weight's inputs, is the business of
/// [`crate::calibrate`].
pub trait QuantizeRows: Sync {
    /// Rounds whole rows of `k` values, and says how far the result is from the values.
    ///
    /// # Errors
    /// On values that cannot be rounded.
    fn quantize(&self, values: &mut [f32], k: usize, out: PackedRows<'_>) -> Result<ErrorStats, NotFinite>;
}

/// The rounding method for a weight.
///
/// # Errors
/// When the format is impossible or the method needs statistics.
pub fn quantizer(
    weight: &str,
    format: StorageFormat,
    rounding: Rounding,
) -> Result<Box<dyn QuantizeRows>, WeightError> {
    if let StorageFormat::Float { dtype } = format {
        return Ok(Box::new(float::Convert { dtype }));
    }
    if rounding == Rounding::Gptq {
        return Err(WeightError::NeedsCalibration { weight: weight.into(), rounding: "GPTQ" });
    }
    let search = rounding == Rounding::Rtn;
    Ok(match format {
        StorageFormat::Float { dtype } => Box::new(float::Convert { dtype }),
        StorageFormat::W8 => Box::new(w8::RoundToNearest),
        StorageFormat::W4TwoLevel { group_size } => {
            Box::new(w4::TwoLevel { group_size: checked_group(weight, group_size)?, search })
        }
        StorageFormat::W4Group { group_size } => {
            Box::new(w4::Group { group_size: checked_group(weight, group_size)?, search })
        }
    })
}

fn checked_group(weight: &str, group_size: usize) -> Result<usize, WeightError> {
    if group_size > 0 && group_size.is_multiple_of(K_ALIGN) {
        return Ok(group_size);
    }
    Err(WeightError::invalid(weight, format!("has groups of {group_size}, expected a multiple of {K_ALIGN}")))
}

/// The tensors that a weight `[n, k]` is stored as.
///
/// # Errors
/// When the format is impossible.
pub fn stored_tensors(name: &str, format: StorageFormat, n: usize, k: usize) -> Result<Vec<TensorSpec>, WeightError> {
    let kp =
        k.checked_next_multiple_of(K_ALIGN).ok_or_else(|| WeightError::invalid(name, format!("has {k} columns")))?;
    let spec = |suffix: &str, dtype, shape: &[usize]| TensorSpec {
        name: format!("{name}.{suffix}"),
        dtype,
        shape: shape.to_vec(),
    };
    Ok(match format {
        StorageFormat::Float { dtype } => vec![spec("weight", storage_type(dtype), &[n, k])],
        StorageFormat::W8 => vec![spec("weight", DType::I8, &[n, kp]), spec("scale", DType::F32, &[n])],
        StorageFormat::W4TwoLevel { group_size } => {
            let groups = k.div_ceil(checked_group(name, group_size)?);
            vec![
                spec("weight", DType::U8, &[n, kp / 2]),
                spec("group_scale", DType::U8, &[n, groups]),
                spec("scale", DType::F32, &[n]),
            ]
        }
        StorageFormat::W4Group { group_size } => {
            let groups = k.div_ceil(checked_group(name, group_size)?);
            vec![spec("weight", DType::U8, &[n, kp / 2]), spec("group_scale", DType::F16, &[n, groups])]
        }
    })
}

pub(super) fn storage_type(dtype: FloatType) -> DType {
    match dtype {
        FloatType::F32 => DType::F32,
        FloatType::F16 => DType::F16,
        FloatType::Bf16 => DType::Bf16,
    }
}
