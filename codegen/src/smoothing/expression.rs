//! Factors of smoothing inside weight expressions.

use ir::weights::{Side, WeightExpr};

/// The factors that the columns of a weight are multiplied by, and how many channels a rotation mixes afterwards.
pub(super) fn read_factors(mut expr: &WeightExpr) -> Option<(&WeightExpr, usize)> {
    let mut mixed = 1;
    loop {
        expr = match expr {
            WeightExpr::ScaleColumns { by, inverse: false, .. } if is_factors(by) => return Some((by, mixed)),
            WeightExpr::Rotate { base, side: Side::In, rotation, .. } => {
                mixed = mixed.max(rotation.size);
                base
            }
            WeightExpr::Rotate { base, .. }
            | WeightExpr::SliceRows { base, .. }
            | WeightExpr::ScaleColumns { base, .. }
            | WeightExpr::ScaleRows { base, .. } => base,
            _ => return None,
        }
    }
}

/// What makes a smoothed activation, its rows mixed after they were scaled.
pub(super) struct Source<'a> {
    /// The tensor of the activation's largest values.
    pub absmax: &'a str,
    share: usize,
    block: usize,
}

impl Source<'_> {
    /// The row that makes a channel.
    pub(super) fn row(&self, channel: usize) -> usize {
        channel / (self.share * self.block) * self.block + channel % self.block
    }
}

/// The factors that the rows of a weight are divided by, where a rotation mixes rows afterwards.
pub(super) fn mixed_source(mut expr: &WeightExpr) -> Option<Source<'_>> {
    let mut is_mixed = false;
    loop {
        expr = match expr {
            WeightExpr::ScaleRows { base, by, inverse: true } => match (&**by, is_mixed) {
                (WeightExpr::SmoothFactors { absmax, share, block, .. }, true) => {
                    return Some(Source { absmax: absmax.tensor_name(), share: *share, block: *block });
                }
                _ => base,
            },
            WeightExpr::Rotate { base, side, .. } => {
                is_mixed |= *side == Side::Out;
                base
            }
            WeightExpr::SliceRows { base, .. }
            | WeightExpr::ScaleColumns { base, .. }
            | WeightExpr::ScaleRows { base, .. } => base,
            _ => return None,
        }
    }
}

fn is_factors(expr: &WeightExpr) -> bool {
    matches!(expr, WeightExpr::SmoothFactors { .. })
}

/// The same expression, with this alpha in all factors of the activation `absmax` and no others.
pub(super) fn with_share(expr: &WeightExpr, absmax: &str, share: f64) -> WeightExpr {
    let change = |expr: &WeightExpr| Box::new(with_share(expr, absmax, share));
    match expr.clone() {
        tensor @ WeightExpr::Tensor { .. } => tensor,
        WeightExpr::SliceRows { base, start, count } => WeightExpr::SliceRows { base: change(&base), start, count },
        WeightExpr::ScaleColumns { base, by, inverse } => {
            WeightExpr::ScaleColumns { base: change(&base), by: change(&by), inverse }
        }
        WeightExpr::ScaleRows { base, by, inverse } => {
            WeightExpr::ScaleRows { base: change(&base), by: change(&by), inverse }
        }
        // A weight whose columns are looked at depends on no factors.
        maxima @ WeightExpr::ColumnAbsmax { .. } => maxima,
        WeightExpr::SmoothFactors { absmax: tensor, columns, alpha, power, share: run, block, once } => {
            let alpha = if tensor.tensor_name() == absmax { share } else { alpha };
            WeightExpr::SmoothFactors { absmax: tensor, columns, alpha, power, share: run, block, once }
        }
        WeightExpr::Rotate { base, side, rotation, transpose } => {
            WeightExpr::Rotate { base: change(&base), side, rotation, transpose }
        }
    }
}
