//! A text in windows, run through models side by side.
//!
//! The ids of the whole text are cut into windows of equal length; what the tokenizer puts before a text (one BOS) is
//! at the start of the first window only.

use crate::device::{Device, DeviceError, Outputs, SequenceChunk, SlotId};
use crate::generate::GenerateError;

/// How a text is cut.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Tokens of a window.
    pub size: usize,
    /// Most windows; `None` takes all whole ones.
    pub count: Option<usize>,
    /// Windows computed together.
    pub batch: usize,
}

impl Default for Windows {
    fn default() -> Windows {
        Windows { size: 1024, count: None, batch: 1 }
    }
}

/// What predicts the tokens of windows.
pub(super) trait Predictor {
    /// Entries of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Most tokens of a step.
    fn step_rows(&self) -> usize;

    /// Starts windows of equal length, side by side, that will come in steps of `chunk` tokens of each. `group` counts how
    /// often it was called for this text.
    fn begin(&mut self, group: usize, windows: &[&[u32]], chunk: usize) -> Result<(), DeviceError>;

    /// Puts the logits of the next tokens of every window in place of others.
    fn step(&mut self, tokens: &[&[u32]], logits: &mut Vec<f32>) -> Result<(), DeviceError>;

    /// Behind the last step of these windows.
    fn end(&mut self) -> Result<(), DeviceError>;
}

/// A device that runs every window from a fresh state.
pub(super) struct Fresh<'d> {
    device: &'d mut dyn Device,
    slots: Vec<SlotId>,
}

impl<'d> Fresh<'d> {
    pub(super) fn new(device: &'d mut dyn Device) -> Fresh<'d> {
        Fresh { device, slots: Vec::new() }
    }
}

impl Predictor for Fresh<'_> {
    fn vocab_size(&self) -> usize {
        self.device.plan().model.vocab_size
    }

    fn step_rows(&self) -> usize {
        self.device.limits().step_rows
    }

    fn begin(&mut self, _group: usize, windows: &[&[u32]], _chunk: usize) -> Result<(), DeviceError> {
        self.slots = windows.iter().map(|_| self.device.create_slot()).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn step(&mut self, tokens: &[&[u32]], logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        let slots = self.slots.iter().zip(tokens);
        let chunks = slots.map(|(slot, tokens)| SequenceChunk { slot: *slot, tokens, outputs: Outputs::All });
        let step = self.device.step(&chunks.collect::<Vec<_>>())?;
        logits.clear();
        logits.extend_from_slice(step.values);
        Ok(())
    }

    fn end(&mut self) -> Result<(), DeviceError> {
        self.slots.drain(..).try_for_each(|slot| self.device.release_slot(slot))
    }
}

/// The logits of one step of every model, and the token that each row should predict.
pub(super) struct Steps {
    logits: Vec<Vec<f32>>,
    pub(super) targets: Vec<Option<u32>>,
    /// Of each row in its window.
    pub(super) positions: Vec<usize>,
    vocab_size: usize,
}

impl Steps {
    pub(super) fn row(&self, model: usize, row: usize) -> &[f32] {
        &self.logits[model][row * self.vocab_size..][..self.vocab_size]
    }
}

/// Runs all windows through all models, step by step. Returns the number of windows.
pub(super) fn each_step(
    models: &mut [&mut dyn Predictor],
    tokens: &[u32],
    windows: &Windows,
    progress: &mut dyn FnMut(usize, usize),
    visit: &mut dyn FnMut(&Steps),
) -> Result<usize, GenerateError> {
    let size = windows.size.max(2);
    let count = (tokens.len() / size).min(windows.count.unwrap_or(usize::MAX));
    if count == 0 {
        return Err(GenerateError::TextTooShort { tokens: tokens.len(), window: size });
    }
    let step_rows = models.iter().map(|model| model.step_rows()).min().unwrap_or(1);
    let batch = windows.batch.clamp(1, count).min(step_rows.max(1));
    let texts: Vec<&[u32]> = tokens.chunks_exact(size).take(count).collect();
    let mut done = 0;
    progress(done, count);
    for (group, texts) in texts.chunks(batch).enumerate() {
        let chunk = (step_rows / texts.len()).max(1);
        models.iter_mut().try_for_each(|model| model.begin(group, texts, chunk))?;
        each_step_of(models, texts, chunk, visit)?;
        models.iter_mut().try_for_each(|model| model.end())?;
        done += texts.len();
        progress(done, count);
    }
    Ok(count)
}

/// Runs windows of equal length side by side, `chunk` tokens of each a step.
fn each_step_of(
    models: &mut [&mut dyn Predictor],
    texts: &[&[u32]],
    chunk: usize,
    visit: &mut dyn FnMut(&Steps),
) -> Result<(), GenerateError> {
    let mut steps = Steps {
        logits: vec![Vec::new(); models.len()],
        targets: Vec::new(),
        positions: Vec::new(),
        vocab_size: models[0].vocab_size(),
    };
    for start in (0..texts[0].len()).step_by(chunk) {
        let end = texts[0].len().min(start + chunk);
        let tokens: Vec<&[u32]> = texts.iter().map(|text| &text[start..end]).collect();
        for (model, logits) in models.iter_mut().zip(&mut steps.logits) {
            model.step(&tokens, logits)?;
        }
        steps.targets.clear();
        steps.targets.extend(texts.iter().flat_map(|text| (start..end).map(|i| text.get(i + 1).copied())));
        steps.positions.clear();
        steps.positions.extend(texts.iter().flat_map(|_| start..end));
        visit(&steps);
    }
    Ok(())
}
