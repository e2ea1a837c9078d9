//! Weight expressions: what a stored weight is, as a function of checkpoint tensors, without reading any.
//!
//! In the IR a weight expression is a chain of ops (`nemo.weight`, `nemo.scale_columns`, `nemo.rotate_weight`, ...);
//! [`WeightExpr`] is the same chain as a Rust value, which code generation evaluates one linear at a time.

use serde::{Deserialize, Serialize};

/// Element type of a checkpoint tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloatType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl FloatType {
    /// Size of one element in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::Bf16 => 2,
        }
    }
}

/// Which family an orthogonal matrix is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotationKind {
    /// Sylvester-Hadamard over `sqrt(n)`; for `n = 2^k * odd`, its Kronecker product with a random orthogonal matrix
    /// of size `odd`.
    Hadamard,
    /// `diag(random signs) * Hadamard`.
    RandomHadamard,
    /// Eigenvectors of the activation covariance, then Hadamard (MambaQuant, "KLT-enhanced"). The matrix is the
    /// calibration tensor `rotation.NAME`, f32 `[size, size]`.
    Klt,
}

/// An orthogonal matrix `R` `[size, size]`, applied to consecutive blocks of `size` columns: `x' = x @ blockdiag(R, ...)`.
///
/// The value `x'` is said to live in the basis [`Rotation::name`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rotation {
    /// Names the basis, for example `residual` or `layers.7.v`.
    pub name: String,
    /// The family.
    pub kind: RotationKind,
    /// Rows and columns of `R`.
    pub size: usize,
    /// Seed of whatever is random in it.
    pub seed: u64,
}

/// Which side of a weight `[out, in]` a rotation acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The input arrives rotated: each row `w` of the weight becomes `w @ R`.
    In,
    /// The output leaves rotated: each column `c` of the weight becomes `c^T @ R`.
    Out,
}

/// How the values of a weight are rounded, and its scales chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// Round to nearest, ties to even; scales of 4-bit weights by the squared error they leave.
    #[default]
    Rtn,
    /// Round to nearest; every scale by the largest value, so that nothing is clipped.
    RtnAbsmax,
    /// Frantar et al. 2023, with the Hessian of the calibration file.
    Gptq,
}

impl Rounding {
    /// Every one.
    pub const ALL: [Rounding; 3] = [Rounding::Rtn, Rounding::RtnAbsmax, Rounding::Gptq];

    /// The word for it in attributes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Rounding::Rtn => "rtn",
            Rounding::RtnAbsmax => "rtn-absmax",
            Rounding::Gptq => "gptq",
        }
    }

    /// The inverse of [`Rounding::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Rounding::ALL.into_iter().find(|rounding| rounding.as_str() == word)
    }

    /// The same, without what only calibration can do.
    #[must_use]
    pub const fn to_nearest(self) -> Self {
        match self {
            Rounding::Gptq => Rounding::Rtn,
            other => other,
        }
    }
}

/// The format a weight is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StorageFormat {
    /// As in the checkpoint.
    Float {
        /// Element type.
        dtype: FloatType,
    },
    /// 8 bits, symmetric, one f32 scale per output channel.
    W8,
    /// 4 bits, symmetric: an f32 scale per output channel times an integer scale per group.
    W4TwoLevel {
        /// Elements along the input that share an integer scale.
        group_size: usize,
    },
    /// 4 bits, symmetric: an f16 scale per group.
    W4Group {
        /// Elements along the input that share a scale.
        group_size: usize,
    },
}

/// A weight as a function of checkpoint tensors. Shapes are `[out_features, in_features]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[allow(missing_docs)] // the fields are those of the op of the same name
pub enum WeightExpr {
    /// A tensor of the checkpoint (or of the calibration file).
    Tensor {
        /// Its full name in the file.
        name: String,
        /// Its shape; `[channels, 1, kernel]` of a convolution counts as `[channels, kernel]`.
        shape: Vec<usize>,
        /// Its element type.
        dtype: FloatType,
    },
    /// `count` rows from `start`.
    SliceRows { base: Box<WeightExpr>, start: usize, count: usize },
    /// Column `j` times `by[j]` (or divided by it).
    ScaleColumns { base: Box<WeightExpr>, by: Box<WeightExpr>, inverse: bool },
    /// Row `i` times `by[i]` (or divided by it).
    ScaleRows { base: Box<WeightExpr>, by: Box<WeightExpr>, inverse: bool },
    /// The largest absolute value in each column or, where that is larger, in `other`.
    ColumnAbsmax { base: Box<WeightExpr>, other: Option<Box<WeightExpr>> },
    /// Factors per channel from the largest activations and weights; see the op.
    SmoothFactors {
        absmax: Box<WeightExpr>,
        columns: Box<WeightExpr>,
        alpha: f64,
        power: f64,
        share: usize,
        block: usize,
        /// Whether each run of equal blocks appears once.
        once: bool,
    },
    /// Blocks of rows or columns times an orthogonal matrix.
    Rotate { base: Box<WeightExpr>, side: Side, rotation: Rotation, transpose: bool },
}

impl WeightExpr {
    /// The checkpoint tensor that the expression starts from; of a pair, the first.
    pub fn tensor_name(&self) -> &str {
        match self {
            WeightExpr::Tensor { name, .. } => name,
            WeightExpr::SliceRows { base, .. }
            | WeightExpr::ScaleColumns { base, .. }
            | WeightExpr::ScaleRows { base, .. }
            | WeightExpr::ColumnAbsmax { base, .. }
            | WeightExpr::SmoothFactors { absmax: base, .. }
            | WeightExpr::Rotate { base, .. } => base.tensor_name(),
        }
    }
}

/// A weight to store: an expression, the format, and the name it gets in the artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredWeight {
    /// Canonical base name, for example `layers.0.mixer.in_proj.z`; the same for every checkpoint naming scheme.
    pub name: String,
    /// What it is.
    pub expr: WeightExpr,
    /// How it is stored.
    pub format: StorageFormat,
    /// How it is rounded.
    pub rounding: Rounding,
}

/// A parameter that is not quantized (norm weight, convolution, per-head constant): stored as f32 under exactly `name`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredParameter {
    /// The tensor's name in the artifact, for example `layers.0.mixer.A_log`.
    pub name: String,
    /// What it is.
    pub expr: WeightExpr,
}

/// Where the bytes of checkpoint tensors come from. `frontend` implements it over memory-mapped safetensors.
pub trait TensorSource: Sync {
    /// Shape and element type of a tensor, `None` when there is no such tensor.
    fn describe(&self, name: &str) -> Option<(Vec<usize>, FloatType)>;

    /// The little-endian bytes of a tensor.
    ///
    /// # Errors
    /// When the tensor is missing or its file cannot be read.
    fn bytes(&self, name: &str) -> Result<&[u8], Box<dyn std::error::Error + Send + Sync>>;

    /// Says that these bytes of a tensor will not be read again soon, so that a memory-mapped source can drop the pages
    /// and compiling stays within bounded memory. Reading them again must still give the same bytes.
    fn release(&self, name: &str, bytes: std::ops::Range<usize>) {
        let _ = (name, bytes);
    }
}
