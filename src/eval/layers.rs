//! Where in the model the error comes from: the residual stream before each layer, against a baseline. A stream that the
//! artifact's recipe rotates is rotated back first.

use crate::failure::Failure;
use codegen::weights::Orthogonal;
use ir::weights::{FloatType, Rotation, TensorSource};
use passes::Recipe;
use runtime::artifact::Artifact;
use runtime::cpu;
use runtime::device::{Device, DeviceError, LaunchByLaunch, Observer, Outputs, SequenceChunk, step_observed};
use runtime::plan::{Kernel, Launch};

/// Tokens looked at.
const TOKENS: usize = 256;
/// More than this before the first layer means that the two streams do not have the same basis.
const SAME_BASIS: f64 = 0.5;

/// Relative error before each norm that reads the residual stream, on the first tokens of a text; empty when the two
/// models have different norms, or keep the stream in a basis that is not known.
///
/// Runs on the CPU, where a step can be looked into.
pub fn errors(reference: &Artifact, model: &Artifact, tokens: &[u32]) -> Result<Vec<f64>, Failure> {
    let tokens = &tokens[..TOKENS.min(tokens.len())];
    if tokens.is_empty() || reference.plan().model.vocab_size != model.plan().model.vocab_size {
        return Ok(Vec::new());
    }
    let expected = residuals(reference, tokens)?;
    let found = residuals(model, tokens)?;
    if expected.len() != found.len() {
        return Ok(Vec::new());
    }
    let errors: Vec<f64> =
        expected.iter().zip(&found).map(|(expected, found)| relative_error(expected, found)).collect();
    let comparable =
        errors.first().is_some_and(|first| *first < SAME_BASIS) && errors.iter().all(|error| error.is_finite());
    Ok(if comparable { errors } else { Vec::new() })
}

fn residuals(artifact: &Artifact, tokens: &[u32]) -> Result<Vec<Vec<f32>>, Failure> {
    let mut device = cpu::Device::new(artifact.plan(), artifact, &cpu::Options::default())?;
    let slot = device.create_slot()?;
    let mut recorder = Recorder::default();
    // The final norm may come before or after the selection of rows: all are selected.
    step_observed(&mut device, &[SequenceChunk { slot, tokens, outputs: Outputs::All }], &mut recorder)?;
    if let Some(rotation) = rotation(artifact) {
        recorder.residuals.iter_mut().for_each(|residual| rotation.rotate_rows(residual, true));
    }
    Ok(recorder.residuals)
}

/// The rotation of the residual stream that the recipe of an artifact asks for.
fn rotation(artifact: &Artifact) -> Option<Orthogonal> {
    let rotations = Recipe::parse(artifact.recipe(), "the recipe of the artifact").ok()?.rotation;
    let kind = rotations.kind.filter(|_| rotations.residual)?;
    let (name, size) = ("residual".to_owned(), artifact.plan().model.hidden_size);
    Orthogonal::new(&Rotation { name, kind, size, seed: rotations.seed }, &NoTensors).ok()
}

/// For rotations that are not made of tensors.
struct NoTensors;

impl TensorSource for NoTensors {
    fn describe(&self, _name: &str) -> Option<(Vec<usize>, FloatType)> {
        None
    }

    fn bytes(&self, name: &str) -> Result<&[u8], Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("an artifact keeps no tensor {name}").into())
    }
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
