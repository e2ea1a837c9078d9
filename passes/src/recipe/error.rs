//! Why a recipe cannot be used.

use super::{GROUP_ALIGN, MAX_GROUP_SIZE};

/// A recipe that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{file}: {message}")]
    Syntax {
        /// The recipe's file.
        file: String,
        /// What the TOML reader found, with the line.
        message: String,
    },
    /// A group size that stored rows cannot have.
    #[error("{file}: group_size is {found}, expected a multiple of {GROUP_ALIGN} up to {MAX_GROUP_SIZE}")]
    GroupSize {
        /// The recipe's file.
        file: String,
        /// What it says.
        found: usize,
    },
    /// A share of the range that is none.
    #[error("{file}: alpha of [smooth] is {found}, expected 0 to 1")]
    Alpha {
        /// The recipe's file.
        file: String,
        /// What it says.
        found: String,
    },
    /// An option of GPTQ out of range.
    #[error("{file}: {message}")]
    Gptq {
        /// The recipe's file.
        file: String,
        /// The key, what it says, and what was expected.
        message: String,
    },
    /// An override that overrides nothing.
    #[error("{file}: the override `{pattern}` says neither precision nor rounding")]
    Idle {
        /// The recipe's file.
        file: String,
        /// Its pattern.
        pattern: String,
    },
    /// A pattern that is no regular expression.
    #[error("{file}: match = `{pattern}` is not a regular expression: {message}")]
    Pattern {
        /// The recipe's file.
        file: String,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
}

impl RecipeError {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            RecipeError::Syntax { .. } => {
                "keys are phase, group_size, kv_cache, ssm_state, fold_norms, rounding, [[override]] match, precision and rounding, [gptq] damping, act_order, clip, refit and sweeps, [rotation] kind, residual, value_output, query_key, out_proj, down_proj and seed, [smooth] enabled, alpha, match and alphas"
            }
            RecipeError::GroupSize { .. } => "128 is the usual choice; 64 and 32 are finer and larger",
            RecipeError::Alpha { .. } => "0.5 shares the range equally between activations and weights",
            RecipeError::Gptq { .. } => "the defaults are damping 0.01 and refit 0.5",
            RecipeError::Idle { .. } => "give it precision = \"w8a8\", or rounding = \"rtn\"",
            RecipeError::Pattern { .. } => "write the pattern in single quotes, for example match = '\\.down_proj$'",
        }
    }
}
