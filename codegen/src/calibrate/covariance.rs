use super::statistics::Steps;
use super::{BLOCK_TOKENS, CalibrateError, Machine, Run};
use crate::plan::Compiled;
use crate::weights::PackedWeights;
use ir::weights::TensorSource;
use rayon::prelude::*;
use runtime::plan::{Activation, BufferId, Kernel, Launch};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Runs a float model over sequences and measures covariances, by the name of the rotation that they are for: of the
/// residual stream as the norms see it, each token divided by its root mean square, over all norms (`residual`), and of
/// the outputs of attention over all heads (`layers.N.v`). Means are not subtracted, for rounding does not either.
///
/// The products of a step are summed in f32, steps and norms in f64: beside the buffers of a step of `step_tokens` that takes 12
/// bytes for each of `hidden_size^2` entries, 192 MiB at 4096. `progress` is called with the launches done and the
/// launches there are.
///
/// # Errors
/// When the model cannot be run or its activations are not finite.
pub fn collect_covariances(
    machine: Machine<'_>,
    compiled: &Compiled,
    source: &dyn TensorSource,
    sequences: &[&[u32]],
    step_tokens: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<BTreeMap<String, Vec<f32>>, CalibrateError> {
    let mut sums = BTreeMap::new();
    let text = Steps { machine, sequences, step_tokens };
    text.run(compiled, source, progress, &mut |run, progress| measure_step(machine, run, &mut sums, progress))?;
    sums.into_iter().map(|(name, sum)| sum.mean(&name).map(|mean| (name, mean))).collect()
}

/// Runs the launches of a step up to the last one, the head, whose logits are of no use.
fn measure_step(
    machine: Machine<'_>,
    run: &mut Run<'_>,
    sums: &mut BTreeMap<String, Sum>,
    progress: &mut dyn FnMut(usize),
) -> Result<(), CalibrateError> {
    let total = run.launches.plan().launches.len();
    while let Some(launch) = run.next().filter(|_| run.launches.next() + 1 < total) {
        run.advance(&PackedWeights::new())?;
        progress(run.launches.next());
        if let Some((name, rows)) = rotated(launch) {
            let (values, [_, cols]) = (run.launches.floats(rows.buffer)?, run.launches.shape(rows.buffer));
            sums.entry(name).or_default().add(machine, &values, rows.size.unwrap_or(cols), rows.normalizes)?;
        }
    }
    Ok(())
}

/// Vectors that a rotation rotates.
struct Vectors {
    buffer: BufferId,
    /// Their length; that of a row when absent.
    size: Option<usize>,
    normalizes: bool,
}

/// What a launch leaves of the vectors of a rotation, and its name.
fn rotated(launch: &Launch) -> Option<(String, Vectors)> {
    match &launch.kernel {
        Kernel::RmsNorm { x, .. } => {
            Some(("residual".to_owned(), Vectors { buffer: *x, size: None, normalizes: true }))
        }
        Kernel::Attention { head_dim, emit, .. } => {
            let Activation::Float { data } = emit.to else { return None };
            // `layers.3` of `layers.3.mixer.attention`.
            let layer = launch.origin.split(".mixer").next()?;
            Some((format!("{layer}.v"), Vectors { buffer: data, size: Some(*head_dim), normalizes: false }))
        }
        _ => None,
    }
}

/// A sum of products of vectors.
#[derive(Default)]
struct Sum {
    products: Vec<f64>,
    vectors: usize,
}

impl Sum {
    fn add(
        &mut self,
        machine: Machine<'_>,
        values: &[f32],
        size: usize,
        normalizes: bool,
    ) -> Result<(), CalibrateError> {
        let blocks = values.chunks(BLOCK_TOKENS * size);
        let block = |block| if normalizes { Cow::Owned(normalized(block, size)) } else { Cow::Borrowed(block) };
        let mean = machine.mean_products(blocks.map(block), size)?;
        let vectors = values.len() / size;
        self.products.resize(mean.len(), 0.0);
        self.products.iter_mut().zip(mean).for_each(|(sum, mean)| *sum += vectors as f64 * f64::from(mean));
        self.vectors += vectors;
        Ok(())
    }

    fn mean(self, name: &str) -> Result<Vec<f32>, CalibrateError> {
        let mean: Vec<f32> = self.products.iter().map(|sum| (sum / self.vectors.max(1) as f64) as f32).collect();
        if mean.iter().all(|value| value.is_finite()) {
            Ok(mean)
        } else {
            Err(CalibrateError::NotFinite { weight: format!("the rotation {name}") })
        }
    }
}

/// Rows of mean square 1; a row of zeros stays.
fn normalized(values: &[f32], size: usize) -> Vec<f32> {
    let mut out = values.to_vec();
    out.par_chunks_mut(size).for_each(|row| {
        let mean = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / size as f64;
        if mean > 0.0 {
            row.iter_mut().for_each(|value| *value = (f64::from(*value) / mean.sqrt()) as f32);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_counts_alike_however_they_are_cut() {
        let mut sum = Sum::default();
        sum.add(Machine::Cpu, &[3.0, 4.0, -30.0, -40.0], 2, true).unwrap();
        sum.add(Machine::Cpu, &[0.0, 7.0], 2, true).unwrap();
        let found = sum.mean("r").unwrap();
        // (3, 4) has the mean square 12.5; a third of the weight is that of (0, sqrt 2).
        let expected = [12.0 / 25.0, 16.0 / 25.0, 16.0 / 25.0, 64.0 / 75.0 + 2.0 / 3.0];
        assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{found:?}");
    }

    #[test]
    fn heads_are_vectors_of_their_own() {
        let mut sum = Sum::default();
        sum.add(Machine::Cpu, &[1.0, 2.0, 3.0, 4.0], 2, false).unwrap();
        assert_eq!(sum.mean("v").unwrap(), [5.0, 7.0, 7.0, 10.0]);
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        let mut sum = Sum::default();
        sum.add(Machine::Cpu, &[f32::NAN, 1.0], 2, false).unwrap();
        assert!(sum.mean("v").is_err());
    }
}
