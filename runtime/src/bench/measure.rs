//! The measurements.

use super::{
    KernelRow, KernelTable, Load, Memory, Options, RaceRow, Report, Roofline, Row, StepSize, Timed, Work, work,
};
use crate::cuda::LaunchTime;
use crate::device::{DeviceError, Outputs, SequenceChunk, SlotId};
use crate::generate::{GenerateError, prefill};
use crate::median::median;
use crate::memory::{Footprint, Use};
use crate::plan::{Activation, Kernel, Launch, Plan, Rows};
use crate::verify::kernel_name;
use std::time::Instant;

/// What one more launch in a graph costs, as measured on an H200.
const LAUNCH_SECONDS: f64 = 2.5e-6;
/// Steps that the host's clock sees.
const WALL_STEPS: usize = 16;
/// The per-kernel table of prefill is of at most this many tokens.
const TABLE_TOKENS: usize = 2048;

/// Measures a device. `load` is how long it took to get there, without what the device knows of it.
pub fn measure(
    device: &mut dyn Timed,
    footprint: Footprint,
    load: Load,
    options: &Options,
) -> Result<Report, GenerateError> {
    let plan = device.plan().clone();
    let bytes_per_second = device.read_bandwidth()?;
    let peak = device.int8_peak()?;
    // Without tensor cores memory is what a step waits for.
    let int8_ops_per_second = peak.map_or(f64::INFINITY, |peak| peak.ops_per_second);
    let launch_seconds = if peak.is_some() { LAUNCH_SECONDS } else { 0.0 };
    let roofline = Roofline { bytes_per_second, int8_ops_per_second, launch_seconds };
    let load =
        Load { upload_seconds: device.upload_seconds(), copy_bytes_per_second: device.upload_bandwidth()?, ..load };
    let mut report = start(&plan, device.description(), roofline, options);
    report.roofline_measured = true;
    report.int8_peak = peak;
    report.load = Some(load);
    let mut memory = Memory { weights: footprint.weights, buffers: 0, states: 0 };
    for row in &mut report.decode {
        memory = decode(device, row, options.repeats, &mut report.kernels, &roofline)?.unwrap_or(memory);
    }
    for row in &mut report.prefill {
        time_prefill(device, row, options.repeats.min(3))?;
    }
    if let Some(tokens) = options.prefill.iter().copied().max() {
        report.kernels.push(prefill_table(device, tokens, &roofline)?);
    }
    if memory.buffers == 0 {
        let needs = footprint.needs(largest_use(options));
        memory = Memory { weights: needs.weights, buffers: needs.buffers, states: needs.states + needs.kv };
    }
    report.memory = memory;
    report.kernels_used = device.kernels_used();
    Ok(report)
}

/// The same without a device: predictions of a roofline.
pub fn predicted(plan: &Plan, footprint: Footprint, name: &str, roofline: Roofline, options: &Options) -> Report {
    let mut report = start(plan, format!("{name}, predicted"), roofline, options);
    let needs = footprint.needs(largest_use(options));
    report.memory = Memory { weights: needs.weights, buffers: needs.buffers, states: needs.states + needs.kv };
    let longest = options.prefill.iter().copied().max().map(|tokens| (1, tokens.min(TABLE_TOKENS)));
    let first = options.decode.first().map(|sequences| (*sequences, 1));
    for (sequences, tokens) in first.into_iter().chain(longest) {
        let step = StepSize { sequences, tokens, context: if tokens == 1 { options.context } else { 0 } };
        report.kernels.push(kernel_table(plan, step, &roofline, None));
    }
    report
}

fn largest_use(options: &Options) -> Use {
    let batch = options.decode.iter().copied().max().unwrap_or(1);
    let longest = options.prefill.iter().copied().max().unwrap_or(0);
    let context = longest.div_ceil(batch).max(options.context + 1);
    Use { context: context as u64, batch: batch as u64, step_rows: options.step_rows as u64 }
}

fn start(plan: &Plan, device: String, roofline: Roofline, options: &Options) -> Report {
    let row = |sequences, tokens, context| {
        let step = StepSize { sequences, tokens, context };
        let predicted_us = work::predict(plan, step, &roofline) * 1e6;
        let work = work::of_step(plan, step);
        Row { sequences, tokens, context, work, predicted_us, measured_us: None, wall_us: None }
    };
    Report {
        model: plan.model.name.clone(),
        phase: plan.model.phase.clone(),
        device,
        roofline,
        roofline_measured: false,
        int8_peak: None,
        load: None,
        memory: Memory { weights: 0, buffers: 0, states: 0 },
        decode: options.decode.iter().map(|sequences| row(*sequences, 1, options.context)).collect(),
        prefill: options.prefill.iter().map(|tokens| row(1, *tokens, 0)).collect(),
        kernels: Vec::new(),
        kernels_used: Vec::new(),
    }
}

/// Made-up tokens, the same every time.
fn tokens(device: &dyn Timed, count: usize) -> Vec<u32> {
    let vocab_size = device.plan().model.vocab_size as u32;
    (0..count as u32).map(|index| index.wrapping_mul(37) % vocab_size).collect()
}

fn slots(device: &mut dyn Timed, count: usize) -> Result<Vec<SlotId>, DeviceError> {
    (0..count).map(|_| device.create_slot()).collect()
}

fn batch<'t>(slots: &[SlotId], tokens: &'t [u32]) -> Vec<SequenceChunk<'t>> {
    slots.iter().map(|slot| SequenceChunk { slot: *slot, tokens, outputs: Outputs::Last }).collect()
}

fn decode(
    device: &mut dyn Timed,
    row: &mut Row,
    repeats: usize,
    tables: &mut Vec<KernelTable>,
    roofline: &Roofline,
) -> Result<Option<Memory>, GenerateError> {
    let slots = slots(device, row.sequences)?;
    let step_rows = device.limits().step_rows;
    if row.context > 0 {
        let prompt = tokens(device, row.context);
        for (slot, tokens) in slots.iter().flat_map(|slot| prompt.chunks(step_rows).map(|tokens| (*slot, tokens))) {
            device.skip(&[SequenceChunk { slot, tokens, outputs: Outputs::None }])?;
        }
    }
    let token = tokens(device, 1);
    let batch = batch(&slots, &token);
    row.measured_us = Some(device.time_step(&batch, repeats)?);
    // The first of its table is the one that people look at: one sequence, as a rule.
    if tables.is_empty() || row.sequences == 16 {
        let times = device.time_launches(&batch, repeats.div_ceil(4))?;
        let step = StepSize { sequences: row.sequences, tokens: 1, context: row.context };
        tables.push(kernel_table(&device.plan().clone(), step, roofline, Some(&times)));
    }
    device.step_greedy(&batch)?;
    let started = Instant::now();
    for _ in 0..WALL_STEPS {
        device.step_greedy(&batch)?;
    }
    row.wall_us = Some(started.elapsed().as_secs_f64() * 1e6 / WALL_STEPS as f64);
    let memory = device.memory();
    slots.into_iter().try_for_each(|slot| device.release_slot(slot))?;
    Ok(memory)
}

/// As a prompt is really read: in steps of as many tokens as there is room for, and the last logits fetched.
fn time_prefill(device: &mut dyn Timed, row: &mut Row, repeats: usize) -> Result<(), GenerateError> {
    let prompt = tokens(device, row.tokens);
    let slot = device.create_slot()?;
    let mut times = Vec::new();
    for run in 0..=repeats {
        device.reset_slot(slot)?;
        let started = Instant::now();
        prefill(device, slot, &prompt, None)?;
        // The first run touches pages and grows buffers.
        if run > 0 || repeats == 0 {
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    device.release_slot(slot)?;
    row.wall_us = Some(median(times));
    Ok(())
}

fn prefill_table(
    device: &mut dyn Timed,
    tokens_wanted: usize,
    roofline: &Roofline,
) -> Result<KernelTable, DeviceError> {
    let count = tokens_wanted.min(TABLE_TOKENS).min(device.limits().step_rows);
    let prompt = tokens(device, count);
    let slot = device.create_slot()?;
    let times = device.time_launches(&batch(&[slot], &prompt), 2)?;
    device.release_slot(slot)?;
    let step = StepSize { sequences: 1, tokens: count, context: 0 };
    let plan = device.plan().clone();
    let mut table = kernel_table(&plan, step, roofline, Some(&times));
    for row in &mut table.rows {
        let like = |launch: &Launch| kernel_name(&launch.kernel) == row.kernel && kind(&launch.origin) == row.origin;
        let Some(launch) = plan.launches.iter().position(like) else { continue };
        if !multiplies_tokens(&plan, &plan.launches[launch].kernel) {
            continue;
        }
        let Some(race) = device.race_vendor(launch, count)? else { continue };
        row.vendor_us = Some(f64::from(race.rested.vendor_us) * row.launches as f64);
        table.races.push(RaceRow { origin: row.origin.clone(), race });
    }
    Ok(table)
}

/// Whether it is an integer linear over all tokens.
fn multiplies_tokens(plan: &Plan, kernel: &Kernel) -> bool {
    let Kernel::Linear { x: Activation::Quantized { data, .. }, .. } = kernel else { return false };
    plan.buffer(*data).rows == Rows::Token
}

/// The name of what makes W8 of W4 weights, which is no launch of the plan.
const EXPANSION: &str = "expand W4";

fn kernel_table(plan: &Plan, step: StepSize, roofline: &Roofline, times: Option<&[LaunchTime]>) -> KernelTable {
    let mut rows: Vec<KernelRow> = Vec::new();
    for (index, launch) in plan.launches.iter().enumerate() {
        let (kernel, origin) = (kernel_name(&launch.kernel), kind(&launch.origin));
        let at = rows.iter().position(|row| row.kernel == kernel && row.origin == origin).unwrap_or_else(|| {
            rows.push(KernelRow::new(kernel, origin, times.map(|_| 0.0)));
            rows.len() - 1
        });
        let row = &mut rows[at];
        let work = work::of_launch(plan, launch, step);
        row.launches += 1;
        row.work += work;
        row.predicted_us += roofline.seconds(work) * 1e6;
        if let (Some(sum), Some(times)) = (&mut row.measured_us, times) {
            *sum += times.get(index).map_or(f64::NAN, |time| f64::from(time.elapsed_us));
        }
    }
    rows.extend(times.and_then(|times| beside(plan, times)));
    let time = |row: &KernelRow| row.measured_us.unwrap_or(row.predicted_us);
    rows.sort_by(|a, b| time(b).total_cmp(&time(a)));
    KernelTable { sequences: step.sequences, tokens: step.tokens, rows, races: Vec::new() }
}

/// What ran beside launches, if anything did.
fn beside(plan: &Plan, times: &[LaunchTime]) -> Option<KernelRow> {
    let first = times.iter().find(|time| time.beside_us.is_some())?;
    let forks: Vec<f64> = times.iter().filter_map(|time| time.beside_us).map(f64::from).collect();
    let origin = format!("beside {}", kind(&plan.launches[first.launch].origin));
    let row = KernelRow::new(EXPANSION, origin, Some(forks.iter().sum()));
    Some(KernelRow { launches: forks.len(), beside: true, ..row })
}

impl KernelRow {
    fn new(kernel: &'static str, origin: String, measured_us: Option<f64>) -> KernelRow {
        let work = Work::default();
        KernelRow { kernel, origin, launches: 0, work, predicted_us: 0.0, measured_us, beside: false, vendor_us: None }
    }
}

/// `layers.3.mixer.in_proj` of any layer is `mixer.in_proj`.
fn kind(origin: &str) -> String {
    let inside = origin.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
    inside.map_or(origin, |(_, name)| name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::device::Device;
    use crate::plan::{Cost, WeightFormat};
    use crate::synthetic::{Layout, Shape, model};

    const ROOFLINE: Roofline =
        Roofline { bytes_per_second: 1e9, int8_ops_per_second: 1e12, launch_seconds: LAUNCH_SECONDS };

    fn options() -> Options {
        Options { decode: vec![1, 3], prefill: vec![4, 9], context: 2, step_rows: 9, repeats: 2 }
    }

    fn tiny() -> (Plan, crate::synthetic::MemoryStore, Footprint) {
        let (mut plan, store) = model(&Shape::tiny(), &Layout::of(WeightFormat::W8), 1);
        for launch in &mut plan.launches {
            launch.cost = Cost { fixed_bytes: 1000, row_bytes: 10, sequence_bytes: 100, row_ops: 7 };
        }
        let footprint = Footprint::of_plan(&plan, 5000);
        (plan, store, footprint)
    }

    #[test]
    fn every_step_and_launch_gets_a_time() {
        let (plan, store, footprint) = tiny();
        let mut device = cpu::Device::new(&plan, &store, &cpu::Options::default()).unwrap();
        let load = Load { seconds: 0.5, bytes: 5000, upload_seconds: None, copy_bytes_per_second: None };
        let report = measure(&mut device, footprint, load, &options()).unwrap();
        assert!(report.decode.iter().all(|row| row.measured_us > Some(0.0) && row.wall_us > Some(0.0)));
        assert!(report.prefill.iter().all(|row| row.measured_us.is_none() && row.wall_us > Some(0.0)));
        assert_eq!(report.kernels.len(), 2);
        for table in &report.kernels {
            assert_eq!(table.rows.iter().map(|row| row.launches).sum::<usize>(), plan.launches.len());
            assert!(table.rows.iter().all(|row| row.measured_us > Some(0.0)));
            assert!(table.rows.is_sorted_by(|a, b| a.measured_us >= b.measured_us));
        }
        assert!(report.memory.weights == 5000 && report.memory.states > 0);
        assert_eq!(report.load.unwrap().upload_rate(), None);
        let slots_left = (0..4).filter(|slot| device.position(SlotId(*slot)).is_ok()).count();
        assert_eq!(slots_left, 0);
    }

    #[test]
    fn predicts_without_a_device() {
        let (plan, _, footprint) = tiny();
        let report = predicted(&plan, footprint, "abacus", ROOFLINE, &options());
        assert!(report.decode.iter().chain(&report.prefill).all(|row| row.measured_us.is_none()));
        let launches = plan.launches.len() as f64;
        let expected = launches * (1e-6 * (1000.0 + 10.0 + 100.0) * 1e6 / 1e3 + 2.5);
        let found = report.decode[0].predicted_us;
        // The caches of two tokens come on top.
        assert!(found > expected && found < expected * 1.2, "{found} {expected}");
        assert_eq!(report.kernels.len(), 2);
    }

    #[test]
    fn integer_linears_of_tokens_are_products_for_the_vendor() {
        let (plan, _, _) = tiny();
        let products = plan.launches.iter().filter(|launch| multiplies_tokens(&plan, &launch.kernel)).count();
        let linears = plan.launches.iter().filter(|launch| kernel_name(&launch.kernel) == "linear").count();
        // All but the head, whose rows are those of the logits.
        assert_eq!(products, linears - 1);
    }

    #[test]
    fn what_runs_beside_a_launch_has_a_row_of_its_own() {
        let (plan, _, _) = tiny();
        let time = |launch| LaunchTime { launch, elapsed_us: 10.0, beside_us: (launch % 2 == 1).then_some(3.0) };
        let times: Vec<LaunchTime> = (0..plan.launches.len()).map(time).collect();
        let step = StepSize { sequences: 1, tokens: 9, context: 0 };
        let table = kernel_table(&plan, step, &ROOFLINE, Some(&times));
        let (beside, others): (Vec<_>, Vec<_>) = table.rows.iter().partition(|row| row.beside);
        let forks = plan.launches.len() / 2;
        assert_eq!((beside.len(), beside[0].launches, beside[0].measured_us), (1, forks, Some(3.0 * forks as f64)));
        let sum: f64 = others.iter().filter_map(|row| row.measured_us).sum();
        assert_eq!(sum, 10.0 * plan.launches.len() as f64);
    }

    #[test]
    fn a_kind_has_no_layer_number() {
        assert_eq!(kind("layers.12.mixer.in_proj"), "mixer.in_proj");
        assert_eq!(kind("lm_head"), "lm_head");
    }
}
