//! Verifies a model: every launch, in prefill and decode, of one and of several sequences, then whole steps.

use super::greedy::{GreedyReport, compare_greedy};
use super::{Bound, LaunchDifference, StepRows, kernel_name, verify_step};
use crate::device::{DeviceError, LaunchByLaunch, Outputs, SequenceChunk, SlotId};
use crate::plan::{Activation, Kernel, Plan};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use serde::Serialize;

/// Tokens of the prompt that is continued.
pub const GREEDY_PROMPT: usize = 8;

/// What to verify.
#[derive(Clone, Debug)]
pub struct Options {
    /// Numbers of sequences in a step.
    pub batches: Vec<usize>,
    /// Lengths of prompts; the sequences of a batch get different ones, up to this.
    pub prefill: Vec<usize>,
    /// Steps of one token that follow.
    pub decode_steps: usize,
    /// Tokens to continue a prompt by on both devices; 0 for none.
    pub greedy_tokens: usize,
    /// Both devices are of one kind and must agree to the bit.
    pub exact: bool,
    /// Of the made-up tokens.
    pub seed: u64,
}

/// What a launch of the plan differed by at most, over all steps.
#[derive(Clone, Debug, Serialize)]
pub struct LaunchReport {
    /// Index in the plan.
    pub launch: usize,
    /// Its kernel.
    pub kernel: &'static str,
    /// Where it comes from.
    pub origin: String,
    /// Steps it ran in.
    pub steps: usize,
    /// Steps in which it was out of bounds.
    pub failed: usize,
    /// Largest difference of i32 values.
    pub accumulators: u64,
    /// Largest difference of 8-bit values.
    pub quantized: u64,
    /// Share of 8-bit values that differ.
    pub quantized_share: f64,
    /// Share of the values of a scan state in fewer than 32 bits that differ.
    pub state_share: f64,
    /// Largest difference of floats, over the largest value, in the step that came nearest to its bound.
    pub relative: f64,
    /// That step's bound.
    pub bound: f64,
}

/// Logits of whole steps, as they really run.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Sequences.
    pub sequences: usize,
    /// Tokens each had before.
    pub context: usize,
    /// Difference of the logits over their size, in the Euclidean norm; the largest of a few steps.
    pub relative: f64,
    /// What it may be: in a quantized model one 8-bit value that fell to the other side of a half changes all that follows.
    pub bound: f64,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// Its phase.
    pub phase: String,
    /// What was compared with.
    pub reference: String,
    /// What was verified.
    pub device: String,
    /// In the order of the plan.
    pub launches: Vec<LaunchReport>,
    /// Whole steps.
    pub steps: Vec<StepReport>,
    /// Text.
    pub greedy: Option<GreedyReport>,
    /// Whether all of it is within bounds.
    pub passes: bool,
}

/// Runs the same on both devices, which hold the same plan.
pub fn verify(
    reference: &mut dyn LaunchByLaunch,
    device: &mut dyn LaunchByLaunch,
    options: &Options,
) -> Result<Report, DeviceError> {
    let plan = reference.plan().clone();
    let mut suite = Suite {
        launches: plan.launches.iter().enumerate().map(|(index, launch)| start(index, launch)).collect(),
        random: Pcg64::seed_from_u64(options.seed),
        steps: Vec::new(),
        options,
        plan: &plan,
    };
    for sequences in &options.batches {
        for length in &options.prefill {
            suite.case(reference, device, *sequences, *length)?;
        }
    }
    let greedy = match options.greedy_tokens {
        0 => None,
        tokens => {
            let prompt = suite.tokens(GREEDY_PROMPT);
            Some(compare_greedy(reference, device, &prompt, tokens, step_bound(&plan, options.exact))?)
        }
    };
    let Suite { launches, steps, .. } = suite;
    let passes = launches.iter().all(|launch| launch.failed == 0)
        && steps.iter().all(|step| step.relative <= step.bound)
        && greedy.as_ref().is_none_or(|greedy| greedy.passes);
    Ok(Report {
        model: plan.model.name.clone(),
        phase: plan.model.phase.clone(),
        reference: reference.description(),
        device: device.description(),
        launches,
        steps,
        greedy,
        passes,
    })
}

/// Launches of the models that `docs/performance.md` says were measured.
const MEASURED_LAUNCHES: f64 = 32.0;

/// Differences of whole steps: as measured over many small models and rounded up. What each launch adds is independent of
/// the others, so that it grows with the square root of their number.
fn step_bound(plan: &Plan, exact: bool) -> f64 {
    let depth = (plan.launches.len() as f64 / MEASURED_LAUNCHES).sqrt().max(1.0);
    let quantized = |kernel: &Kernel| matches!(kernel, Kernel::Linear { x: Activation::Quantized { .. }, .. });
    match (exact, plan.launches.iter().any(|launch| quantized(&launch.kernel))) {
        (true, _) => 0.0,
        (false, true) => 2e-2 * depth,
        (false, false) => 1e-4 * depth,
    }
}

fn start(index: usize, launch: &crate::plan::Launch) -> LaunchReport {
    LaunchReport {
        launch: index,
        kernel: kernel_name(&launch.kernel),
        origin: launch.origin.clone(),
        steps: 0,
        failed: 0,
        accumulators: 0,
        quantized: 0,
        quantized_share: 0.0,
        state_share: 0.0,
        relative: 0.0,
        bound: 0.0,
    }
}

struct Suite<'a> {
    plan: &'a Plan,
    options: &'a Options,
    random: Pcg64,
    launches: Vec<LaunchReport>,
    steps: Vec<StepReport>,
}

impl Suite<'_> {
    fn tokens(&mut self, count: usize) -> Vec<u32> {
        let vocab_size = self.plan.model.vocab_size as u32;
        (0..count).map(|_| self.random.random_range(0..vocab_size)).collect()
    }

    fn case(
        &mut self,
        reference: &mut dyn LaunchByLaunch,
        device: &mut dyn LaunchByLaunch,
        sequences: usize,
        length: usize,
    ) -> Result<(), DeviceError> {
        let mut slots = Vec::new();
        for _ in 0..sequences {
            slots.push((reference.create_slot()?, device.create_slot()?));
        }
        if slots.iter().any(|(reference, device)| reference != device) {
            return Err(DeviceError::Misuse { problem: "the devices have other slots than each other".to_owned() });
        }
        let slots: Vec<SlotId> = slots.into_iter().map(|(slot, _)| slot).collect();
        // Sequences of different lengths, none of them empty.
        let lengths: Vec<usize> = (0..sequences).map(|i| length.saturating_sub(i * length / 16).max(1)).collect();
        let mut context = 0;
        for step in 0..=self.options.decode_steps {
            let tokens: Vec<Vec<u32>> =
                lengths.iter().map(|length| self.tokens(if step == 0 { *length } else { 1 })).collect();
            let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
            context += longest;
            let rows = tokens.iter().map(Vec::len).sum();
            let rows = StepRows { tokens: rows, outputs: sequences, longest, context };
            let differences = verify_step(reference, device, &batch(&slots, &tokens))?;
            differences.iter().for_each(|difference| self.take(difference, rows));
        }
        self.whole_steps(reference, device, &slots, context)?;
        for slot in slots {
            reference.release_slot(slot)?;
            device.release_slot(slot)?;
        }
        Ok(())
    }

    fn take(&mut self, difference: &LaunchDifference, rows: StepRows) {
        let kernel = &self.plan.launches[difference.launch].kernel;
        let bound = if self.options.exact { Bound::EXACT } else { Bound::of(self.plan, kernel, rows) };
        self.launches[difference.launch].take(difference, bound);
    }

    /// As they really run, dependent launches and graphs included: the second replays what the first recorded.
    fn whole_steps(
        &mut self,
        reference: &mut dyn LaunchByLaunch,
        device: &mut dyn LaunchByLaunch,
        slots: &[SlotId],
        context: usize,
    ) -> Result<(), DeviceError> {
        let mut relative = 0.0f64;
        for _ in 0..2 {
            let tokens: Vec<Vec<u32>> = slots.iter().map(|_| self.tokens(1)).collect();
            let batch = batch(slots, &tokens);
            let expected = reference.step(&batch)?.values.to_vec();
            let apart = distance(&expected, device.step(&batch)?.values);
            // `max` would drop a NaN.
            relative = if apart > relative || apart.is_nan() { apart } else { relative };
        }
        let bound = step_bound(self.plan, self.options.exact);
        self.steps.push(StepReport { sequences: slots.len(), context, relative, bound });
        Ok(())
    }
}

fn batch<'t>(slots: &[SlotId], tokens: &'t [Vec<u32>]) -> Vec<SequenceChunk<'t>> {
    let chunk = |(slot, tokens): (&SlotId, &'t Vec<u32>)| SequenceChunk { slot: *slot, tokens, outputs: Outputs::Last };
    slots.iter().zip(tokens).map(chunk).collect()
}

/// Difference over size, in the Euclidean norm.
fn distance(expected: &[f32], found: &[f32]) -> f64 {
    let size: f64 = expected.iter().map(|v| f64::from(*v).powi(2)).sum();
    let apart: f64 = expected.iter().zip(found).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (apart / size.max(f64::MIN_POSITIVE)).sqrt()
}

impl LaunchReport {
    fn take(&mut self, difference: &LaunchDifference, bound: Bound) {
        self.steps += 1;
        self.failed += usize::from(!bound.admits(difference));
        self.accumulators = self.accumulators.max(difference.accumulators);
        self.quantized = self.quantized.max(difference.quantized);
        self.quantized_share = self.quantized_share.max(difference.quantized_share);
        self.state_share = self.state_share.max(difference.state_share);
        let nearer = difference.relative * self.bound >= self.relative * bound.relative;
        if nearer || difference.relative.is_nan() || self.steps == 1 {
            (self.relative, self.bound) = (difference.relative, bound.relative);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::device::Device;
    use crate::plan::WeightFormat;
    use crate::synthetic::{Layout, MemoryStore, Shape, model};
    use crate::tensors::TensorStore;

    fn options() -> Options {
        Options { batches: vec![1, 3], prefill: vec![1, 9], decode_steps: 2, greedy_tokens: 5, exact: true, seed: 4 }
    }

    fn report(plan: &Plan, reference: &MemoryStore, device: &MemoryStore) -> Report {
        let open = |threads| cpu::Options { threads: Some(threads), ..Default::default() };
        let mut reference = cpu::Device::new(plan, reference, &open(1)).unwrap();
        let mut device = cpu::Device::new(plan, device, &open(2)).unwrap();
        verify(&mut reference, &mut device, &options()).unwrap()
    }

    #[test]
    fn one_thread_and_two_agree_in_every_launch() {
        let (plan, store) = model(&Shape::tiny(), &Layout::of(WeightFormat::W8), 1);
        let report = report(&plan, &store, &store);
        assert!(report.passes, "{report:?}");
        assert_eq!(report.launches.len(), plan.launches.len());
        assert!(report.launches.iter().all(|launch| launch.steps == 12), "{report:?}");
        assert_eq!(report.steps.len(), 4);
        assert_eq!(report.greedy.map(|greedy| greedy.equal), Some(5));
    }

    #[test]
    fn a_weight_that_differs_is_found_in_the_launch_that_reads_it() {
        let (plan, store) = model(&Shape::tiny(), &Layout::of(WeightFormat::W8), 1);
        let mut other = store.clone();
        let name =
            other.names().find(|name| name.contains("down_proj") && name.ends_with(".weight")).unwrap().to_owned();
        let view = store.tensor(&name).unwrap();
        let bytes: Vec<u8> = view.bytes.iter().map(|byte| byte.wrapping_neg()).collect();
        other.insert(name.clone(), view.dtype, view.shape, bytes);
        let report = report(&plan, &store, &other);
        let wrong: Vec<_> = report.launches.iter().filter(|launch| launch.failed > 0).collect();
        assert!(!report.passes && wrong.len() == 1 && name.starts_with(&wrong[0].origin), "{name} {wrong:?}");
        assert!(report.steps.iter().all(|step| step.relative > 1e-3), "{:?}", report.steps);
    }

    #[test]
    fn all_slots_are_given_back() {
        let (plan, store) = model(&Shape::tiny(), &Layout::of(WeightFormat::W8), 1);
        let mut devices = [1, 2].map(|threads| {
            cpu::Device::new(&plan, &store, &cpu::Options { threads: Some(threads), ..Default::default() }).unwrap()
        });
        let [reference, device] = &mut devices;
        verify(reference, device, &options()).unwrap();
        assert!(reference.position(SlotId(0)).is_err() && device.position(SlotId(0)).is_err());
    }
}
