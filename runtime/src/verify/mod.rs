//! Compares two devices launch by launch, each launch on the same inputs.

mod bound;
pub mod cli;
mod greedy;
mod kept;
mod limit;
mod moved;
mod suite;
mod text;
#[cfg(test)]
mod twin;
mod whole;

pub use bound::{Bound, StepRows};
pub use greedy::{GreedyReport, Split};
pub use suite::{GREEDY_PROMPT, LaunchReport, Options, Report, verify};
pub use whole::StepReport;

use crate::device::{DeviceError, LaunchByLaunch, SequenceChunk};
use crate::plan::{Buffer, BufferId, DType, Kernel, StateId, StateKind};
use kept::Kept;
use rayon::prelude::*;

/// How far two devices are apart after one launch, over all buffers and fixed states.
#[derive(Clone, Debug)]
pub struct LaunchDifference {
    /// Index of the launch.
    pub launch: usize,
    /// Name of its kernel.
    pub kernel: &'static str,
    /// Where it comes from.
    pub origin: String,
    /// Largest difference of i32 values: 0, or the device is wrong.
    pub accumulators: u64,
    /// Largest difference of 8-bit values. 1 where a float lies between two integers.
    pub quantized: u64,
    /// Share of 8-bit values that differ.
    pub quantized_share: f64,
    /// Share of the values of a scan state in fewer than 32 bits that differ.
    pub state_share: f64,
    /// Largest difference of floats over the largest value of the same buffer or state; in a state in fewer bits, of what
    /// is more than one step. NaN never passes.
    pub relative: f64,
}

impl LaunchDifference {
    /// Integers equal, 8-bit values at most one apart in at most the share of the bound, floats within it.
    pub fn passes(&self, bound: &Bound) -> bool {
        self.accumulators == 0
            && self.quantized <= 1
            && self.quantized_share <= bound.quantized_share
            && self.state_share <= bound.state_share
            && self.relative <= bound.relative
    }
}

/// Name of a kernel as the plan spells it.
pub fn kernel_name(kernel: &Kernel) -> &'static str {
    match kernel {
        Kernel::Embed { .. } => "embed",
        Kernel::SelectOutputs { .. } => "select_outputs",
        Kernel::Add { .. } => "add",
        Kernel::RmsNorm { .. } => "rms_norm",
        Kernel::Map { .. } => "map",
        Kernel::Linear { .. } => "linear",
        Kernel::Dequantize { .. } => "dequantize",
        Kernel::Conv1d { .. } => "conv1d",
        Kernel::SsmScan { .. } => "ssm_scan",
        Kernel::GatedRmsNorm { .. } => "gated_rms_norm",
        Kernel::Mixer { .. } => "mixer",
        Kernel::Attention { .. } => "attention",
    }
}

/// Runs one step on both devices. Before every launch the device gets the buffers and states of the reference.
///
/// The slots of the batch must have taken the same tokens on both.
pub fn verify_step(
    reference: &mut dyn LaunchByLaunch,
    device: &mut dyn LaunchByLaunch,
    batch: &[SequenceChunk<'_>],
) -> Result<Vec<LaunchDifference>, DeviceError> {
    reference.begin(batch)?;
    device.begin(batch)?;
    let plan = reference.plan().clone();
    let mut differences = Vec::with_capacity(plan.launches.len());
    let mut equal = vec![false; plan.buffers.len()];
    for (index, launch) in plan.launches.iter().enumerate() {
        for (id, _) in buffer_ids(&plan.buffers).zip(&equal).filter(|(_, equal)| !**equal) {
            device.write_buffer(id, &reference.read_buffer(id)?)?;
        }
        reference.run_launch(index)?;
        device.run_launch(index)?;
        let mut difference = LaunchDifference {
            launch: index,
            kernel: kernel_name(&launch.kernel),
            origin: launch.origin.clone(),
            accumulators: 0,
            quantized: 0,
            quantized_share: 0.0,
            state_share: 0.0,
            relative: 0.0,
        };
        for ((id, buffer), equal) in buffer_ids(&plan.buffers).zip(&plan.buffers).zip(&mut equal) {
            let (expected, found) = (reference.read_buffer(id)?, device.read_buffer(id)?);
            *equal = expected == found;
            difference.take(buffer.dtype, &expected, &found);
        }
        for id in state_ids(&launch.kernel) {
            compare_state(reference, device, batch, id, &mut difference)?;
        }
        differences.push(difference);
    }
    reference.finish()?;
    device.finish()?;
    Ok(differences)
}

fn compare_state(
    reference: &dyn LaunchByLaunch,
    device: &mut dyn LaunchByLaunch,
    batch: &[SequenceChunk<'_>],
    id: StateId,
    difference: &mut LaunchDifference,
) -> Result<(), DeviceError> {
    let state = reference.plan().state(id).clone();
    if state.kind == StateKind::Kv {
        // Tokens of this step count when it is finished: later steps show what was appended.
        return Ok(());
    }
    for chunk in batch {
        let expected = reference.read_state(chunk.slot, id)?;
        let found = device.read_state(chunk.slot, id)?;
        if expected == found {
            continue;
        }
        match state.dtype {
            DType::F32 => difference.take(state.dtype, &expected, &found),
            _ => difference.take_state(&Kept::of(&state, &expected), &Kept::of(&state, &found)),
        }
        drop(found);
        device.write_state(chunk.slot, id, &expected)?;
    }
    Ok(())
}

fn buffer_ids(buffers: &[Buffer]) -> impl Iterator<Item = BufferId> {
    (0..buffers.len() as u32).map(BufferId)
}

fn state_ids(kernel: &Kernel) -> Vec<StateId> {
    match kernel {
        Kernel::Conv1d { state, .. } | Kernel::SsmScan { state, .. } | Kernel::Attention { state, .. } => vec![*state],
        Kernel::Mixer { conv_state, ssm_state, .. } => vec![*conv_state, *ssm_state],
        _ => Vec::new(),
    }
}

impl LaunchDifference {
    fn take(&mut self, dtype: DType, expected: &[u8], found: &[u8]) {
        if expected == found {
            return;
        }
        match dtype {
            DType::F32 => {
                let relative = relative_difference(expected, found);
                // `max` would drop a NaN.
                self.relative = if relative > self.relative || relative.is_nan() { relative } else { self.relative };
            }
            DType::I32 => {
                let pairs = words(expected).zip(words(found));
                let largest = pairs.map(|(a, b)| (i64::from(a as i32) - i64::from(b as i32)).unsigned_abs()).max();
                self.accumulators = self.accumulators.max(largest.unwrap_or(0));
            }
            DType::I8 => self.take_bytes(expected, found, |byte| i32::from(byte as i8)),
            DType::U8 => self.take_bytes(expected, found, i32::from),
            DType::F16 | DType::Bf16 => {}
        }
    }

    /// Floats that differ a little may be rounded to two neighbors.
    fn take_state(&mut self, expected: &Kept, found: &Kept) {
        let largest = expected.values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        let (mut count, mut beyond) = (0u64, 0.0f64);
        for (index, (a, b)) in expected.values.iter().zip(&found.values).enumerate() {
            let apart = (a - b).abs();
            // The scale of a row may be a rounding off: values that have one integer are not counted.
            count += u64::from(expected.steps_of(index) != found.steps_of(index));
            let more = apart - expected.step(index).max(found.step(index));
            beyond = if more > beyond || more.is_nan() { more } else { beyond };
        }
        let relative = if beyond == 0.0 { 0.0 } else { beyond / largest.max(f64::MIN_POSITIVE) };
        self.relative = if relative > self.relative || relative.is_nan() { relative } else { self.relative };
        self.state_share = self.state_share.max(count as f64 / expected.values.len().max(1) as f64);
    }

    fn take_bytes(&mut self, expected: &[u8], found: &[u8], value: impl Fn(u8) -> i32) {
        let differences = expected.iter().zip(found).map(|(a, b)| u64::from(value(*a).abs_diff(value(*b))));
        let (mut largest, mut count) = (0, 0u64);
        for difference in differences.filter(|difference| *difference > 0) {
            largest = largest.max(difference);
            count += 1;
        }
        self.quantized = self.quantized.max(largest);
        self.quantized_share = self.quantized_share.max(count as f64 / expected.len().max(1) as f64);
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word))
}

/// Bytes that threads compare in one go.
const PART_BYTES: usize = 1 << 16;

/// Largest difference of two arrays of f32 over the largest of the first; NaN if one differs by that.
fn relative_difference(expected: &[u8], found: &[u8]) -> f64 {
    let parts = expected.par_chunks(PART_BYTES).zip(found.par_chunks(PART_BYTES));
    let (largest, difference) = parts.map(|(expected, found)| largest_of(expected, found)).reduce(
        || (0.0, 0.0),
        // `max` would drop a NaN.
        |a, b| (a.0.max(b.0), if b.1 > a.1 || b.1.is_nan() { b.1 } else { a.1 }),
    );
    if difference == 0.0 { 0.0 } else { difference / largest.max(f64::MIN_POSITIVE) }
}

/// The largest value and the largest difference.
fn largest_of(expected: &[u8], found: &[u8]) -> (f64, f64) {
    let (mut largest, mut difference) = (0.0f64, 0.0f64);
    for (a, b) in words(expected).zip(words(found)) {
        let (a, b) = (f32::from_bits(a), f32::from_bits(b));
        largest = largest.max(f64::from(a.abs()));
        if a.to_bits() == b.to_bits() {
            continue;
        }
        let apart = (f64::from(a) - f64::from(b)).abs();
        if apart.is_nan() {
            return (largest, f64::NAN);
        }
        difference = difference.max(apart);
    }
    (largest, difference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::device::{Device, Outputs, SlotId};
    use crate::plan::{State, WeightFormat};
    use crate::synthetic::{Layout, Shape, model};

    fn nothing() -> LaunchDifference {
        LaunchDifference {
            launch: 0,
            kernel: "add",
            origin: String::new(),
            accumulators: 0,
            quantized: 0,
            quantized_share: 0.0,
            state_share: 0.0,
            relative: 0.0,
        }
    }

    #[test]
    fn a_device_agrees_with_itself_to_the_bit() {
        let layout = Layout { ssm_dtype: DType::Bf16, kv_dtype: DType::I8, ..Layout::of(WeightFormat::W8) };
        let (plan, store) = model(&Shape::tiny(), &layout, 1);
        let options = cpu::Options { threads: Some(1), ..Default::default() };
        let mut devices = [(); 2].map(|()| cpu::Device::new(&plan, &store, &options).unwrap());
        devices.iter_mut().for_each(|device| assert_eq!(device.create_slot().unwrap(), SlotId(0)));
        let [reference, device] = &mut devices;
        let batch = [SequenceChunk { slot: SlotId(0), tokens: &[1, 2, 3], outputs: Outputs::Last }];
        let differences = verify_step(reference, device, &batch).unwrap();
        assert_eq!(differences.len(), plan.launches.len());
        assert!(differences.iter().all(|difference| difference.passes(&Bound::EXACT)), "{differences:?}");
    }

    #[test]
    fn a_state_in_fewer_bits_differs_by_shares_and_beyond_one_step() {
        let of = |dtype, bytes: &[u8]| {
            let state = State { name: String::new(), kind: StateKind::Ssm, dtype, shape: vec![1, 2, 2] };
            Kept::of(&state, bytes)
        };
        let halves = |values: [f32; 4]| values.map(|v| half::bf16::from_f32(v).to_le_bytes()).concat();
        let mut difference = nothing();
        let expected = of(DType::Bf16, &halves([1.0, -2.0, 0.5, 4.0]));
        difference.take_state(&expected, &of(DType::Bf16, &halves([1.0078125, -2.0, 0.5, 4.0])));
        assert_eq!((difference.state_share, difference.relative), (0.25, 0.0));
        difference.take_state(&expected, &of(DType::Bf16, &halves([1.5, -2.0, 0.5, 4.0])));
        assert!((difference.relative - (0.5 - 1.0 / 128.0) / 4.0).abs() < 1e-12, "{difference:?}");
        let integers = |q: [u8; 4], scale: f32| [&q[..], &1.0f32.to_le_bytes(), &scale.to_le_bytes()].concat();
        let mut difference = nothing();
        let expected = of(DType::I8, &integers([127, 3, 0, 127], 2.0));
        difference.take_state(&expected, &of(DType::I8, &integers([127, 4, 0, 127], 2.0000002)));
        assert_eq!((difference.state_share, difference.relative), (0.25, 0.0));
        difference.take_state(&expected, &of(DType::I8, &integers([127, 3, 0, 127], f32::NAN)));
        assert!(difference.relative.is_nan());
    }

    #[test]
    fn differences_are_seen_in_every_type() {
        let mut difference = nothing();
        difference.take(DType::I32, &5i32.to_le_bytes(), &(-2i32).to_le_bytes());
        difference.take(DType::I8, &[0xff, 0], &[1, 0]);
        difference.take(DType::F32, &2.0f32.to_le_bytes(), &1.0f32.to_le_bytes());
        assert_eq!((difference.accumulators, difference.quantized, difference.relative), (7, 2, 0.5));
        difference.take(DType::F32, &2.0f32.to_le_bytes(), &f32::NAN.to_le_bytes());
        assert!(
            difference.relative.is_nan()
                && !difference.passes(&Bound { relative: 1.0, quantized_share: 1.0, state_share: 1.0 })
        );
    }
}
