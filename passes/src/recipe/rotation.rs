//! `[rotation]`.

use ir::weights::RotationKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which rotations are inserted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rotations {
    /// The family of the offline ones; none at all for `none`.
    #[serde(serialize_with = "write_kind", deserialize_with = "read_kind")]
    pub kind: Option<RotationKind>,
    /// The residual stream.
    pub residual: bool,
    /// v and the input of o_proj, per head.
    pub value_output: bool,
    /// q and k, per head.
    pub query_key: bool,
    /// Online, before out_proj of Mamba layers.
    pub out_proj: bool,
    /// Online, before down_proj.
    pub down_proj: bool,
    /// Of everything random.
    pub seed: u64,
}

impl Default for Rotations {
    fn default() -> Self {
        Rotations {
            kind: None,
            residual: true,
            value_output: true,
            query_key: true,
            out_proj: true,
            down_proj: true,
            seed: 0,
        }
    }
}

impl Rotations {
    /// Whether nothing is rotated, whatever else is said.
    pub fn is_none(&self) -> bool {
        self.kind.is_none()
    }
}

const KINDS: [RotationKind; 3] = [RotationKind::Hadamard, RotationKind::RandomHadamard, RotationKind::Klt];

fn read_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RotationKind>, D::Error> {
    let word = String::deserialize(deserializer)?;
    if word == "none" {
        return Ok(None);
    }
    KINDS.into_iter().find(|kind| kind.as_str() == word).map(Some).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "rotation kind `{word}`, expected `none`, `hadamard`, `random-hadamard` or `klt`"
        ))
    })
}

fn write_kind<S: Serializer>(kind: &Option<RotationKind>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.map_or("none", RotationKind::as_str))
}
