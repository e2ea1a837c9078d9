//! Between the weight ops of a module and [`WeightExpr`], which code generation evaluates.

use crate::module::{defining, type_of};
use crate::ops::{Op, views};
use crate::types::{NemoType, Storage};
use crate::weights::{Rotation, RotationKind, Side, WeightExpr};
use melior::ir::Value;

impl RotationKind {
    /// The word for it in attributes, recipes and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            RotationKind::Hadamard => "hadamard",
            RotationKind::RandomHadamard => "random-hadamard",
            RotationKind::Klt => "klt",
        }
    }

    /// The inverse of [`RotationKind::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [RotationKind::Hadamard, RotationKind::RandomHadamard, RotationKind::Klt]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

impl Side {
    /// The word for it in attributes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Side::In => "in",
            Side::Out => "out",
        }
    }
}

/// The rotation that the attributes of a rotation op describe; `None` when a word or number is no legal one.
fn rotation(basis: String, kind: &str, size: i64, seed: i64) -> Option<Rotation> {
    Some(Rotation {
        name: basis,
        kind: RotationKind::parse(kind)?,
        size: usize::try_from(size).ok()?,
        seed: seed as u64,
    })
}

impl views::Rotate<'_, '_> {
    /// The rotation that this op applies; `None` when its attributes describe none.
    pub fn rotation(&self) -> Option<Rotation> {
        rotation(self.basis(), &self.kind(), self.size(), self.seed())
    }
}

impl views::RotateWeight<'_, '_> {
    /// The rotation that this op applies; `None` when its attributes describe none.
    pub fn rotation(&self) -> Option<Rotation> {
        rotation(self.basis(), &self.kind(), self.size(), self.seed())
    }

    /// The side it acts on; `None` for a word that is neither.
    pub fn rotated_side(&self) -> Option<Side> {
        let side = self.side();
        [Side::In, Side::Out].into_iter().find(|candidate| candidate.as_str() == side)
    }
}

impl WeightExpr {
    /// The expression that a weight or vector of a verified module stands for, without its final quantization.
    /// `None` for a value that no weight op defines.
    pub fn of(value: Value<'_, '_>) -> Option<Self> {
        let base = |value| Self::of(value).map(Box::new);
        Some(match defining(value)? {
            Op::Weight(op) => tensor(op)?,
            Op::SliceRows(op) => WeightExpr::SliceRows {
                base: base(op.base())?,
                start: op.start().try_into().ok()?,
                count: op.count().try_into().ok()?,
            },
            Op::ScaleColumns(op) => {
                WeightExpr::ScaleColumns { base: base(op.base())?, by: base(op.by())?, inverse: op.inverse() }
            }
            Op::ScaleRows(op) => {
                WeightExpr::ScaleRows { base: base(op.base())?, by: base(op.by())?, inverse: op.inverse() }
            }
            Op::ColumnAbsmax(op) => {
                let other = match op.other() {
                    Some(other) => Some(base(other)?),
                    None => None,
                };
                WeightExpr::ColumnAbsmax { base: base(op.base())?, other }
            }
            Op::SmoothFactors(op) => smooth_factors(op)?,
            Op::RotateWeight(op) => WeightExpr::Rotate {
                base: base(op.base())?,
                side: op.rotated_side()?,
                rotation: op.rotation()?,
                transpose: op.transpose(),
            },
            Op::QuantizeWeight(op) => Self::of(op.base())?,
            _ => return None,
        })
    }
}

fn smooth_factors(op: views::SmoothFactors<'_, '_>) -> Option<WeightExpr> {
    let share = usize::try_from(op.share()).ok()?;
    let (NemoType::Vector(absmax), NemoType::Vector(value)) = (type_of(op.absmax()), type_of(op.value())) else {
        return None;
    };
    Some(WeightExpr::SmoothFactors {
        absmax: Box::new(WeightExpr::of(op.absmax())?),
        columns: Box::new(WeightExpr::of(op.columns())?),
        alpha: op.alpha(),
        power: op.power(),
        share,
        block: usize::try_from(op.block()).ok()?,
        once: value.len != absmax.len,
    })
}

fn tensor(op: views::Weight<'_, '_>) -> Option<WeightExpr> {
    let (shape, storage): (Vec<usize>, Storage) = match type_of(op.value()) {
        NemoType::Weight(weight) => (vec![weight.rows, weight.cols], weight.storage),
        NemoType::Vector(vector) => (vec![vector.len], vector.storage),
        _ => return None,
    };
    Some(WeightExpr::Tensor { name: op.tensor(), shape, dtype: storage.float_type()? })
}
