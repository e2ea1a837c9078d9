//! A checkpoint: its architecture and where its tensors are.
//!
//! Opening one reads `config.json` and safetensors headers, never weights. Every tensor the model needs is checked for
//! presence, element type and shape before anything else happens. A folder (or a file) with nothing but a
//! configuration is a checkpoint too, for inspection: shapes and types are known, bytes are not.

use crate::config::Config;
use crate::error::{CheckpointError, Place};
use crate::names::{Names, Role, TensorSpec, tensors};
use crate::shards::Shards;
use ir::weights::{FloatType, TensorSource};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// A checked checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: Config,
    names: Names,
    tensors: Vec<TensorSpec>,
    /// Index into `tensors` by name in the file.
    by_name: BTreeMap<String, usize>,
    weights: Option<Shards>,
    unknown: Vec<String>,
}

impl Checkpoint {
    /// Opens a checkpoint folder, or a lone `config.json`.
    ///
    /// # Errors
    /// When a file is missing, damaged or not supported, or the weights do not fit the configuration.
    pub fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
        let config = Config::load(path)?;
        match Shards::open(path).transpose() {
            Some(weights) if path.is_dir() => Checkpoint::with_weights(path, config, weights?),
            _ => Ok(Checkpoint { path: path.to_owned(), ..Checkpoint::from_config(config) }),
        }
    }

    /// A checkpoint without weights, with the names of the 2025 releases and all tensors of the configuration's type.
    pub fn from_config(config: Config) -> Checkpoint {
        let names = Names::default();
        let tensors = tensors(&config, &names, !config.tied_head);
        Checkpoint::new(PathBuf::from(&config.name), config, names, tensors)
    }

    fn new(path: PathBuf, config: Config, names: Names, tensors: Vec<TensorSpec>) -> Checkpoint {
        let by_name = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Checkpoint { path, config, names, tensors, by_name, weights: None, unknown: Vec::new() }
    }

    fn with_weights(path: &Path, config: Config, weights: Shards) -> Result<Checkpoint, CheckpointError> {
        let names =
            Names::detect(|name| weights.entry(name).is_some()).ok_or_else(|| CheckpointError::UnknownNames {
                file: weights.label().to_owned(),
                first: weights.names().next().cloned().unwrap_or_default(),
            })?;
        // A head in the file is the head, also where the configuration allows to leave it out.
        let stored_head = weights.entry(Role::LmHead.suffix()).is_some();
        let tensors = tensors(&config, &names, stored_head || !config.tied_head);
        for tensor in &tensors {
            check(tensor, &weights, &config)?;
        }
        let known: BTreeSet<&String> = tensors.iter().map(|t| &t.name).collect();
        let unknown = weights.names().chain(weights.unindexed());
        let unknown = unknown.filter(|name| !known.contains(name)).cloned().collect();
        Ok(Checkpoint { weights: Some(weights), unknown, ..Checkpoint::new(path.to_owned(), config, names, tensors) })
    }

    /// The folder or file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The naming scheme.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Every tensor of the model, in the order of computation.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// The tensor with this canonical name.
    pub fn tensor(&self, canonical: &str) -> Option<&TensorSpec> {
        let index = self.by_name.get(&self.names.actual(canonical))?;
        Some(&self.tensors[*index])
    }

    /// Whether logits have a matrix of their own; otherwise they use the embedding table.
    pub fn has_head(&self) -> bool {
        self.by_name.contains_key(Role::LmHead.suffix())
    }

    /// Tensors of the files that no part of the model uses. Worth a warning.
    pub fn unknown_tensors(&self) -> &[String] {
        &self.unknown
    }

    /// Names and sizes of the weight files.
    pub fn files(&self) -> Vec<(&str, u64)> {
        self.weights.iter().flat_map(Shards::files).collect()
    }

    /// Whether there are weights, not only a configuration.
    pub fn has_weights(&self) -> bool {
        self.weights.is_some()
    }

    /// # Errors
    /// When there is only a configuration.
    pub fn require_weights(&self) -> Result<(), CheckpointError> {
        match self.weights {
            Some(_) => Ok(()),
            None => Err(CheckpointError::NoWeights { dir: self.path.clone() }),
        }
    }

    /// Element type of a tensor of this model.
    pub fn dtype(&self, tensor: &TensorSpec) -> FloatType {
        let stored = self.weights.as_ref().and_then(|w| w.entry(&tensor.name));
        stored.and_then(|entry| float_type(entry.dtype)).unwrap_or(self.config.dtype)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(TensorSpec::parameters).sum()
    }

    /// Identifies the source in an artifact, 16 hexadecimal digits: xxh3 of the architecture, of names, sizes and headers
    /// of the weight files, and of a sample of the weights. Tensors up to 64 KiB are read whole, of larger ones 16 blocks of
    /// 4 KiB, spread evenly and the same in every run, so that 16 GB take no longer than 16 MB. Training changes nearly every
    /// weight and with it the digest; an edit of a few rows of a large tensor can go unseen.
    pub fn digest(&self) -> String {
        let mut hash = Xxh3::new();
        // A folder may be renamed.
        let architecture = Config { name: String::new(), ..self.config.clone() };
        hash.update(format!("{architecture:?}").as_bytes());
        if let Some(weights) = &self.weights {
            weights.digest(&mut hash);
        }
        format!("{:016x}", hash.digest())
    }

    /// The file that holds a tensor, for messages.
    fn file_of(&self, name: &str) -> String {
        let stored = self.weights.as_ref().and_then(|w| w.file_of(name));
        stored.map_or_else(|| self.path.display().to_string(), str::to_owned)
    }
}

impl TensorSource for Checkpoint {
    /// Shape and type of a tensor by its name in the file; the `[channels, 1, kernel]` of a convolution is given as
    /// `[channels, kernel]`.
    fn describe(&self, name: &str) -> Option<(Vec<usize>, FloatType)> {
        let tensor = &self.tensors[*self.by_name.get(name)?];
        let mut shape = tensor.shape.clone();
        if tensor.role == Role::Conv1d {
            shape.remove(1);
        }
        Some((shape, self.dtype(tensor)))
    }

    /// The bytes of a tensor by its name in the file. They need not be aligned.
    fn bytes(&self, name: &str) -> Result<&[u8], Box<dyn std::error::Error + Send + Sync>> {
        self.require_weights()?;
        let known = self.by_name.contains_key(name);
        let bytes = self.weights.as_ref().filter(|_| known).and_then(|w| w.bytes(name));
        bytes.ok_or_else(|| {
            Box::from(CheckpointError::NoSuchTensor { file: self.file_of(name), tensor: name.to_owned() })
        })
    }

    #[cfg(unix)]
    fn release(&self, name: &str, bytes: std::ops::Range<usize>) {
        if let Some(weights) = &self.weights {
            weights.release(name, bytes);
        }
    }
}

/// Checks presence, element type and shape of one tensor.
fn check(tensor: &TensorSpec, weights: &Shards, config: &Config) -> Result<(), CheckpointError> {
    let Some(entry) = weights.entry(&tensor.name) else {
        return Err(CheckpointError::MissingTensor {
            place: Place::new(weights.label(), &tensor.name),
            what: tensor.describe(),
            why: match tensor.layer {
                Some(layer) => format!("layer {layer} is {}", config.layers[layer].label()),
                None => "every model has one".into(),
            },
            help: match tensor.role {
                Role::LmHead => "a model without a head of its own says tie_word_embeddings = true",
                _ => "is this the config of another model, or the download incomplete?",
            }
            .into(),
        });
    };
    let file = || weights.file_of(&tensor.name).unwrap_or_default();
    if float_type(entry.dtype).is_none() {
        return Err(CheckpointError::ElementType {
            place: Place::new(file(), &tensor.name),
            what: tensor.describe(),
            found: entry.dtype.to_string(),
        });
    }
    if entry.shape != tensor.shape {
        return Err(CheckpointError::Shape {
            place: Place::new(file(), &tensor.name),
            what: tensor.describe(),
            found: entry.shape.clone(),
            expected: tensor.shape.clone(),
            why: tensor.reason(config),
        });
    }
    Ok(())
}

/// The element types a checkpoint may have.
fn float_type(dtype: safetensors::Dtype) -> Option<FloatType> {
    match dtype {
        safetensors::Dtype::F32 => Some(FloatType::F32),
        safetensors::Dtype::F16 => Some(FloatType::F16),
        safetensors::Dtype::BF16 => Some(FloatType::Bf16),
        _ => None,
    }
}
