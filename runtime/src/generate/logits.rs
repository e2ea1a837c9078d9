use super::GenerateError;
use crate::device::{Device, Outputs, SequenceChunk};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::path::Path;

/// Logits of every token of a sequence, f32 `[tokens, vocab_size]`; `chunk` tokens a step.
pub fn logits(device: &mut dyn Device, tokens: &[u32], chunk: Option<usize>) -> Result<Vec<f32>, GenerateError> {
    if tokens.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    let size = chunk.unwrap_or(usize::MAX).clamp(1, device.limits().step_rows.max(1));
    let slot = device.create_slot()?;
    let mut all = Vec::with_capacity(tokens.len() * device.plan().model.vocab_size);
    let mut run = || -> Result<(), GenerateError> {
        for tokens in tokens.chunks(size) {
            let outputs = Outputs::All;
            let step = device.step(&[SequenceChunk { slot, tokens, outputs }])?;
            all.extend_from_slice(step.values);
        }
        Ok(())
    };
    let result = run();
    device.release_slot(slot)?;
    result.map(|()| all)
}

/// Writes logits as the f32 tensor `logits` `[tokens, vocab_size]` of a safetensors file.
///
/// The file appears under its name only when it is complete.
pub fn write_logits(path: &Path, logits: &[f32], vocab_size: usize) -> Result<(), GenerateError> {
    let failed = |source| GenerateError::File { path: path.display().to_string(), source };
    let bytes: &[u8] = bytemuck::cast_slice(logits);
    let shape = vec![logits.len() / vocab_size.max(1), vocab_size];
    let view = TensorView::new(Dtype::F32, shape, bytes).map_err(|error| failed(std::io::Error::other(error)))?;
    let partial = path.with_added_extension("partial");
    let written = safetensors::serialize_to_file([("logits", view)], None::<HashMap<_, _>>, &partial)
        .map_err(std::io::Error::other)
        .and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|error| {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&partial);
        failed(error)
    })
}
