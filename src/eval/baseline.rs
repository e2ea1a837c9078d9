//! What models are compared with.

use super::layers::Streams;
use runtime::artifact::Artifact;
use runtime::device::Device;
use runtime::eval::Reference;

/// Most bytes of a baseline's logits that are kept for the next model: 128 windows of 1024 tokens of nano.
const KEPT_BYTES: usize = 2 << 30;

/// A baseline, and what was computed of it.
pub struct Baseline<'a> {
    pub phase: String,
    pub reference: Reference<'a>,
    pub streams: Streams<'a>,
}

impl<'a> Baseline<'a> {
    /// `again`: more than one model is compared with it.
    pub fn new(artifact: &'a Artifact, device: &'a mut dyn Device, again: bool) -> Baseline<'a> {
        Baseline {
            phase: artifact.plan().model.phase.clone(),
            reference: Reference::new(device, if again { KEPT_BYTES } else { 0 }),
            streams: Streams::new(artifact),
        }
    }
}
