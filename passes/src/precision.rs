//! The arithmetic a linear runs in.

use ir::types::{Granularity, Storage};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What assign-precision decides for a linear or an embedding table. Activations of a quantized linear are 8-bit in
/// every case; for an embedding only the weight's half of the word counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// f32 arithmetic. The weight is stored as in the checkpoint, in f32 once a norm or a rotation is folded into it.
    Float,
    /// 8-bit weights, a scale per output channel.
    W8a8,
    /// 4-bit weights, a scale per output channel times an integer per group.
    W4a8,
    /// 4-bit weights, a float scale per group.
    W4a8Group,
}

const WORDS: [(Precision, &str); 4] = [
    (Precision::Float, "float"),
    (Precision::W8a8, "w8a8"),
    (Precision::W4a8, "w4a8"),
    (Precision::W4a8Group, "w4a8-group"),
];

impl Precision {
    /// The word for it in attributes and recipes.
    pub fn as_str(self) -> &'static str {
        WORDS.iter().find(|(precision, _)| *precision == self).expect("every precision is listed").1
    }

    /// The inverse of [`Precision::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        WORDS.iter().find(|(_, known)| *known == word).map(|(precision, _)| *precision)
    }

    /// Whether weights take 4 bits.
    pub const fn is_4_bit(self) -> bool {
        matches!(self, Precision::W4a8 | Precision::W4a8Group)
    }

    /// How the weight is stored, `None` for floats.
    pub const fn weight_format(self, group_size: usize) -> Option<(Storage, Granularity)> {
        Some(match self {
            Precision::Float => return None,
            Precision::W8a8 => (Storage::I8, Granularity::Channel),
            Precision::W4a8 => (Storage::I4, Granularity::TwoLevel(group_size)),
            Precision::W4a8Group => (Storage::I4, Granularity::Group(group_size)),
        })
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_one_word_in_attributes_and_recipes() {
        for (precision, word) in WORDS {
            assert_eq!(Precision::parse(word), Some(precision));
            assert_eq!(serde_json::to_value(precision).unwrap(), word);
        }
    }
}
