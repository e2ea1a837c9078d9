//! A step of the reference whose results are moved as far as those of another device may be.
//!
//! Two devices that add in different orders agree launch by launch to a few roundings. What whole steps make of that depends
//! on the model and its inputs: an 8-bit value that falls to the other side of a half changes all that follows. So the
//! reference itself takes the step again, and what each launch wrote is moved before the next reads it:
//!
//! - floats by up to what the launch was measured to differ by on equal inputs, over the largest value, but never by more than
//!   its [`Bound`]; each by a random part of that, up or down;
//! - 8-bit values, and scan states in fewer than 32 bits, by one step up or down, at random with the probability that the
//!   bound is made of. How often a float happens to lie at a half is chance, which a few measured steps do not show;
//! - for the same reason always one of the first 8-bit values of each sequence, which all others come from: a model in which
//!   this is rare would else seem not to do it.
//!
//! Sums of integers are equal to the bit and are not moved. A launch that is wrong is not moved by more than its bound, so
//! that it does not excuse what it does to a step.

use super::bound::{Bound, Chances, StepRows};
use super::whole::{Tokens, batch};
use super::{kept, state_ids};
use crate::device::{DeviceError, LaunchByLaunch, SequenceChunk, SlotId};
use crate::plan::{Activation, BufferId, DType, Emit, Kernel, Plan, StateId, StateKind};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use rayon::prelude::*;

/// Floats of one stream of random numbers.
const PART: usize = 4096;

/// How far the floats of each launch move, over the largest value.
#[derive(Clone, Debug)]
pub(super) struct Moves {
    relative: Vec<f64>,
}

impl Moves {
    /// Before anything was measured.
    pub(super) fn none(plan: &Plan) -> Moves {
        Moves { relative: vec![0.0; plan.launches.len()] }
    }

    /// A launch was measured to differ by this.
    pub(super) fn take(&mut self, launch: usize, relative: f64, bound: &Bound) {
        // `min` drops a NaN.
        self.relative[launch] = self.relative[launch].max(relative.min(bound.relative));
    }

    /// Takes steps of these sequences with everything moved; returns the logits of each.
    pub(super) fn steps(
        &self,
        reference: &mut dyn LaunchByLaunch,
        slots: &[SlotId],
        steps: &[Tokens],
        random: &mut Pcg64,
    ) -> Result<Vec<Vec<f32>>, DeviceError> {
        let last = steps.len().saturating_sub(1);
        let step = |(index, tokens): (usize, &Tokens)| {
            // Nobody reads the states after the last.
            self.step(reference, &batch(slots, tokens), index < last, random)
        };
        steps.iter().enumerate().map(step).collect()
    }

    fn step(
        &self,
        reference: &mut dyn LaunchByLaunch,
        batch: &[SequenceChunk<'_>],
        states: bool,
        random: &mut Pcg64,
    ) -> Result<Vec<f32>, DeviceError> {
        let plan = reference.plan().clone();
        let rows = rows_of(reference, batch)?;
        let mut first = true;
        reference.begin(batch)?;
        for (index, launch) in plan.launches.iter().enumerate() {
            reference.run_launch(index)?;
            let chances = Chances::of(&plan, &launch.kernel, rows);
            let mut mover = Mover { reference, relative: self.relative[index], chances, random };
            for id in written(&launch.kernel) {
                mover.buffer(id)?;
            }
            if let Some(id) = quantized(&plan, &launch.kernel).filter(|_| first) {
                first = false;
                mover.one_of_each(id, batch)?;
            }
            for id in state_ids(&launch.kernel).into_iter().filter(|_| states) {
                batch.iter().try_for_each(|chunk| mover.state(chunk.slot, id))?;
            }
        }
        Ok(reference.finish()?.values.to_vec())
    }
}

fn rows_of(reference: &dyn LaunchByLaunch, batch: &[SequenceChunk<'_>]) -> Result<StepRows, DeviceError> {
    let mut rows = StepRows { tokens: 0, outputs: batch.len(), longest: 0, context: 0 };
    for chunk in batch {
        rows.tokens += chunk.tokens.len();
        rows.longest = rows.longest.max(chunk.tokens.len());
        rows.context = rows.context.max(reference.position(chunk.slot)? + chunk.tokens.len());
    }
    Ok(rows)
}

/// Buffers that a launch writes.
pub(super) fn written(kernel: &Kernel) -> Vec<BufferId> {
    let emitted = |emit: &Emit| match emit.to {
        Activation::Float { data } => vec![data],
        Activation::Quantized { data, scale } => vec![data, scale],
    };
    match kernel {
        Kernel::Embed { out, .. }
        | Kernel::SelectOutputs { out, .. }
        | Kernel::Add { out, .. }
        | Kernel::Dequantize { out, .. }
        | Kernel::Conv1d { out, .. }
        | Kernel::SsmScan { out, .. } => vec![*out],
        Kernel::Linear { segments, .. } => segments.iter().map(|segment| segment.out).collect(),
        Kernel::RmsNorm { x, delta, emit, .. } => {
            // The sum is written back.
            let sum = delta.map(|_| *x);
            sum.into_iter().chain(emitted(emit)).collect()
        }
        Kernel::Map { emit, .. }
        | Kernel::GatedRmsNorm { emit, .. }
        | Kernel::Mixer { emit, .. }
        | Kernel::Attention { emit, .. } => emitted(emit),
    }
}

/// The 8-bit buffer that a launch writes.
fn quantized(plan: &Plan, kernel: &Kernel) -> Option<BufferId> {
    written(kernel).into_iter().find(|id| matches!(plan.buffer(*id).dtype, DType::I8 | DType::U8))
}

/// Moves what a launch has just written.
struct Mover<'m> {
    reference: &'m mut dyn LaunchByLaunch,
    relative: f64,
    chances: Chances,
    random: &'m mut Pcg64,
}

impl Mover<'_> {
    fn buffer(&mut self, id: BufferId) -> Result<(), DeviceError> {
        let step = match self.reference.plan().buffer(id).dtype {
            DType::F32 if self.relative > 0.0 => {
                let mut floats = self.reference.read_floats(id)?.into_owned();
                move_floats(&mut floats, self.relative, self.random);
                return self.reference.write_buffer(id, bytemuck::cast_slice(&floats));
            }
            DType::I8 if self.chances.quantized > 0.0 => step_i8,
            DType::U8 if self.chances.quantized > 0.0 => step_u8,
            _ => return Ok(()),
        };
        let mut bytes = self.reference.read_buffer(id)?.into_owned();
        for index in chosen(bytes.len(), self.chances.quantized, self.random) {
            bytes[index] = step(bytes[index], self.random.random());
        }
        self.reference.write_buffer(id, &bytes)
    }

    /// One 8-bit value of each sequence.
    fn one_of_each(&mut self, id: BufferId, batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError> {
        let buffer = self.reference.plan().buffer(id).clone();
        let step = if buffer.dtype == DType::U8 { step_u8 } else { step_i8 };
        let mut bytes = self.reference.read_buffer(id)?.into_owned();
        let mut rest = &mut bytes[..];
        for chunk in batch {
            let rows;
            (rows, rest) = rest.split_at_mut(chunk.tokens.len() * buffer.cols);
            let at = self.random.random_range(0..rows.len());
            rows[at] = step(rows[at], self.random.random());
        }
        self.reference.write_buffer(id, &bytes)
    }

    fn state(&mut self, slot: SlotId, id: StateId) -> Result<(), DeviceError> {
        let state = self.reference.plan().state(id).clone();
        if state.kind == StateKind::Kv {
            // Appended as they were moved.
            return Ok(());
        }
        if state.dtype == DType::F32 {
            if self.relative == 0.0 {
                return Ok(());
            }
            let mut floats = vec![0.0; state.elements()];
            bytemuck::cast_slice_mut(&mut floats).copy_from_slice(&self.reference.read_state(slot, id)?);
            move_floats(&mut floats, self.relative, self.random);
            return self.reference.write_state(slot, id, bytemuck::cast_slice(&floats));
        }
        let mut bytes = self.reference.read_state(slot, id)?.into_owned();
        for index in chosen(state.elements(), self.chances.state, self.random) {
            let up = self.random.random();
            match state.dtype {
                DType::I8 => bytes[index] = step_i8(bytes[index], up),
                dtype => kept::step_half(&mut bytes[2 * index..][..2], dtype, up),
            }
        }
        self.reference.write_state(slot, id, &bytes)
    }
}

/// Each by a part of `relative` times the largest.
fn move_floats(values: &mut [f32], relative: f64, random: &mut Pcg64) {
    let seed: u64 = random.random();
    let parts = values.par_chunks(PART).map(|part| part.iter().fold(0.0f32, |most, value| most.max(value.abs())));
    let largest = parts.reduce(|| 0.0, f32::max);
    let reach = (relative * f64::from(largest)) as f32;
    if reach == 0.0 {
        return;
    }
    values.par_chunks_mut(PART).enumerate().for_each(|(part, values)| {
        let mut random = Pcg64::seed_from_u64(seed.wrapping_add(part as u64));
        values.iter_mut().for_each(|value| *value += reach * random.random_range(-1.0f32..1.0));
    });
}

/// Each index below `count` with the same probability, ascending.
fn chosen(count: usize, chance: f64, random: &mut Pcg64) -> Vec<usize> {
    if chance <= 0.0 {
        return Vec::new();
    }
    let mut indices = Vec::new();
    let mut next = 0usize;
    loop {
        // Failures before a success are distributed geometrically.
        let skipped = (1.0 - random.random::<f64>()).ln() / (1.0 - chance).ln();
        next = next.saturating_add(skipped as usize);
        if next >= count {
            return indices;
        }
        indices.push(next);
        next += 1;
    }
}

fn step_i8(byte: u8, up: bool) -> u8 {
    let value = byte as i8;
    (if up { value.saturating_add(1) } else { (value - 1).max(-127) }) as u8
}

fn step_u8(byte: u8, up: bool) -> u8 {
    if up { byte.saturating_add(1) } else { byte.saturating_sub(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::device::Device;
    use crate::plan::WeightFormat;
    use crate::synthetic::{Layout, Shape, model};

    fn logits(layout: &Layout, moves: impl Fn(&Plan) -> Moves, seed: u64) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let (plan, store) = model(&Shape::tiny(), layout, 1);
        let mut device = cpu::Device::new(&plan, &store, &cpu::Options::default()).unwrap();
        let slots = [device.create_slot().unwrap(), device.create_slot().unwrap()];
        let steps = [vec![vec![1, 2, 3], vec![4]], vec![vec![5], vec![6]]];
        let mut random = Pcg64::seed_from_u64(seed);
        let moved = moves(&plan).steps(&mut device, &slots, &steps, &mut random).unwrap();
        let mut expected = Vec::new();
        slots.iter().for_each(|slot| device.reset_slot(*slot).unwrap());
        for tokens in &steps {
            expected.push(device.step(&batch(&slots, tokens)).unwrap().values.to_vec());
        }
        (expected, moved)
    }

    #[test]
    fn where_nothing_differs_nothing_moves() {
        let (expected, moved) = logits(&Layout::of(WeightFormat::Float { dtype: DType::F32 }), Moves::none, 1);
        assert_eq!(expected, moved);
    }

    #[test]
    fn moves_repeat_with_their_seed_and_change_with_it() {
        for ssm_dtype in [DType::F32, DType::F16, DType::Bf16, DType::I8] {
            let layout = Layout { fused_mixer: true, ssm_dtype, ..Layout::of(WeightFormat::W8) };
            let [first, again, other] = [1, 1, 2].map(|seed| logits(&layout, Moves::none, seed).1);
            assert!(first == again && first != other, "{ssm_dtype}");
        }
    }

    #[test]
    fn a_wrong_launch_moves_by_no_more_than_its_bound() {
        let (plan, _) = model(&Shape::tiny(), &Layout::of(WeightFormat::W8), 1);
        let mut moves = Moves::none(&plan);
        let bound = Bound { relative: 1e-6, ..Bound::EXACT };
        for (launch, measured) in [2e-7, 0.5, f64::NAN, f64::INFINITY].into_iter().enumerate() {
            moves.take(launch, measured, &bound);
        }
        assert_eq!(moves.relative[..5], [2e-7, 1e-6, 1e-6, 1e-6, 0.0]);
    }

    #[test]
    fn floats_move_up_and_down_by_parts_of_the_largest() {
        let mut values = vec![0.5f32; 9000];
        values[8999] = -4.0;
        move_floats(&mut values, 1e-3, &mut Pcg64::seed_from_u64(3));
        let moved: Vec<f32> = values[..8999].iter().map(|value| value - 0.5).collect();
        let (least, most) = moved.iter().fold((0.0f32, 0.0f32), |(least, most), v| (least.min(*v), most.max(*v)));
        assert!((-0.0041..-0.0039).contains(&least) && (0.0039..0.0041).contains(&most), "{least} {most}");
    }

    #[test]
    fn as_many_values_are_chosen_as_is_likely_and_none_twice() {
        let indices = chosen(1_000_000, 1e-3, &mut Pcg64::seed_from_u64(5));
        assert!((850..1150).contains(&indices.len()), "{}", indices.len());
        assert!(indices.is_sorted_by(|a, b| a < b) && indices.iter().all(|index| *index < 1_000_000));
        assert!(chosen(1_000_000, 0.0, &mut Pcg64::seed_from_u64(5)).is_empty());
    }

    #[test]
    fn integers_stay_in_their_ranges() {
        assert_eq!([step_u8(255, true), step_u8(0, false), step_u8(7, true)], [255, 0, 8]);
        assert_eq!(
            [step_i8(127, true), step_i8(129, false), step_i8(0, false)].map(|byte| byte as i8),
            [127, -127, -1]
        );
    }
}
