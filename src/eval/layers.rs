//! Where in the model the error comes from: the residual stream before each layer, against a baseline. A stream that a
//! recipe rotates is rotated back first.

use super::basis::{self, Turn};
use crate::failure::Failure;
use runtime::artifact::Artifact;
use runtime::cpu;
use runtime::device::{Device, DeviceError, LaunchByLaunch, Observer, Outputs, SequenceChunk, step_observed};
use runtime::plan::{Kernel, Launch};

/// Tokens looked at.
const TOKENS: usize = 256;
/// More than this before the first layer means that the two streams do not have the same basis.
const SAME_BASIS: f64 = 0.5;

/// The residual stream of a baseline, computed once for a text.
pub struct Streams<'a> {
    artifact: &'a Artifact,
    tokens: Vec<u32>,
    residuals: Vec<Vec<f32>>,
}

impl<'a> Streams<'a> {
    pub fn new(artifact: &'a Artifact) -> Streams<'a> {
        Streams { artifact, tokens: Vec::new(), residuals: Vec::new() }
    }

    /// Relative error before each norm that reads the residual stream, on the first tokens of a text; empty when the two
    /// models have different norms, or keep the stream in a basis that is not known.
    ///
    /// Runs on the CPU, where a step can be looked into.
    pub fn errors(&mut self, model: &Artifact, tokens: &[u32]) -> Result<Vec<f64>, Failure> {
        let tokens = &tokens[..TOKENS.min(tokens.len())];
        if tokens.is_empty() || shape(self.artifact) != shape(model) {
            return Ok(Vec::new());
        }
        let Some([of_reference, of_model]) = basis::turns(self.artifact, model) else { return Ok(Vec::new()) };
        let expected = turned(self.residuals(tokens)?.to_vec(), &of_reference);
        let found = turned(residuals(model, tokens)?, &of_model);
        if expected.len() != found.len() {
            return Ok(Vec::new());
        }
        let errors: Vec<f64> =
            expected.iter().zip(&found).map(|(expected, found)| relative_error(expected, found)).collect();
        let comparable =
            errors.first().is_some_and(|first| *first < SAME_BASIS) && errors.iter().all(|error| error.is_finite());
        Ok(if comparable { errors } else { Vec::new() })
    }

    fn residuals(&mut self, tokens: &[u32]) -> Result<&[Vec<f32>], Failure> {
        if self.tokens != tokens {
            self.residuals = residuals(self.artifact, tokens)?;
            self.tokens = tokens.to_vec();
        }
        Ok(&self.residuals)
    }
}

fn shape(artifact: &Artifact) -> (usize, usize) {
    (artifact.plan().model.vocab_size, artifact.plan().model.hidden_size)
}

fn residuals(artifact: &Artifact, tokens: &[u32]) -> Result<Vec<Vec<f32>>, Failure> {
    let mut device = cpu::Device::new(artifact.plan(), artifact, &cpu::Options::default())?;
    let slot = device.create_slot()?;
    let mut recorder = Recorder::default();
    // The final norm may come before or after the selection of rows: all are selected.
    step_observed(&mut device, &[SequenceChunk { slot, tokens, outputs: Outputs::All }], &mut recorder)?;
    Ok(recorder.residuals)
}

fn turned(mut residuals: Vec<Vec<f32>>, turn: &Turn) -> Vec<Vec<f32>> {
    residuals.iter_mut().for_each(|residual| turn.apply(residual));
    residuals
}

#[derive(Default)]
struct Recorder {
    residuals: Vec<Vec<f32>>,
}

impl Observer for Recorder {
    fn after(&mut self, _index: usize, launch: &Launch, device: &dyn LaunchByLaunch) -> Result<(), DeviceError> {
        if let Kernel::RmsNorm { x, .. } = &launch.kernel {
            self.residuals.push(device.read_floats(*x)?.into_owned());
        }
        Ok(())
    }
}

fn relative_error(expected: &[f32], found: &[f32]) -> f64 {
    if expected.len() != found.len() {
        return f64::NAN;
    }
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let difference = squares(&mut expected.iter().zip(found).map(|(a, b)| f64::from(a - b)));
    let norm = squares(&mut expected.iter().map(|value| f64::from(*value)));
    (difference / norm).sqrt()
}
