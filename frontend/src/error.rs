//! Everything that can be wrong with a checkpoint, as values.
//!
//! `Display` gives the whole message of the house style: what was found and what was expected, `-->` where, and
//! `help:` what to do. The command line prints it after `error: `.

use std::path::PathBuf;

/// What can be wrong with `config.json` (or `generation_config.json`).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the model configuration: {source}\n  --> {path}\nhelp: give the folder of a Hugging Face \
         checkpoint, or its config.json"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error(
        "the configuration has {bytes} bytes, more than the {limit} that any model needs\n  --> {path}\nhelp: is this \
         the config.json of a checkpoint?"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
    /// Not JSON.
    #[error(
        "the configuration is not valid JSON: {reason}\n  --> {file}\nhelp: Infinity, -Infinity and NaN are accepted \
         as numbers; is the download complete?"
    )]
    Syntax {
        /// The file.
        file: String,
        /// The parser's words.
        reason: String,
    },
    /// A field that must be there is not.
    #[error(
        "the field {field} is missing\n  --> {file}\nhelp: accepted spellings: {spellings}; is this the config of a \
         Nemotron-H model?"
    )]
    Missing {
        /// The file.
        file: String,
        /// The field.
        field: &'static str,
        /// All names it may have.
        spellings: String,
    },
    /// A field has another type.
    #[error("{field} is {found}, expected {expected}\n  --> {file}\nhelp: correct the value of {field}")]
    WrongType {
        /// The file.
        file: String,
        /// The field.
        field: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// A number no model has.
    #[error(
        "{field} is {found}, expected {expected}\n  --> {file}\nhelp: no Nemotron-H model has such a {field}; correct it"
    )]
    OutOfRange {
        /// The file.
        file: String,
        /// The field.
        field: String,
        /// What is there.
        found: String,
        /// The range.
        expected: String,
    },
    /// Two spellings of one field, or two fields that must agree, do not.
    #[error("{a} and {b} disagree: {found}\n  --> {file}\nhelp: {help}")]
    Disagree {
        /// The file.
        file: String,
        /// One field.
        a: String,
        /// The other.
        b: String,
        /// Their values.
        found: String,
        /// What to do.
        help: String,
    },
    /// A layer of no known kind.
    #[error(
        "layer {layer} is of unknown kind {found:?}\n  --> {file}: {field}\nhelp: known kinds: M (mamba, \
         linear_attention), - (mlp), * (attention, full_attention)"
    )]
    UnknownLayer {
        /// The file.
        file: String,
        /// The field that lists the layers.
        field: &'static str,
        /// Counted from 0.
        layer: usize,
        /// What stands there.
        found: String,
    },
    /// A valid model that this compiler cannot compile.
    #[error("{what} not supported yet\n  --> {file}: {field}\nhelp: {help}")]
    Unsupported {
        /// The file.
        file: String,
        /// The field that says so.
        field: String,
        /// The subject of the sentence, with its verb.
        what: String,
        /// What to do.
        help: &'static str,
    },
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or the folder.
    pub file: String,
    /// The name in the file.
    pub tensor: String,
}

impl Place {
    pub(crate) fn new(file: impl Into<String>, tensor: impl Into<String>) -> Box<Place> {
        Box::new(Place { file: file.into(), tensor: tensor.into() })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.tensor)
    }
}

/// What can be wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// See [`ConfigError`].
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error("cannot read {file}: {source}\n  --> {}\nhelp: {help}", path.display())]
    Io {
        /// Its name.
        file: String,
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
        /// What to do.
        help: &'static str,
    },
    /// Shards without an index.
    #[error(
        "{} holds shards but no model.safetensors.index.json\n  --> {shard}\nhelp: download the index of the \
         checkpoint as well", dir.display()
    )]
    NoIndex {
        /// The folder.
        dir: PathBuf,
        /// One of the shards.
        shard: String,
    },
    /// `model.safetensors.index.json` is not an index.
    #[error("the index of the shards is not valid: {reason}\n  --> {file}\nhelp: download it again")]
    Index {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A shard name of the index that would leave the folder.
    #[error(
        "the index names the file {name:?}, which is not a plain file name\n  --> {file}: {tensor}\nhelp: shards stand \
         beside their index; do not use this checkpoint if you do not know who made it"
    )]
    UnsafePath {
        /// The index.
        file: String,
        /// A tensor that is said to be there.
        tensor: String,
        /// The name.
        name: String,
    },
    /// The index puts a tensor into a shard that does not hold it.
    #[error(
        "the shard does not hold the tensor that the index puts there\n  --> {shard}: {tensor}\nhelp: index and shards \
         come from different checkpoints; download both again"
    )]
    NotInShard {
        /// The shard.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// A safetensors header is not one.
    #[error("the safetensors header is not valid: {reason}\n  --> {file}\nhelp: {help}")]
    Header {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        help: &'static str,
    },
    /// The place of a tensor in its file makes no sense.
    #[error("{reason}\n  --> {place}\nhelp: the file is damaged or truncated; download it again")]
    Layout {
        /// Where.
        place: Box<Place>,
        /// What is wrong.
        reason: String,
    },
    /// A tensor of the model is missing.
    #[error("{what} is missing\n  --> {place}\nhelp: config.json asks for it ({why}); {help}")]
    MissingTensor {
        /// Where.
        place: Box<Place>,
        /// For people.
        what: String,
        /// The layer kind or field that needs it.
        why: String,
        /// What to do.
        help: String,
    },
    /// A tensor has the wrong shape.
    #[error(
        "{what} has shape {found:?}, expected {expected:?}\n  --> {place}\nhelp: config.json says {why}; is \
         this the config of another model?"
    )]
    Shape {
        /// Where.
        place: Box<Place>,
        /// For people.
        what: String,
        /// In the file.
        found: Vec<usize>,
        /// By the configuration.
        expected: Vec<usize>,
        /// The fields that say so.
        why: String,
    },
    /// A tensor has a type that cannot be compiled.
    #[error(
        "{what} has element type {found}, expected BF16, F16 or F32\n  --> {place}\nhelp: nemoc quantizes by \
         itself; use the unquantized release of the model"
    )]
    ElementType {
        /// Where.
        place: Box<Place>,
        /// For people.
        what: String,
        /// In the file.
        found: String,
    },
    /// Neither naming scheme fits.
    #[error(
        "no tensor is named like one of a Nemotron-H model: neither backbone.embeddings.weight nor \
         model.embeddings.weight is there\n  --> {file}\nhelp: the first tensor is {first:?}; is this the checkpoint of \
         another architecture?"
    )]
    UnknownNames {
        /// The file or folder.
        file: String,
        /// A tensor that is there.
        first: String,
    },
    /// Weights are needed and there are none.
    #[error(
        "the checkpoint has a configuration but no weights\n  --> {}\nhelp: put model.safetensors, or \
         model.safetensors.index.json and its shards, beside config.json; `nemoc synth` makes random ones", dir.display()
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// A tensor was asked for that does not exist: a bug of the caller, or a calibration tensor of another model.
    #[error(
        "there is no tensor of this name\n  --> {file}: {tensor}\nhelp: `nemoc analyze` lists the tensors of a checkpoint"
    )]
    NoSuchTensor {
        /// The file or folder.
        file: String,
        /// The name.
        tensor: String,
    },
}
