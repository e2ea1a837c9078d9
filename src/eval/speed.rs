//! How fast one sequence goes.

use crate::failure::Failure;
use crate::report::data::Speed;
use runtime::device::{Device, Outputs, SequenceChunk};
use std::time::Instant;

const PREFILL: usize = 512;
const DECODE: usize = 64;

/// A prompt of made-up tokens in one step, then a token a step.
pub fn measure(device: &mut dyn Device) -> Result<Speed, Failure> {
    let prefill_tokens = PREFILL.min(device.limits().step_rows);
    let vocab_size = device.plan().model.vocab_size as u32;
    let prompt: Vec<u32> = (0..prefill_tokens as u32).map(|index| index * 31 % vocab_size).collect();
    let slot = device.create_slot()?;
    // Once without looking at the clock: pages are touched and buffers grown.
    for _ in 0..2 {
        device.reset_slot(slot)?;
        device.step(&[SequenceChunk { slot, tokens: &prompt, outputs: Outputs::Last }])?;
    }
    device.reset_slot(slot)?;
    let started = Instant::now();
    device.step(&[SequenceChunk { slot, tokens: &prompt, outputs: Outputs::Last }])?;
    let prefill = started.elapsed();
    let started = Instant::now();
    for token in &prompt[..DECODE.min(prompt.len())] {
        device.step(&[SequenceChunk { slot, tokens: &[*token], outputs: Outputs::Last }])?;
    }
    let decode = started.elapsed();
    device.release_slot(slot)?;
    let cost =
        |launch: &runtime::plan::Launch| launch.cost.fixed_bytes + launch.cost.row_bytes + launch.cost.sequence_bytes;
    let decode_tokens = DECODE.min(prefill_tokens);
    Ok(Speed {
        prefill_tokens,
        prefill_tokens_per_second: prefill_tokens as f64 / prefill.as_secs_f64(),
        decode_tokens,
        decode_tokens_per_second: decode_tokens as f64 / decode.as_secs_f64(),
        decode_bytes: device.plan().launches.iter().map(cost).sum(),
    })
}
