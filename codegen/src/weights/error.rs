use crate::writer::WriteError;
use runtime::artifact::LayoutError;

/// Why weights could not be materialized. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// A tensor that no file holds.
    #[error(
        "tensor `{tensor}` is missing, `{weight}` is made of it\n\
         help: is the checkpoint complete? every file that its index names must be there"
    )]
    MissingTensor {
        /// What is made of it.
        weight: String,
        /// Its name in the checkpoint or calibration file.
        tensor: String,
    },
    /// A tensor that is not what config.json made the compiler expect.
    #[error(
        "tensor `{tensor}` is {found}, expected {expected}\n\
         help: is config.json that of another model?"
    )]
    TensorMismatch {
        /// Its name in the checkpoint or calibration file.
        tensor: String,
        /// Type and shape it should have.
        expected: String,
        /// Type and shape it has.
        found: String,
    },
    /// The bytes of a tensor cannot be had.
    #[error("cannot read tensor `{tensor}`: {source}\nhelp: is the checkpoint complete and readable?")]
    Source {
        /// Its name in the checkpoint or calibration file.
        tensor: String,
        /// What the source said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An expression whose parts do not fit together.
    #[error("`{weight}` {problem}\nhelp: this is a bug in a pass or in hand-written IR")]
    Invalid {
        /// The weight.
        weight: String,
        /// What does not fit.
        problem: String,
    },
    /// A value that cannot be quantized.
    #[error(
        "row {row} of `{weight}` holds NaN, infinite or absurdly large values\n\
         help: the checkpoint is damaged, or a scale of the calibration file is zero"
    )]
    NotFinite {
        /// The weight.
        weight: String,
        /// The first such row of it.
        row: usize,
    },
    /// A calibration matrix that is no rotation.
    #[error(
        "`{tensor}` is not orthogonal: row {row} is off by {error:e}\n\
         help: make the calibration file again"
    )]
    NotOrthogonal {
        /// Its name in the calibration file.
        tensor: String,
        /// The worst row.
        row: usize,
        /// How far its products with itself and its neighbor are from those of an orthogonal matrix.
        error: f32,
    },
    /// A rounding that needs more than the weight.
    #[error(
        "rounding `{weight}` by {rounding} needs calibration statistics\n\
         help: pass --calibration, or round to nearest with rounding = \"rtn\" in the recipe"
    )]
    NeedsCalibration {
        /// The weight.
        weight: String,
        /// The method.
        rounding: &'static str,
    },
    /// The tensors do not fit an artifact.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The plan cannot be written as JSON.
    #[error("the launch plan cannot be written as JSON: {0}\nhelp: this is a bug in nemoc, please report it")]
    Plan(#[from] serde_json::Error),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl WeightError {
    pub(crate) fn invalid(weight: &str, problem: impl Into<String>) -> Self {
        WeightError::Invalid { weight: weight.into(), problem: problem.into() }
    }
}
