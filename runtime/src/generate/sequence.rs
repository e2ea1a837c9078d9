use super::{GenerateError, Sampler, Sampling};
use crate::device::{Device, DeviceError, Logits, Outputs, SequenceChunk, SlotId};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// At least one token.
    pub prompt: &'a [u32],
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How to choose them.
    pub sampling: Sampling,
    /// Tokens that end the text; they are not part of it.
    pub stop_tokens: &'a [u32],
    /// Prompt tokens a step; `None` takes as many as the device has room for.
    pub chunk: Option<usize>,
    /// Ends the text before the next step once it is set.
    pub interrupted: Option<&'a AtomicBool>,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model chose this stop token.
    Stop(u32),
    /// [`Request::max_tokens`] were generated.
    Length,
    /// The sequence reached [`crate::device::Limits::context`].
    ContextFull,
    /// The callback or [`Request::interrupted`] asked for it.
    Interrupted,
}

/// What was generated.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub finish: Finish,
    /// Time until the first token was known.
    pub prefill: Duration,
    /// Time of the other tokens.
    pub decode: Duration,
}

impl Generation {
    /// Tokens a second after the first.
    pub fn decode_speed(&self) -> f64 {
        self.tokens.len().saturating_sub(1) as f64 / self.decode.as_secs_f64().max(1e-9)
    }
}

/// Feeds a prompt in chunks; returns the logits of its last token.
pub fn prefill<'d>(
    device: &'d mut dyn Device,
    slot: SlotId,
    tokens: &[u32],
    chunk: Option<usize>,
) -> Result<Logits<'d>, GenerateError> {
    let last = feed(device, slot, tokens, chunk, &|| false)?.unwrap_or_default();
    Ok(device.step(&[SequenceChunk { slot, tokens: last, outputs: Outputs::Last }])?)
}

/// Feeds all chunks but the last, which is returned; `None` if it was stopped before.
fn feed<'t>(
    device: &mut dyn Device,
    slot: SlotId,
    tokens: &'t [u32],
    chunk: Option<usize>,
    stop: &dyn Fn() -> bool,
) -> Result<Option<&'t [u32]>, GenerateError> {
    check_context(device, slot, tokens.len())?;
    let size = chunk.unwrap_or(usize::MAX).clamp(1, device.limits().step_rows.max(1));
    let last = tokens.len().saturating_sub(1) / size * size;
    for tokens in tokens[..last].chunks(size) {
        if stop() {
            return Ok(None);
        }
        device.step(&[SequenceChunk { slot, tokens, outputs: Outputs::None }])?;
    }
    Ok((!stop()).then_some(&tokens[last..]))
}

/// Refuses a prompt that cannot fit before any of it is computed.
fn check_context(device: &dyn Device, slot: SlotId, tokens: usize) -> Result<(), GenerateError> {
    let needed = device.position(slot)? + tokens;
    match device.limits().context {
        Some(available) if needed > available => {
            let token_bytes = device.plan().kv_token_bytes();
            Err(GenerateError::Device(DeviceError::ContextFull {
                needed,
                available,
                needed_bytes: token_bytes * needed as u64,
                available_bytes: token_bytes * available as u64,
            }))
        }
        _ => Ok(()),
    }
}

/// Continues a prompt in a slot of its own. `on_token` sees every token as it is chosen and may end the text.
pub fn generate(
    device: &mut dyn Device,
    request: &Request<'_>,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, GenerateError> {
    if request.prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    let slot = device.create_slot()?;
    let generation = generate_in(device, slot, request, on_token);
    device.release_slot(slot)?;
    generation
}

fn generate_in(
    device: &mut dyn Device,
    slot: SlotId,
    request: &Request<'_>,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, GenerateError> {
    let mut sampler = Sampler::new(request.sampling, device.plan().model.vocab_size)?;
    request.prompt.iter().for_each(|token| sampler.observe(*token));
    let stop = || request.interrupted.is_some_and(|flag| flag.load(Ordering::Relaxed));
    let start = Instant::now();
    let Some(last) = feed(device, slot, request.prompt, request.chunk, &stop)? else {
        let (tokens, prefill, decode) = (Vec::new(), start.elapsed(), Duration::ZERO);
        return Ok(Generation { tokens, finish: Finish::Interrupted, prefill, decode });
    };
    let mut token = choose(device, slot, last, &mut sampler)?;
    let prefill = start.elapsed();
    let start = Instant::now();
    let mut tokens = Vec::new();
    let finish = loop {
        if request.stop_tokens.contains(&token) {
            break Finish::Stop(token);
        }
        if tokens.len() == request.max_tokens {
            break Finish::Length;
        }
        tokens.push(token);
        sampler.observe(token);
        if on_token(token).is_break() || stop() {
            break Finish::Interrupted;
        }
        if tokens.len() == request.max_tokens {
            break Finish::Length;
        }
        match choose(device, slot, &[token], &mut sampler) {
            Ok(next) => token = next,
            Err(DeviceError::ContextFull { .. }) => break Finish::ContextFull,
            Err(error) => return Err(error.into()),
        }
    };
    Ok(Generation { tokens, finish, prefill, decode: start.elapsed() })
}

/// Takes a step and chooses the token after it. Logits leave the device only where more than the largest matters.
fn choose(device: &mut dyn Device, slot: SlotId, tokens: &[u32], sampler: &mut Sampler) -> Result<u32, DeviceError> {
    let batch = [SequenceChunk { slot, tokens, outputs: Outputs::Last }];
    if sampler.takes_the_likeliest() {
        return Ok(device.step_greedy(&batch)?[0]);
    }
    Ok(sampler.sample(device.step(&batch)?.row(0)))
}
