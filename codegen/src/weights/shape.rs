//! Shapes of weight expressions, checked.

use super::error::WeightError;
use ir::weights::{Rotation, Side, WeightExpr};

/// The shape without the dimensions of 1 in its middle: `[channels, 1, kernel]` counts as `[channels, kernel]`.
pub(super) fn flat_shape(shape: &[usize]) -> Vec<usize> {
    match shape {
        [first, middle @ .., last] if middle.iter().all(|&dim| dim == 1) => vec![*first, *last],
        _ => shape.to_vec(),
    }
}

/// The shape of an expression: one or two dimensions, none of them 0.
///
/// # Errors
/// When parts of the expression do not fit together; the message calls it `weight`.
pub fn shape(weight: &str, expr: &WeightExpr) -> Result<Vec<usize>, WeightError> {
    let bad = |problem: String| Err(WeightError::invalid(weight, problem));
    match expr {
        WeightExpr::Tensor { name, shape, .. } => {
            let flat = flat_shape(shape);
            let fits = flat.iter().try_fold(4usize, |product, &dim| product.checked_mul(dim)).is_some();
            if !(1..=2).contains(&flat.len()) || flat.contains(&0) || !fits {
                return bad(format!("is made of `{name}` of shape {shape:?}, expected a vector or a matrix"));
            }
            Ok(flat)
        }
        WeightExpr::SliceRows { base, start, count } => {
            let mut base = shape(weight, base)?;
            if *count == 0 || start.checked_add(*count).is_none_or(|end| end > base[0]) {
                return bad(format!("takes {count} rows from row {start} of {}", base[0]));
            }
            base[0] = *count;
            Ok(base)
        }
        WeightExpr::ScaleColumns { base, by, .. } => {
            let base = shape(weight, base)?;
            check_vector(weight, by, base[base.len() - 1], "columns")?;
            Ok(base)
        }
        WeightExpr::ScaleRows { base, by, .. } => {
            let base = shape(weight, base)?;
            check_vector(weight, by, base[0], "rows")?;
            Ok(base)
        }
        WeightExpr::ColumnAbsmax { base, other } => {
            let [_, columns] = matrix(weight, base)?;
            if let Some(other) = other {
                check_vector(weight, other, columns, "columns")?;
            }
            Ok(vec![columns])
        }
        WeightExpr::SmoothFactors { absmax, columns, share, block, once, .. } => {
            smooth_factors(weight, absmax, columns, (*share, *block, *once))
        }
        WeightExpr::Rotate { base, side, rotation, .. } => {
            let base = shape(weight, base)?;
            check_rotation(weight, &base, *side, rotation)?;
            Ok(base)
        }
    }
}

/// The shape of an expression that must be a matrix.
pub(crate) fn matrix(weight: &str, expr: &WeightExpr) -> Result<[usize; 2], WeightError> {
    let found = shape(weight, expr)?;
    <[usize; 2]>::try_from(found)
        .map_err(|found| WeightError::invalid(weight, format!("has shape {found:?}, expected a matrix")))
}

fn check_vector(weight: &str, by: &WeightExpr, expected: usize, what: &str) -> Result<(), WeightError> {
    let found = shape(weight, by)?;
    if found == [expected] {
        return Ok(());
    }
    Err(WeightError::invalid(weight, format!("scales {expected} {what} by factors of shape {found:?}")))
}

fn smooth_factors(
    weight: &str,
    absmax: &WeightExpr,
    columns: &WeightExpr,
    (share, block, once): (usize, usize, bool),
) -> Result<Vec<usize>, WeightError> {
    let channels = shape(weight, absmax)?[0];
    check_vector(weight, absmax, channels, "channels")?;
    check_vector(weight, columns, channels, "channels")?;
    let run = share.checked_mul(block).filter(|run| *run > 0 && channels.is_multiple_of(*run));
    if run.is_none() {
        let problem = format!("is scaled by factors in runs of {share} times {block} of {channels} channels");
        return Err(WeightError::invalid(weight, problem));
    }
    Ok(vec![if once { channels / share } else { channels }])
}

fn check_rotation(weight: &str, base: &[usize], side: Side, rotation: &Rotation) -> Result<(), WeightError> {
    let dim = match side {
        Side::In => base[base.len() - 1],
        Side::Out => base[0],
    };
    let Rotation { name, size, .. } = rotation;
    if *size > 0 && dim.is_multiple_of(*size) {
        return Ok(());
    }
    Err(WeightError::invalid(weight, format!("has a dimension of {dim}, rotation `{name}` has blocks of {size}")))
}
