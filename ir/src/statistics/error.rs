//! Why statistics are refused.

use super::MIN_TOKENS;
use std::path::PathBuf;

/// Statistics that cannot be written, read or used.
#[derive(Debug, thiserror::Error)]
pub enum StatisticsError {
    /// The file system refuses.
    #[error("cannot {action} the statistics {}: {source}", .path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("{}: no readable safetensors file: {message}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A metadata entry that is missing or says something impossible.
    #[error("{}: the metadata says {key} = {}, expected {expected}", .path.display(), .found.as_deref().unwrap_or("nothing"))]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value, if it is there.
        found: Option<String>,
        /// What it should be.
        expected: &'static str,
    },
    /// A tensor that should not be there, is missing, or has a wrong type or shape.
    #[error("{}: tensor {tensor}: {problem}", .path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Expected and found.
        problem: String,
    },
    /// A value that no measurement gives.
    #[error(
        "the statistics of {input} have {what} {value} in channel {channel}, expected a finite number of 0 or more"
    )]
    Value {
        /// The linear's tensor.
        input: String,
        /// `absmax` or `mean_square`.
        what: &'static str,
        /// Which channel.
        channel: usize,
        /// The value.
        value: f32,
    },
    /// The two vectors of an input differ in length.
    #[error("the statistics of {input} have {absmax} values of absmax and {mean_square} of mean_square")]
    Lengths {
        /// The linear's tensor.
        input: String,
        /// Length of the one.
        absmax: usize,
        /// Length of the other.
        mean_square: usize,
    },
    /// A matrix that is no covariance.
    #[error("the covariance of {name} {problem}")]
    Covariance {
        /// The rotation it is for.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Measured on another model.
    #[error("the statistics are of the model {found}, expected {expected}")]
    Foreign {
        /// The digest in the statistics.
        found: String,
        /// The digest of the model they are to be used for.
        expected: String,
    },
    /// Measured on too little text.
    #[error(
        "the statistics come from {samples} windows of {length} tokens, expected at least {MIN_TOKENS} tokens in all"
    )]
    TooFew {
        /// Windows.
        samples: u64,
        /// Tokens of each.
        length: u64,
    },
    /// Nothing was measured for a tensor that is needed, or for another number of channels.
    #[error("the statistics of {input} are for {found} channels, expected {expected}")]
    Channels {
        /// The linear's tensor.
        input: String,
        /// Channels measured; 0 when the tensor is not in the statistics.
        found: usize,
        /// Channels of the linear.
        expected: usize,
    },
}

impl StatisticsError {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            StatisticsError::Io { .. } => "check the path and its permissions",
            StatisticsError::Format { .. } => {
                "the file is damaged or is no safetensors file; run nemoc calibrate again"
            }
            StatisticsError::Metadata { .. } | StatisticsError::Tensor { .. } => {
                "is this a file that nemoc calibrate of this version wrote?"
            }
            StatisticsError::Value { .. } => {
                "the model overflowed on the calibration text, or the file is damaged; try other text"
            }
            StatisticsError::Lengths { .. } | StatisticsError::Covariance { .. } => "run nemoc calibrate again",
            StatisticsError::Foreign { .. } | StatisticsError::Channels { .. } => {
                "statistics belong to one checkpoint; run nemoc calibrate on this one"
            }
            StatisticsError::TooFew { .. } => "calibrate with more --samples or a larger --length",
        }
    }
}
