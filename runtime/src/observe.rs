//! What calibration asks of a device, beside running launches: how large activations are, and sums of their products.

use crate::device::{Outputs, SequenceChunk, SlotId};
use crate::plan::{Activation, BufferId};

/// Of each sequence, every so many tokens: those that get logits.
pub(crate) fn every(sequences: &[&[u32]], stride: usize) -> Vec<Vec<u32>> {
    let stride = stride.max(1);
    let rows = |tokens: &&[u32]| (0..tokens.len() as u32).skip(stride - 1).step_by(stride).collect();
    sequences.iter().map(rows).collect()
}

/// The chunks of a step in which sequences without tokens have ended.
pub(crate) fn going_on<'a>(
    slots: &[SlotId],
    sequences: &'a [&'a [u32]],
    outputs: &'a [Vec<u32>],
) -> Vec<SequenceChunk<'a>> {
    let chunk = |((slot, tokens), rows): ((&SlotId, &&'a [u32]), &'a Vec<u32>)| SequenceChunk {
        slot: *slot,
        tokens,
        outputs: Outputs::Rows(rows),
    };
    slots.iter().zip(sequences).zip(outputs).map(chunk).filter(|chunk| !chunk.tokens.is_empty()).collect()
}

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
