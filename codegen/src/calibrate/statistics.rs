use super::{CalibrateError, Machine, Run};
use crate::plan::Compiled;
use crate::weights::PackedWeights;
use ir::statistics::InputStatistics;
use ir::weights::TensorSource;
use runtime::observe::Channels;
use runtime::plan::{Activation, Kernel};
use std::collections::BTreeMap;

/// Tokens of a step, unless told otherwise.
pub const STEP_TOKENS: usize = 8192;

/// Runs a float model over sequences and measures the inputs of its linears, by the name of the checkpoint tensor.
/// `progress` is called with the launches done and the launches there are.
///
/// A step takes at most `step_tokens`: as many sequences as fit, or a part of one, whose states are carried to the next
/// step. Memory does not grow with the number of sequences, nor, but for keys and values, with their length.
///
/// # Errors
/// When the model cannot be run or its activations are not finite.
pub fn collect_statistics(
    machine: Machine<'_>,
    compiled: &Compiled,
    source: &dyn TensorSource,
    sequences: &[&[u32]],
    step_tokens: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<BTreeMap<String, InputStatistics>, CalibrateError> {
    let mut inputs: BTreeMap<String, Sums> = BTreeMap::new();
    let text = Steps { machine, sequences, step_tokens };
    text.run(compiled, source, progress, &mut |run, progress| measure_step(run, &mut inputs, progress))?;
    inputs.into_iter().map(|(tensor, sums)| Ok((tensor.clone(), sums.finish(&tensor)?))).collect()
}

/// Sequences that a model goes through, in steps.
pub(super) struct Steps<'s> {
    pub(super) machine: Machine<'s>,
    pub(super) sequences: &'s [&'s [u32]],
    pub(super) step_tokens: usize,
}

/// Runs the launches of a step; is told what to call with the launches done.
type OneStep<'f> = dyn FnMut(&mut Run<'_>, &mut dyn FnMut(usize)) -> Result<(), CalibrateError> + 'f;

impl Steps<'_> {
    pub(super) fn run(
        &self,
        compiled: &Compiled,
        source: &dyn TensorSource,
        progress: &mut dyn FnMut(usize, usize),
        one_step: &mut OneStep<'_>,
    ) -> Result<(), CalibrateError> {
        let longest = self.sequences.iter().map(|tokens| tokens.len()).max().unwrap_or(0).max(1);
        let step_tokens = self.step_tokens.max(1);
        let (groups, steps) = ((step_tokens / longest).max(1), longest.div_ceil(step_tokens));
        let launches = compiled.plan.launches.len();
        let total = self.sequences.len().div_ceil(groups) * steps * launches;
        let mut done = 0;
        for group in self.sequences.chunks(groups) {
            let part = |step: usize| -> Vec<&[u32]> {
                let range = |len: usize| (step * step_tokens).min(len)..((step + 1) * step_tokens).min(len);
                group.iter().map(|tokens| &tokens[range(tokens.len())]).collect()
            };
            let mut run = Run::begin(self.machine, compiled, source, &part(0), 1)?;
            for step in 0..steps {
                if step > 0 {
                    run.launches.go_on(&part(step), 1)?;
                }
                one_step(&mut run, &mut |launch| progress(done + launch, total))?;
                done += launches;
            }
        }
        progress(total, total);
        Ok(())
    }
}

/// Runs the launches of a step up to the last one, the head, whose input is measured and whose logits are of no use.
fn measure_step(
    run: &mut Run<'_>,
    inputs: &mut BTreeMap<String, Sums>,
    progress: &mut dyn FnMut(usize),
) -> Result<(), CalibrateError> {
    while let Some(launch) = run.next() {
        progress(run.launches.next());
        if let Kernel::Linear { x: Activation::Float { data }, segments, .. } = &launch.kernel {
            let [rows, cols] = run.launches.shape(*data);
            let tensors = segments.iter().map(|segment| Ok(run.stored.weight(&segment.weight)?.expr.tensor_name()));
            let mut tensors = tensors.collect::<Result<Vec<_>, CalibrateError>>()?;
            tensors.dedup();
            for tensor in tensors {
                let sums = inputs.entry(tensor.to_owned()).or_insert_with(|| Sums::new(cols));
                run.launches.measure(*data, &mut sums.channels)?;
                sums.tokens += rows;
            }
        }
        if run.launches.next() + 1 == run.launches.plan().launches.len() {
            break;
        }
        run.advance(&PackedWeights::new())?;
    }
    Ok(())
}

/// What is known of an input so far.
struct Sums {
    channels: Channels,
    tokens: usize,
}

impl Sums {
    fn new(cols: usize) -> Sums {
        Sums { channels: Channels::new(cols), tokens: 0 }
    }

    fn finish(self, tensor: &str) -> Result<InputStatistics, CalibrateError> {
        let Channels { absmax, squares } = self.channels;
        if !squares.iter().all(|square| square.is_finite()) {
            return Err(CalibrateError::NotFinite { weight: tensor.to_owned() });
        }
        let tokens = self.tokens.max(1) as f64;
        Ok(InputStatistics { absmax, mean_square: squares.into_iter().map(|sum| (sum / tokens) as f32).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(square: f64) -> Sums {
        Sums { channels: Channels { absmax: vec![3.0], squares: vec![square] }, tokens: 4 }
    }

    #[test]
    fn means_are_over_tokens() {
        let measured = sums(10.0).finish("w").unwrap();
        assert_eq!((&measured.absmax[..], &measured.mean_square[..]), (&[3.0][..], &[2.5][..]));
    }

    #[test]
    fn refuses_what_is_not_a_number_by_the_name_of_the_tensor() {
        for square in [f64::NAN, f64::INFINITY] {
            let refused = sums(square).finish("w").unwrap_err().to_string();
            assert!(refused.contains("inputs of `w` are not finite"), "{square}");
        }
    }
}
