//! `[smooth]`.

use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which inputs of linears are smoothed, and how much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Smoothing {
    /// `false` for none, `true` even before linears that stay float.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How much of an activation's range moves into the weight.
    pub alpha: Alpha,
    /// Regular expression over names of linears, unanchored.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The same as `alpha` for single linears, by name. Of linears that read one activation, the first named decides.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alphas: BTreeMap<String, f64>,
}

/// How much of an activation's range moves into the weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Alpha {
    /// So much, everywhere: 0 levels the weights, 1 the activations.
    Share(f64),
    /// For each activation what is expected to lose least; needs statistics and weights, so passes cannot.
    Search,
}

/// In a file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Word(String),
}

/// The word for [`Alpha::Search`].
const SEARCH: &str = "search";

impl TryFrom<Written> for Alpha {
    type Error = String;
    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Number(share) => Ok(Alpha::Share(share)),
            Written::Word(word) if word == SEARCH => Ok(Alpha::Search),
            Written::Word(word) => Err(format!("alpha of [smooth] is `{word}`, expected 0 to 1, or `{SEARCH}`")),
        }
    }
}

impl From<Alpha> for Written {
    fn from(alpha: Alpha) -> Self {
        match alpha {
            Alpha::Share(share) => Written::Number(share),
            Alpha::Search => Written::Word(SEARCH.to_owned()),
        }
    }
}

impl Default for Smoothing {
    fn default() -> Self {
        Smoothing {
            enabled: None,
            alpha: Alpha::Share(0.5),
            pattern: r"\.(down_proj|o_proj)$".to_owned(),
            alphas: BTreeMap::new(),
        }
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

    /// A share that is none, as text.
    pub(super) fn bad_share(&self) -> Option<String> {
        let fits = |share: &f64| (0.0..=1.0).contains(share);
        let alpha = match self.alpha {
            Alpha::Share(share) => (!fits(&share)).then(|| share.to_string()),
            Alpha::Search => None,
        };
        let named = || self.alphas.iter().find(|(_, share)| !fits(share));
        alpha.or_else(|| named().map(|(name, share)| format!("{share} for {name}")))
    }
}
