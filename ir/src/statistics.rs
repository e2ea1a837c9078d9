//! What calibration measured at the inputs of linears, and the safetensors file that keeps it.
//!
//! The float model ran on text, in the checkpoint's own basis; for each linear the file has `NAME.absmax` and
//! `NAME.mean_square`, f32, a number per input channel, where `NAME` is the tensor that the linear's weight is (a part
//! of). Where rotations are to follow the data it also has `NAME.covariance`, `[n, n]`, where `NAME` is the rotation, for
//! example `residual`. What the numbers were measured on is in the metadata. Wrong or foreign statistics are refused, never used.

mod error;

pub use error::StatisticsError;

use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;

/// The format's version, under the metadata key [`VERSION_KEY`].
const VERSION: &str = "1";
/// The metadata key that tells statistics from other safetensors files.
const VERSION_KEY: &str = "nemoc.statistics";
const ABSMAX: &str = ".absmax";
const MEAN_SQUARE: &str = ".mean_square";
const COVARIANCE: &str = ".covariance";

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
    /// By the name of a rotation: the mean of `x x^T` over the vectors `x` that it rotates, `[n, n]`, row-major.
    pub covariances: BTreeMap<String, Vec<f32>>,
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
        self.covariances.iter().try_for_each(|(name, matrix)| check_covariance(name, matrix))
    }

    /// A safetensors file. The crate's writer keeps metadata in a hash map, whose order differs from run to run.
    fn to_bytes(&self) -> Vec<u8> {
        let vectors = self.inputs.iter().flat_map(|(name, input)| {
            [(format!("{name}{ABSMAX}"), &input.absmax), (format!("{name}{MEAN_SQUARE}"), &input.mean_square)]
        });
        let vectors = vectors.map(|(name, values)| (name, vec![values.len()], values));
        let matrices = self.covariances.iter().map(|(name, matrix)| {
            let size = matrix.len().isqrt();
            (format!("{name}{COVARIANCE}"), vec![size, size], matrix)
        });
        let (mut data, mut header) = (Vec::new(), BTreeMap::new());
        header.insert("__metadata__".to_owned(), serde_json::json!(self.metadata()));
        for (name, shape, values) in vectors.chain(matrices) {
            let start = data.len();
            data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            let offsets = [start, data.len()];
            let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets });
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

/// Relative difference between two halves of a matrix that is summed up in f32.
const SYMMETRY_TOLERANCE: f32 = 1e-3;

/// Square, finite, symmetric, nothing negative on the diagonal.
fn check_covariance(name: &str, matrix: &[f32]) -> Result<(), StatisticsError> {
    let wrong = |problem: String| Err(StatisticsError::Covariance { name: name.to_owned(), problem });
    let n = matrix.len().isqrt();
    if n == 0 || n * n != matrix.len() {
        return wrong(format!("has {} values, expected a square", matrix.len()));
    }
    if let Some(at) = matrix.iter().position(|value| !value.is_finite()) {
        return wrong(format!("has {} in row {}, expected a finite number", matrix[at], at / n));
    }
    if let Some(row) = (0..n).find(|row| matrix[row * n + row] < 0.0) {
        return wrong(format!("has {} on the diagonal of row {row}, expected 0 or more", matrix[row * n + row]));
    }
    let scale = (0..n).fold(0.0, |most: f32, i| most.max(matrix[i * n + i]));
    let differs = |at: &usize| {
        let (i, j) = (at / n, at % n);
        (matrix[i * n + j] - matrix[j * n + i]).abs() > SYMMETRY_TOLERANCE * scale
    };
    match (0..n * n).find(differs) {
        Some(at) => wrong(format!("is not symmetric in row {}, column {}", at / n, at % n)),
        None => Ok(()),
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
            covariances: self.covariances()?,
        })
    }

    fn inputs(&self) -> Result<BTreeMap<String, InputStatistics>, StatisticsError> {
        let mut names = BTreeSet::new();
        for tensor in self.tensors.names().into_iter().filter(|tensor| !tensor.ends_with(COVARIANCE)) {
            let name = [ABSMAX, MEAN_SQUARE].iter().find_map(|suffix| tensor.strip_suffix(suffix));
            names.insert(name.ok_or_else(|| {
                self.tensor_error(
                    tensor,
                    format!("expected a name that ends in {ABSMAX}, {MEAN_SQUARE} or {COVARIANCE}"),
                )
            })?);
        }
        let input = |name: &str| {
            let (absmax, mean_square) = (format!("{name}{ABSMAX}"), format!("{name}{MEAN_SQUARE}"));
            let input = InputStatistics { absmax: self.vector(&absmax)?, mean_square: self.vector(&mean_square)? };
            Ok((name.to_owned(), input))
        };
        names.into_iter().map(input).collect()
    }

    fn covariances(&self) -> Result<BTreeMap<String, Vec<f32>>, StatisticsError> {
        let names = self.tensors.names().into_iter().filter_map(|tensor| tensor.strip_suffix(COVARIANCE));
        let matrix = |name: &str| Ok((name.to_owned(), self.values(&format!("{name}{COVARIANCE}"), 2, "a matrix")?));
        names.map(matrix).collect()
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>, StatisticsError> {
        self.values(name, 1, "a vector")
    }

    fn values(&self, name: &str, rank: usize, expected: &str) -> Result<Vec<f32>, StatisticsError> {
        let missing = |_| self.tensor_error(name, "it is missing".to_owned());
        let tensor = self.tensors.tensor(name).map_err(missing)?;
        if tensor.dtype() != Dtype::F32 || tensor.shape().len() != rank {
            let problem = format!("it is {:?} of {}, expected {expected} of F32", tensor.shape(), tensor.dtype());
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
