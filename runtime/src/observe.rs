//! What calibration asks of a device, beside running launches: how large activations are, and sums of their products.

use crate::plan::{Activation, BufferId};

/// How large the channels of a buffer are.
#[derive(Clone, Debug, PartialEq)]
pub struct Channels {
    /// Largest magnitude of each.
    pub absmax: Vec<f32>,
    /// Sum of squares of each, over the rows.
    pub squares: Vec<f64>,
}

impl Channels {
    /// Of no rows yet.
    pub fn new(cols: usize) -> Channels {
        Channels { absmax: vec![0.0; cols], squares: vec![0.0; cols] }
    }
}

/// A linear of a quantized model that is about to run, beside its counterpart in the float model.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'w> {
    /// What the quantized model reads.
    pub x: Activation,
    /// What the float model reads.
    pub exact: BufferId,
    /// Columns of both.
    pub in_features: usize,
    /// For a linear whose result is added to the residual stream.
    pub residual: Option<Residual<'w>>,
}

/// The residual stream in both models, in front of a linear that writes to it.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'w> {
    /// In the float model.
    pub exact: BufferId,
    /// In the quantized model.
    pub found: BufferId,
    /// The weight `[out_features, in_features]`.
    pub weight: &'w [f32],
    /// Columns of the stream.
    pub out_features: usize,
}

/// Means over tokens of what a linear reads, `x`, and of what is missing, `y`: of `exact - x`; where there is a residual
/// stream, of what the weight makes of that and of what the stream lacks.
#[derive(Clone, Debug)]
pub struct Sums {
    /// Of `x x^T`, `[in_features, in_features]`.
    pub hessian: Vec<f32>,
    /// Of `y x^T`, `[in_features or out_features, in_features]`.
    pub cross: Vec<f32>,
    /// Sum of the squares of `exact - x`.
    pub lost: f64,
    /// Sum of the squares of `exact`.
    pub whole: f64,
}
