use super::{ARTIFACT_VERSION, ArtifactError};
use crate::plan::{PLAN_VERSION, Plan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where an artifact came from. Unknown fields of other builds are ignored, missing ones are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Version of the compiler.
    pub nemoc_version: String,
    /// Name of the source checkpoint (no path).
    pub source: String,
    /// Digest of the source checkpoint, with the name of its algorithm: `xxh3:0123456789abcdef`.
    pub source_digest: String,
    /// Passes that ran, in order, with their options.
    pub passes: Vec<String>,
    /// Parameters of the source checkpoint.
    pub parameters: u64,
    /// Digest of the calibration file, if one was used.
    pub calibration: Option<String>,
}

/// The `__metadata__` of an artifact.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// What to run.
    pub plan: Plan,
    /// What the user asked for.
    pub recipe: String,
    /// Where it came from.
    pub provenance: Provenance,
    /// Anything else.
    pub extra: BTreeMap<String, String>,
}

const FORMAT: &str = "format";
const VERSION: &str = "nemo.version";
const PLAN: &str = "nemo.plan";
const RECIPE: &str = "nemo.recipe";
const PROVENANCE: &str = "nemo.provenance";

impl Metadata {
    /// As safetensors metadata. Keys of [`Metadata::extra`] do not replace those of the format.
    ///
    /// # Errors
    /// When the plan cannot be written as JSON.
    pub fn to_map(&self) -> Result<BTreeMap<String, String>, serde_json::Error> {
        let mut map = self.extra.clone();
        map.insert(FORMAT.into(), "nemo".into());
        map.insert(VERSION.into(), ARTIFACT_VERSION.to_string());
        map.insert(PLAN.into(), serde_json::to_string(&self.plan)?);
        map.insert(RECIPE.into(), self.recipe.clone());
        map.insert(PROVENANCE.into(), serde_json::to_string(&self.provenance)?);
        Ok(map)
    }

    /// From safetensors metadata whose version was checked.
    pub(super) fn from_map(mut map: BTreeMap<String, String>) -> Result<Self, ArtifactError> {
        map.remove(FORMAT);
        map.remove(VERSION);
        let plan = map
            .remove(PLAN)
            .ok_or_else(|| ArtifactError::Missing { what: format!("launch plan (`{PLAN}` in its metadata)") })?;
        let provenance = match map.remove(PROVENANCE) {
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| ArtifactError::malformed(format!("`{PROVENANCE}`: {error}")))?,
            None => Provenance::default(),
        };
        Ok(Metadata {
            plan: parse_plan(&plan)?,
            recipe: map.remove(RECIPE).unwrap_or_default(),
            provenance,
            extra: map,
        })
    }
}

/// Refuses an artifact of a newer format before anything else of it is interpreted.
pub(super) fn check_version(map: &BTreeMap<String, String>) -> Result<(), ArtifactError> {
    let text = map
        .get(VERSION)
        .ok_or_else(|| ArtifactError::Missing { what: format!("version (`{VERSION}` in its metadata)") })?;
    match text.parse::<u32>() {
        Ok(found) if found > ARTIFACT_VERSION => {
            Err(ArtifactError::FutureVersion { what: "the artifact", found, supported: ARTIFACT_VERSION })
        }
        Ok(1..) => Ok(()),
        _ => Err(ArtifactError::malformed(format!("`{VERSION}` is {text:?}, which is no version"))),
    }
}

fn parse_plan(text: &str) -> Result<Plan, ArtifactError> {
    /// Read first: a newer plan may have other fields.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let unreadable = |error: serde_json::Error| ArtifactError::Plan { reason: error.to_string() };
    let Versioned { version } = serde_json::from_str(text).map_err(unreadable)?;
    if version > PLAN_VERSION {
        return Err(ArtifactError::FutureVersion { what: "the launch plan", found: version, supported: PLAN_VERSION });
    }
    serde_json::from_str(text).map_err(unreadable)
}
