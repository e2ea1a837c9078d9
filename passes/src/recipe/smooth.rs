//! `[smooth]`.

use regex::Regex;
use serde::{Deserialize, Serialize};

/// Which inputs of linears are smoothed, and how much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Smoothing {
    /// `false` for none, `true` even before linears that stay float.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How much of an activation's range moves into the weight.
    pub alpha: f64,
    /// Regular expression over names of linears, unanchored.
    #[serde(rename = "match")]
    pub pattern: String,
}

impl Default for Smoothing {
    fn default() -> Self {
        Smoothing { enabled: None, alpha: 0.5, pattern: r"\.(down_proj|o_proj)$".to_owned() }
    }
}

impl Smoothing {
    pub(super) fn is_default(&self) -> bool {
        *self == Smoothing::default()
    }

    /// The compiled pattern.
    ///
    /// # Errors
    /// When it is no regular expression.
    pub fn regex(&self) -> Result<Regex, regex::Error> {
        Regex::new(&self.pattern)
    }
}
