//! Verifies a model: every launch, in prefill and decode, of one and of several sequences, then whole steps.

use super::greedy::{GreedyReport, compare_greedy};
use super::moved::Moves;
use super::whole::{StepReport, Tokens, batch, compare_steps, unequal_logits};
use super::{Bound, LaunchDifference, StepRows, kernel_name, verify_step};
use crate::device::{DeviceError, LaunchByLaunch, SlotId};
use crate::plan::Plan;
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
        moves: Moves::none(&plan),
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
            let moves = (!options.exact).then_some(&suite.moves);
            Some(compare_greedy(reference, device, &prompt, tokens, moves, &mut suite.random)?)
        }
    };
    let Suite { launches, steps, .. } = suite;
    let passes = launches.iter().all(|launch| launch.failed == 0)
        && steps.iter().all(StepReport::passes)
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
    moves: Moves,
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
            return Err(DeviceError::misuse("the devices have other slots than each other"));
        }
        let slots: Vec<SlotId> = slots.into_iter().map(|(slot, _)| slot).collect();
        // Sequences of different lengths, none of them empty.
        let lengths: Vec<usize> = (0..sequences).map(|i| length.saturating_sub(i * length / 16).max(1)).collect();
        let steps = self.steps_of(&lengths, self.options.decode_steps);
        let unequal = unequal_logits(device, &slots, &steps)?;
        let mut context = 0;
        for tokens in &steps {
            let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
            context += longest;
            let rows = tokens.iter().map(Vec::len).sum();
            let rows = StepRows { tokens: rows, outputs: sequences, longest, context };
            let differences = verify_step(reference, device, &batch(&slots, tokens))?;
            differences.iter().for_each(|difference| self.take(difference, rows));
        }
        // The first records a graph, the second replays it.
        let steps: Vec<Tokens> = (0..2).map(|_| self.draw(&vec![1; sequences])).collect();
        let moves = (!self.options.exact).then_some(&self.moves);
        let mut report = compare_steps(reference, device, &slots, &steps, moves, &mut self.random)?;
        report.unequal += unequal;
        self.steps.push(report);
        for slot in slots {
            reference.release_slot(slot)?;
            device.release_slot(slot)?;
        }
        Ok(())
    }

    /// Prompts, then steps of one token.
    fn steps_of(&mut self, lengths: &[usize], decode_steps: usize) -> Vec<Tokens> {
        let mut steps = vec![self.draw(lengths)];
        steps.extend((0..decode_steps).map(|_| self.draw(&vec![1; lengths.len()])));
        steps
    }

    fn draw(&mut self, lengths: &[usize]) -> Tokens {
        lengths.iter().map(|length| self.tokens(*length)).collect()
    }

    fn take(&mut self, difference: &LaunchDifference, rows: StepRows) {
        let kernel = &self.plan.launches[difference.launch].kernel;
        let bound = if self.options.exact { Bound::EXACT } else { Bound::of(self.plan, kernel, rows) };
        self.moves.take(difference.launch, difference.relative, &bound);
        self.launches[difference.launch].take(difference, bound);
    }
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
    use super::super::moved::written;
    use super::super::twin::{Differs, Fault, Twin};
    use super::*;
    use crate::cpu;
    use crate::device::Device;
    use crate::plan::{DType, Kernel, WeightFormat};
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

    fn against_twin(layout: &Layout, seed: u64, twin: impl Fn(&Plan) -> Differs) -> Report {
        let (plan, store) = model(&Shape::tiny(), layout, seed);
        let open = cpu::Options { threads: Some(1), ..Default::default() };
        let mut reference = cpu::Device::new(&plan, &store, &open).unwrap();
        let differs = twin(&plan);
        let mut device = Twin { inner: cpu::Device::new(&plan, &store, &open).unwrap(), differs };
        verify(&mut reference, &mut device, &Options { exact: false, greedy_tokens: 20, ..options() }).unwrap()
    }

    fn layouts() -> Vec<Layout> {
        let of = |format| Layout { fused_mixer: true, ..Layout::of(format) };
        let plain = Layout::of(WeightFormat::W8);
        vec![
            of(WeightFormat::Float { dtype: DType::F32 }),
            of(WeightFormat::W8),
            of(WeightFormat::W4TwoLevel { group_size: 32 }),
            Layout { separate_dequantize: true, ssm_dtype: DType::F16, kv_dtype: DType::I8, ..plain },
        ]
    }

    /// A linear in the middle.
    fn linear(plan: &Plan) -> usize {
        let is =
            |launch: &usize| matches!(plan.launches[*launch].kernel, Kernel::Linear { .. } | Kernel::Dequantize { .. });
        let writes_floats = |launch: &usize| {
            let mut written = written(&plan.launches[*launch].kernel).into_iter();
            written.all(|id| plan.buffer(id).dtype == DType::F32)
        };
        (plan.launches.len() / 2..plan.launches.len()).find(|launch| is(launch) && writes_floats(launch)).unwrap()
    }

    #[test]
    fn a_device_that_adds_in_another_order_passes() {
        for layout in layouts() {
            for seed in 1..5 {
                let report = against_twin(&layout, seed, |_| Differs::rounding(seed as u32));
                assert!(report.passes, "{layout:?}, seed {seed}\n{report}");
            }
        }
    }

    #[test]
    fn whole_steps_are_as_far_apart_as_the_bound_says_where_launches_are() {
        for layout in layouts() {
            let report = against_twin(&layout, 1, |_| Differs { relative: 4e-7, chance: 1e-2, ..Differs::rounding(1) });
            let nearest = report.steps.iter().map(|step| step.relative / step.bound).fold(0.0, f64::max);
            assert!(nearest > 0.2, "{nearest}, {layout:?}\n{report}");
        }
    }

    #[test]
    fn a_fault_of_whole_steps_alone_is_found_though_it_is_one_rounding() {
        for layout in layouts() {
            let report = against_twin(&layout, 1, |plan| Differs {
                fault: Some(Fault { launch: linear(plan), scale: 1.0 + f32::EPSILON, whole_steps_only: true }),
                ..Differs::rounding(1)
            });
            assert!(!report.passes && report.launches.iter().all(|launch| launch.failed == 0), "{report}");
            assert!(report.steps.iter().any(|step| step.unequal > 0 && !step.passes()), "{report}");
        }
    }

    #[test]
    fn texts_part_at_ties_alone() {
        let splits = |scale| -> Vec<Report> {
            let fault = |plan: &Plan| Fault { launch: linear(plan), scale, whole_steps_only: false };
            let differs = |plan: &Plan| Differs { chance: 1e-2, fault: Some(fault(plan)), ..Differs::rounding(1) };
            let reports = (1..9).map(|seed| against_twin(&Layout::of(WeightFormat::W8), seed, differs));
            reports.filter(|report| report.greedy.as_ref().unwrap().split.is_some()).collect()
        };
        let ties = splits(1.0);
        assert!(!ties.is_empty() && ties.iter().all(|report| report.greedy.as_ref().unwrap().passes), "{ties:?}");
        assert!(splits(-1.0).iter().any(|report| !report.greedy.as_ref().unwrap().passes));
    }

    #[test]
    fn a_wrong_launch_takes_whole_steps_out_of_bounds() {
        for (layout, scale) in layouts().into_iter().zip([1.001, 1.3, 1.3, 1.3]) {
            let report = against_twin(&layout, 1, |plan| Differs {
                fault: Some(Fault { launch: linear(plan), scale, whole_steps_only: false }),
                ..Differs::rounding(1)
            });
            let wrong: Vec<_> = report.launches.iter().filter(|launch| launch.failed > 0).collect();
            assert!(!report.passes && wrong.len() == 1 && wrong[0].failed == wrong[0].steps, "{layout:?}\n{report}");
            assert!(
                report.steps.iter().all(|step| step.unequal == 0 && step.relative > step.bound),
                "{layout:?}\n{report}"
            );
        }
    }

    #[test]
    fn all_slots_are_given_back() {
        let (plan, store) = model(&Shape::tiny(), &Layout::of(WeightFormat::W8), 1);
        let mut devices = [1, 2].map(|threads| {
            cpu::Device::new(&plan, &store, &cpu::Options { threads: Some(threads), ..Default::default() }).unwrap()
        });
        let [reference, device] = &mut devices;
        verify(reference, device, &Options { exact: false, ..options() }).unwrap();
        assert!(reference.position(SlotId(0)).is_err() && device.position(SlotId(0)).is_err());
    }
}
