//! A checkpoint together with what calibration measured on it, as one source of tensors.

use super::error::WeightError;
use super::klt::klt;
use ir::statistics::{Statistics, absmax_tensor};
use ir::weights::{FloatType, TensorSource};
use std::collections::BTreeMap;

/// Adds the largest absolute values of statistics, under [`absmax_tensor`], and rotations that follow the data, under
/// `rotation.NAME`, to the tensors of a checkpoint.
pub struct Calibrated<'a> {
    checkpoint: &'a dyn TensorSource,
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl<'a> Calibrated<'a> {
    /// The tensors of both; the checkpoint's win.
    pub fn new(checkpoint: &'a dyn TensorSource, statistics: &Statistics) -> Self {
        let vectors = statistics.inputs.iter().map(|(name, input)| {
            let shape = vec![input.absmax.len()];
            (absmax_tensor(name), (shape, bytes(&input.absmax)))
        });
        Calibrated { checkpoint, tensors: vectors.collect() }
    }

    /// With the rotations of kind klt for every covariance of the statistics.
    ///
    /// # Errors
    /// When a covariance has no eigenvectors.
    pub fn with_klt(mut self, statistics: &Statistics, seed: u64) -> Result<Self, WeightError> {
        for (name, covariance) in &statistics.covariances {
            let size = covariance.len().isqrt();
            let matrix = klt(name, covariance, seed)?;
            self.tensors.insert(format!("rotation.{name}"), (vec![size, size], bytes(&matrix)));
        }
        Ok(self)
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

impl TensorSource for Calibrated<'_> {
    fn describe(&self, name: &str) -> Option<(Vec<usize>, FloatType)> {
        let measured = || Some((self.tensors.get(name)?.0.clone(), FloatType::F32));
        self.checkpoint.describe(name).or_else(measured)
    }

    fn bytes(&self, name: &str) -> Result<&[u8], Box<dyn std::error::Error + Send + Sync>> {
        match self.tensors.get(name) {
            Some((_, bytes)) if self.checkpoint.describe(name).is_none() => Ok(bytes),
            _ => self.checkpoint.bytes(name),
        }
    }

    fn release(&self, name: &str, bytes: std::ops::Range<usize>) {
        if self.checkpoint.describe(name).is_some() {
            self.checkpoint.release(name, bytes);
        }
    }
}
