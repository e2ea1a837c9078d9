use super::{BLOCK_TOKENS, CalibrateError, Run};
use crate::plan::Compiled;
use crate::weights::PackedWeights;
use ir::statistics::InputStatistics;
use ir::weights::TensorSource;
use runtime::plan::{Activation, Kernel};
use std::collections::BTreeMap;

/// Runs a float model over sequences and measures the inputs of its linears, by the name of the checkpoint tensor.
/// `progress` is called with the launches done and the launches there are.
///
/// # Errors
/// When the model cannot be run or its activations are not finite.
pub fn collect_statistics(
    compiled: &Compiled,
    source: &dyn TensorSource,
    sequences: &[&[u32]],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<BTreeMap<String, InputStatistics>, CalibrateError> {
    let mut run = Run::begin(compiled, source, sequences, 1)?;
    let mut inputs = BTreeMap::new();
    let total = compiled.plan.launches.len();
    while let Some(launch) = run.next() {
        progress(run.launches.next(), total);
        if let Kernel::Linear { x: Activation::Float { data }, segments, .. } = &launch.kernel {
            let measured = measure(run.launches.floats(*data), run.launches.cols(*data));
            for segment in segments {
                let tensor = run.stored.weight(&segment.weight)?.expr.tensor_name();
                if !measured.mean_square.iter().all(|value| value.is_finite()) {
                    return Err(CalibrateError::NotFinite { weight: tensor.to_owned() });
                }
                inputs.insert(tensor.to_owned(), measured.clone());
            }
        }
        let is_last = run.launches.next() + 1 == total;
        if is_last {
            // The head was measured; its logits are of no use.
            break;
        }
        run.advance(&PackedWeights::new())?;
    }
    progress(total, total);
    Ok(inputs)
}

fn measure(values: &[f32], cols: usize) -> InputStatistics {
    let mut absmax = vec![0.0f32; cols];
    let mut sums = vec![0.0f64; cols];
    for block in values.chunks(BLOCK_TOKENS * cols) {
        let mut squares = vec![0.0f32; cols];
        for row in block.chunks_exact(cols) {
            for ((absmax, square), value) in absmax.iter_mut().zip(&mut squares).zip(row) {
                *absmax = absmax.max(value.abs());
                *square += value * value;
            }
        }
        sums.iter_mut().zip(squares).for_each(|(sum, square)| *sum += f64::from(square));
    }
    let rows = (values.len() / cols).max(1) as f64;
    InputStatistics { absmax, mean_square: sums.into_iter().map(|sum| (sum / rows) as f32).collect() }
}

#[cfg(test)]
mod tests {
    use super::measure;

    #[test]
    fn measures_every_channel_by_itself() {
        let measured = measure(&[1.0, -2.0, -3.0, 0.0], 2);
        assert_eq!(measured.absmax, [3.0, 2.0]);
        assert_eq!(measured.mean_square, [5.0, 2.0]);
    }

    #[test]
    fn keeps_what_is_not_a_number_visible() {
        assert!(measure(&[1.0, f32::NAN], 1).mean_square[0].is_nan());
    }
}
