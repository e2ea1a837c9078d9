//! The language of the e-graphs: nemo ops as terms.
//!
//! A term stands for what an op computes, not for how it is launched. Kernels that may rotate and quantize what they
//! compute (norms, mixer, attention, activations) are terms of their own, `(norm a w x)`; [`Nemo::Emit`] puts such a
//! result into memory, in a format and after an online rotation, as `Emit` does in the plan. So `relu2`, `rotate` and `quantize` by themselves are `(emit none f32 (relu2 x))`,
//! `(emit r f32 (copy x))` and `(emit none i8 (copy x))`.
//!
//! What has no structure to rewrite (weights, attributes, states, values from elsewhere) is a [`Leaf`].

use egg::{Id, define_language};
use ir::types::{Granularity, Storage};
use std::fmt;
use std::str::FromStr;

define_language! {
    /// A term; the comment at each variant is its doc, which the macro has no place for.
    #[allow(missing_docs)]
    pub enum Nemo {
        // No weight, no rotation.
        "none" = Absent,
        // How a result is stored.
        Format(Format),
        // Something from outside.
        Leaf(Leaf),

        // `(rotate-in r w)`: a weight whose input arrives in basis r.
        "rotate-in" = RotateIn([Id; 2]),
        // `(rotate-out r w)`: a weight whose output leaves in basis r.
        "rotate-out" = RotateOut([Id; 2]),

        // `(embed w)`
        "embed" = Embed([Id; 1]),
        // `(linear w format x)`
        "linear" = Linear([Id; 3]),
        // `(linear-relu2 w x)`
        "linear-relu2" = LinearRelu2([Id; 2]),
        // `(linear-add w residual x)`
        "linear-add" = LinearAdd([Id; 3]),
        // `(add a b)`
        "add" = Add([Id; 2]),
        // `(select x)`
        "select" = Select([Id; 1]),
        // `(convert x)`
        "convert" = Convert([Id; 1]),
        // `(dequantize x)`
        "dequantize" = Dequantize([Id; 1]),
        // `(rotate r x)`: into basis r.
        "rotate" = Rotate([Id; 2]),
        // `(unrotate r x)`: out of basis r.
        "unrotate" = Unrotate([Id; 2]),
        // `(conv c x)`
        "conv" = Conv([Id; 2]),
        // `(scan s xbc dt)`
        "scan" = Scan([Id; 3]),

        // `(emit rotation format kernel)`
        "emit" = Emit([Id; 3]),
        // `(copy x)`
        "copy" = Copy([Id; 1]),
        // `(relu2 x)`
        "relu2" = Relu2([Id; 1]),
        // `(norm a w x)`
        "norm" = Norm([Id; 3]),
        // `(norm-add a w x delta)`
        "norm-add" = NormAdd([Id; 4]),
        // `(sum k)`: the sum that a `norm-add` writes back.
        "sum" = Sum([Id; 1]),
        // `(gate a w x z)`
        "gate" = Gate([Id; 4]),
        // `(mixer c s a w z xbc dt)`
        "mixer" = Mixer([Id; 7]),
        // `(attention a q k v)`
        "attention" = Attention([Id; 4]),
    }
}

/// How a result is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format(pub Storage);

/// The storages of activations, in the order of [`Format`]s.
const FORMATS: [Storage; 4] = [Storage::F32, Storage::I32, Storage::I8, Storage::U8];

impl Format {
    /// Plain floats.
    pub const F32: Format = Format(Storage::F32);

    /// What shares a scale in this format.
    pub const fn granularity(self) -> Granularity {
        match self.0 {
            Storage::I32 => Granularity::TokenChannel,
            Storage::I8 | Storage::U8 => Granularity::Token,
            _ => Granularity::None,
        }
    }

    fn rank(self) -> usize {
        FORMATS.iter().position(|storage| *storage == self.0).unwrap_or(FORMATS.len())
    }
}

impl Ord for Format {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Format {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Format {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        FORMATS.iter().find(|storage| storage.to_string() == text).map(|storage| Format(*storage)).ok_or(())
    }
}

/// Index of something from outside in the list of leaves of a region, written `$3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leaf(pub usize);

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.0)
    }
}

impl FromStr for Leaf {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        text.strip_prefix('$').and_then(|index| index.parse().ok()).map(Leaf).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egg::RecExpr;

    #[test]
    fn prints_what_it_parses() {
        let text = "(emit $0 i8 (norm $1 none (linear-add $2 $3 $4)))";
        let term: RecExpr<Nemo> = text.parse().unwrap();
        assert_eq!(term.to_string(), text);
    }
}
