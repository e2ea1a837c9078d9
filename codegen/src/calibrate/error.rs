use crate::weights::WeightError;
use runtime::device::DeviceError;

/// Why a model could not be calibrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// The text is too short.
    #[error(
        "the calibration text has {tokens} tokens, {samples} samples of {length} need {}\n\
         help: give a longer text, or fewer or shorter samples",
        samples * length
    )]
    TextTooShort {
        /// Of the text.
        tokens: usize,
        /// Wanted.
        samples: usize,
        /// Tokens of each.
        length: usize,
    },
    /// Nothing to look at.
    #[error("calibration with {samples} samples of {length} tokens sees nothing\nhelp: both must be at least 1")]
    Empty {
        /// Wanted.
        samples: usize,
        /// Tokens of each.
        length: usize,
    },
    /// Activations that are not numbers.
    #[error(
        "the inputs of `{weight}` are not finite on the calibration text\n\
         help: the checkpoint is damaged, or it overflows; does `nemoc run` give text with phase 0?"
    )]
    NotFinite {
        /// The linear.
        weight: String,
    },
    /// The two plans are not of the same model.
    #[error(
        "`{weight}` has other inputs in the float model than in the quantized one ({found}, expected {expected})\n\
         help: this is a bug in nemoc, please report it"
    )]
    Different {
        /// The linear.
        weight: String,
        /// Of the quantized plan.
        expected: String,
        /// Of the float plan.
        found: String,
    },
    /// A launch names a tensor that the plan does not have.
    #[error("a launch reads `{name}`, which the plan does not store\nhelp: this is a bug in nemoc, please report it")]
    UnknownTensor {
        /// Its name.
        name: String,
    },
    /// A weight cannot be evaluated.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// The buffers of the models and the sums do not fit.
    #[error(
        "{bytes} bytes for {what} could not be allocated\nhelp: calibrate on fewer samples; or on the CPU (`--device cpu`), if it has more memory than the GPU"
    )]
    OutOfMemory {
        /// What they were for.
        what: String,
        /// How many.
        bytes: u64,
    },
    /// The model cannot be run.
    #[error(transparent)]
    Device(DeviceError),
}

impl From<DeviceError> for CalibrateError {
    fn from(error: DeviceError) -> CalibrateError {
        match error {
            DeviceError::OutOfMemory { what, bytes } => CalibrateError::OutOfMemory { what, bytes },
            error => CalibrateError::Device(error),
        }
    }
}
