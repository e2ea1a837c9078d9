//! What calibration measured at the inputs of linears, and the safetensors file that keeps it.
//!
//! The float model ran on text, in the checkpoint's own basis; for each linear the file has `NAME.absmax` and
//! `NAME.mean_square`, f32, a number per input channel, where `NAME` is the tensor that the linear's weight is (a part
//! of). What the numbers were measured on is in the metadata. Wrong or foreign statistics are refused, never used.

use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The format's version, under the metadata key [`VERSION_KEY`].
const VERSION: &str = "1";
/// The metadata key that tells statistics from other safetensors files.
const VERSION_KEY: &str = "nemoc.statistics";
const ABSMAX: &str = ".absmax";
const MEAN_SQUARE: &str = ".mean_square";

/// The largest value of a channel over fewer tokens says little about the next token.
pub const MIN_TOKENS: u64 = 128;

/// The tensor of the largest absolute values at the input of the linear whose weight is (a part of) `tensor`.
pub fn absmax_tensor(tensor: &str) -> String {
    format!("{tensor}{ABSMAX}")
}

/// Of the input of one linear: a number per channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputStatistics {
    /// The largest absolute value.
    pub absmax: Vec<f32>,
    /// The mean of the squares.
    pub mean_square: Vec<f32>,
}

/// The statistics of a model; see the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Digest of the checkpoint, as the provenance of an artifact records it.
    pub model: String,
    /// Windows of text.
    pub samples: u64,
    /// Tokens of a window.
    pub length: u64,
    /// Of the choice of windows.
    pub seed: u64,
    /// Digest of the text.
    pub text: String,
    /// By the name of the tensor that holds the linear's weight.
    pub inputs: BTreeMap<String, InputStatistics>,
}

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
            StatisticsError::Lengths { .. } => "run nemoc calibrate again",
            StatisticsError::Foreign { .. } | StatisticsError::Channels { .. } => {
                "statistics belong to one checkpoint; run nemoc calibrate on this one"
            }
            StatisticsError::TooFew { .. } => "calibrate with more --samples or a larger --length",
        }
    }
}

impl Statistics {
    /// The file's bytes are a function of the statistics alone. It appears under its name when it is complete.
    ///
    /// # Errors
    /// When values are not ones that a measurement gives, and when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), StatisticsError> {
        self.validate()?;
        let failed = |source| StatisticsError::Io { action: "write", path: path.to_owned(), source };
        let partial = path.with_added_extension("partial");
        let written = write(&partial, &self.to_bytes()).and_then(|()| std::fs::rename(&partial, path));
        written.map_err(|source| {
            // Whether the leftover can be removed does not change what is reported.
            let _ = std::fs::remove_file(&partial);
            failed(source)
        })
    }

    /// Reads what [`Statistics::save`] wrote, or any safetensors file of the same contents.
    ///
    /// # Errors
    /// When the file is not one, or anything in it is missing, too much or impossible.
    pub fn load(path: &Path) -> Result<Self, StatisticsError> {
        let bytes = std::fs::read(path).map_err(|source| StatisticsError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let statistics = File::open(path, &bytes)?.statistics()?;
        statistics.validate()?;
        Ok(statistics)
    }

    /// Whether the statistics may be used for the model with this digest.
    ///
    /// # Errors
    /// When they are another model's, come from too little text, or have impossible values.
    pub fn check(&self, model: &str) -> Result<(), StatisticsError> {
        if self.model != model {
            return Err(StatisticsError::Foreign { found: self.model.clone(), expected: model.to_owned() });
        }
        if self.samples.saturating_mul(self.length) < MIN_TOKENS {
            return Err(StatisticsError::TooFew { samples: self.samples, length: self.length });
        }
        self.validate()
    }

    /// What was measured at the linear whose weight is (a part of) `tensor`.
    ///
    /// # Errors
    /// When nothing was, or for another number of channels.
    pub fn input(&self, tensor: &str, channels: usize) -> Result<&InputStatistics, StatisticsError> {
        let input = self.inputs.get(tensor);
        match input {
            Some(input) if input.absmax.len() == channels => Ok(input),
            _ => Err(StatisticsError::Channels {
                input: tensor.to_owned(),
                found: input.map_or(0, |input| input.absmax.len()),
                expected: channels,
            }),
        }
    }

    fn validate(&self) -> Result<(), StatisticsError> {
        for (name, InputStatistics { absmax, mean_square }) in &self.inputs {
            if absmax.len() != mean_square.len() {
                let (absmax, mean_square) = (absmax.len(), mean_square.len());
                return Err(StatisticsError::Lengths { input: name.clone(), absmax, mean_square });
            }
            for (what, values) in [("absmax", absmax), ("mean_square", mean_square)] {
                let wrong = values.iter().position(|value| !(value.is_finite() && *value >= 0.0));
                if let Some(channel) = wrong {
                    let (input, value) = (name.clone(), values[channel]);
                    return Err(StatisticsError::Value { input, what, channel, value });
                }
            }
        }
        Ok(())
    }

    /// A safetensors file. The crate's writer keeps metadata in a hash map, whose order differs from run to run.
    fn to_bytes(&self) -> Vec<u8> {
        let vectors = self.inputs.iter().flat_map(|(name, input)| {
            [(format!("{name}{ABSMAX}"), &input.absmax), (format!("{name}{MEAN_SQUARE}"), &input.mean_square)]
        });
        let (mut data, mut header) = (Vec::new(), BTreeMap::new());
        header.insert("__metadata__".to_owned(), serde_json::json!(self.metadata()));
        for (name, values) in vectors {
            let start = data.len();
            data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            let offsets = [start, data.len()];
            let entry = serde_json::json!({ "dtype": "F32", "shape": [values.len()], "data_offsets": offsets });
            header.insert(name, entry);
        }
        let mut json = serde_json::json!(header).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        [&(json.len() as u64).to_le_bytes()[..], &json, &data].concat()
    }

    fn metadata(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            (VERSION_KEY, VERSION.to_owned()),
            ("model", self.model.clone()),
            ("samples", self.samples.to_string()),
            ("length", self.length.to_string()),
            ("seed", self.seed.to_string()),
            ("text", self.text.clone()),
        ])
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file that is being read.
struct File<'a> {
    path: &'a Path,
    metadata: HashMap<String, String>,
    tensors: SafeTensors<'a>,
}

impl<'a> File<'a> {
    fn open(path: &'a Path, bytes: &'a [u8]) -> Result<Self, StatisticsError> {
        let damaged = |error: safetensors::SafeTensorError| StatisticsError::Format {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
        Ok(File { path, metadata: header.metadata().clone().unwrap_or_default(), tensors })
    }

    fn statistics(&self) -> Result<Statistics, StatisticsError> {
        let version = self.text(VERSION_KEY, "the version 1")?;
        if version != VERSION {
            return Err(self.metadata_error(VERSION_KEY, "the version 1"));
        }
        Ok(Statistics {
            model: self.text("model", "the digest of a checkpoint")?,
            samples: self.number("samples")?,
            length: self.number("length")?,
            seed: self.number("seed")?,
            text: self.text("text", "the digest of a text")?,
            inputs: self.inputs()?,
        })
    }

    fn inputs(&self) -> Result<BTreeMap<String, InputStatistics>, StatisticsError> {
        let mut names = BTreeSet::new();
        for tensor in self.tensors.names() {
            let name = [ABSMAX, MEAN_SQUARE].iter().find_map(|suffix| tensor.strip_suffix(suffix));
            names.insert(name.ok_or_else(|| {
                self.tensor_error(tensor, format!("expected a name that ends in {ABSMAX} or {MEAN_SQUARE}"))
            })?);
        }
        let input = |name: &str| {
            let (absmax, mean_square) = (format!("{name}{ABSMAX}"), format!("{name}{MEAN_SQUARE}"));
            let input = InputStatistics { absmax: self.vector(&absmax)?, mean_square: self.vector(&mean_square)? };
            Ok((name.to_owned(), input))
        };
        names.into_iter().map(input).collect()
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>, StatisticsError> {
        let missing = |_| self.tensor_error(name, "it is missing".to_owned());
        let tensor = self.tensors.tensor(name).map_err(missing)?;
        if tensor.dtype() != Dtype::F32 || tensor.shape().len() != 1 {
            let problem = format!("it is {:?} of {}, expected a vector of F32", tensor.shape(), tensor.dtype());
            return Err(self.tensor_error(name, problem));
        }
        let (values, _) = tensor.data().as_chunks();
        Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn text(&self, key: &'static str, expected: &'static str) -> Result<String, StatisticsError> {
        self.metadata.get(key).cloned().ok_or_else(|| self.metadata_error(key, expected))
    }

    fn number(&self, key: &'static str) -> Result<u64, StatisticsError> {
        let expected = "a whole number";
        self.text(key, expected)?.parse().map_err(|_| self.metadata_error(key, expected))
    }

    fn metadata_error(&self, key: &'static str, expected: &'static str) -> StatisticsError {
        StatisticsError::Metadata { path: self.path.to_owned(), key, found: self.metadata.get(key).cloned(), expected }
    }

    fn tensor_error(&self, tensor: &str, problem: String) -> StatisticsError {
        StatisticsError::Tensor { path: self.path.to_owned(), tensor: tensor.to_owned(), problem }
    }
}
