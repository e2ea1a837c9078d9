//! Times of whole steps and of every kernel, of the true 8B shape.

use crate::Folder;
use crate::check::unequal_logits;
use crate::model_8b::{self, Models, Scheme};
use runtime::cuda::{Device, LaunchTime, Options, Pair, Product};
use runtime::device::{Device as _, Limits, Outputs, SequenceChunk, SlotId};
use runtime::plan::{Activation, Kernel, Launch, Plan, Rows, State, StateKind};
use runtime::tensors::TensorStore;
use runtime::verify::kernel_name;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

pub fn run(images: &Folder, tasks: &[String]) -> Result<(), Box<dyn Error>> {
    let chosen = |task: &str| tasks.iter().any(|wanted| wanted == task);
    let schemes = model_8b::chosen(tasks, &["phase 1", "phase 2", "phase 3"]);
    let started = std::time::Instant::now();
    let models = Models::make(&schemes, !chosen("parts"), model_8b::state_dtype(tasks)?);
    println!("models made in {:.1} s", started.elapsed().as_secs_f64());
    for scheme in &schemes {
        let whole = !chosen("context");
        bench(&models, scheme, images, whole && !chosen("prefill"), whole && !chosen("decode"))?;
    }
    Ok(())
}

fn bench(models: &Models, scheme: &Scheme, images: &Folder, decode: bool, prefill: bool) -> Result<(), Box<dyn Error>> {
    let (plan, store) = models.build(scheme);
    let limits = Limits { step_rows: 2048, ..Limits::default() };
    let started = std::time::Instant::now();
    let mut device = Device::new(&plan, &store, images, &Options { ordinal: 0, limits })?;
    let seconds = started.elapsed().as_secs_f64();
    let (weights, buffers, _) = device.memory_bytes();
    println!("\n== {} on {}", scheme.name, device.description());
    println!("{:.2} GB of weights, {:.2} GB of buffers, ready in {seconds:.2} s", gb(weights), gb(buffers));
    let bandwidth = device.read_bandwidth()?;
    println!("read bandwidth {:.3} TB/s", bandwidth / 1e12);
    let tokens: Vec<u32> = (0..2048).map(|i| i * 37 % 131_072).collect();
    if !decode && !prefill {
        contexts(&plan, &mut device, &tokens)?;
    }
    let mut alone_us = f64::NAN;
    for sequences in [1, 4, 16, 32, 64].into_iter().filter(|_| decode) {
        let slots: Vec<SlotId> = (0..sequences).map(|_| device.create_slot()).collect::<Result<_, _>>()?;
        let batch: Vec<SequenceChunk<'_>> = slots
            .iter()
            .map(|slot| SequenceChunk { slot: *slot, tokens: &tokens[..1], outputs: Outputs::Last })
            .collect();
        let elapsed_us = device.time_step(&batch, 20)?;
        if sequences == 1 {
            alone_us = elapsed_us;
        }
        let bytes = decode_bytes(&plan, &store, sequences);
        let floor_us = bytes / bandwidth * 1e6;
        println!(
            "decode {sequences:>3}: {elapsed_us:>9.1} us, {:>8.1} tokens/s, floor {floor_us:.1} us, {:.1} % of the bandwidth, {:.2} times one sequence",
            sequences as f64 / elapsed_us * 1e6,
            floor_us / elapsed_us * 100.0,
            elapsed_us / alone_us
        );
        if sequences == 1 || sequences == 16 {
            table(&plan, &device.time_launches(&batch, 5)?);
        }
        slots.iter().try_for_each(|slot| device.release_slot(*slot))?;
    }
    for rows in [512, 2048].into_iter().filter(|_| prefill) {
        let slot = device.create_slot()?;
        let batch = [SequenceChunk { slot, tokens: &tokens[..rows], outputs: Outputs::Last }];
        let elapsed_us = device.time_step(&batch, 3)?;
        println!("prefill {rows}: {elapsed_us:.1} us, {:.0} tokens/s", rows as f64 / elapsed_us * 1e6);
        if rows == 2048 {
            table(&plan, &device.time_launches(&batch, 2)?);
        }
        let unequal = unequal_logits(&mut device, slot, &tokens[..rows])?;
        println!("    {unequal} logits differ from those of its launches one by one");
        against_vendor(&plan, &device, rows)?;
        device.release_slot(slot)?;
    }
    Ok(())
}

/// Decode after so many tokens, in rising order: keys and values are whatever is in memory.
fn contexts(plan: &Plan, device: &mut Device<'_>, tokens: &[u32]) -> Result<(), Box<dyn Error>> {
    let lengths = [
        (1, &[0, 50, 100, 200, 300, 512, 1024, 2048, 8192, 32_768, 131_071][..]),
        (4, &[50, 200, 1024, 8192]),
        (16, &[50, 200, 1024, 8192]),
        (32, &[50, 200, 1024]),
    ];
    for (sequences, lengths) in lengths {
        let slots: Vec<SlotId> = (0..sequences).map(|_| device.create_slot()).collect::<Result<_, _>>()?;
        let chunks = |count: usize| -> Vec<SequenceChunk<'_>> {
            let chunk = |slot: &SlotId| SequenceChunk { slot: *slot, tokens: &tokens[..count], outputs: Outputs::Last };
            slots.iter().map(chunk).collect()
        };
        for &context in lengths {
            while let missing @ 1.. = context - device.position(slots[0])? {
                device.skip(&chunks(missing.min(tokens.len() / sequences)))?;
            }
            let elapsed_us = device.time_step(&chunks(1), 20)?;
            let times = device.time_launches(&chunks(1), 5)?;
            let attention = |time: &&runtime::cuda::LaunchTime| {
                matches!(plan.launches[time.launch].kernel, Kernel::Attention { .. })
            };
            let attention_us: f32 = times.iter().filter(attention).map(|time| time.elapsed_us).sum();
            println!(
                "decode {sequences:>3} after {context:>6}: {elapsed_us:>9.1} us; attention by events {attention_us:>7.1} us"
            );
        }
        slots.iter().try_for_each(|slot| device.release_slot(*slot))?;
    }
    Ok(())
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// What one decode step must move: weights and scales of linears once, one embedding row and the fixed states of every
/// sequence, read and written.
fn decode_bytes(plan: &Plan, store: &dyn TensorStore, sequences: usize) -> f64 {
    let mut bytes = 0;
    for launch in &plan.launches {
        let Kernel::Linear { segments, .. } = &launch.kernel else { continue };
        for segment in segments {
            for part in ["weight", "scale", "group_scale"] {
                bytes += store.tensor(&format!("{}.{part}", segment.weight)).map_or(0, |view| view.bytes.len());
            }
        }
    }
    let fixed = plan.states.iter().filter(|state| state.kind != StateKind::Kv);
    let states: usize = fixed.map(State::bytes).sum();
    (bytes + 2 * sequences * states) as f64
}

/// Each kind of linear and the vendor's INT8 product of its shape, in turn.
fn against_vendor(plan: &Plan, device: &Device<'_>, rows: usize) -> Result<(), Box<dyn Error>> {
    let mut seen = BTreeSet::new();
    for (index, launch) in plan.launches.iter().enumerate() {
        let Kernel::Linear { x: Activation::Quantized { data, .. }, .. } = &launch.kernel else { continue };
        if plan.buffer(*data).rows != Rows::Token || !seen.insert(short_name(launch)) {
            continue;
        }
        let Some(race) = device.race_vendor(index, rows)? else { continue };
        let Product { rows, n, k } = race.product;
        let tops = |us: f32| 2e-6 * (rows * n * k) as f32 / us;
        let pair = |name: &str, Pair { ours_us, vendor_us }: Pair| {
            let rate = 100.0 * vendor_us / ours_us;
            format!("{name} {ours_us:>6.1} us, {:>4.0} TOPS, vendor {vendor_us:>6.1}: {rate:>5.1} %", tops(ours_us))
        };
        println!(
            "    {rows:>5} x {n:>5} x {k:>5} {:<10} {}; {}; {}{}",
            short_name(launch),
            pair("rested", race.rested),
            pair("settled", race.settled),
            pair("its first choice", race.first),
            race.expand_us.map_or(String::new(), |us| format!("; expansion by itself {us:.1} us"))
        );
    }
    Ok(())
}

fn short_name(launch: &Launch) -> String {
    let short = launch.origin.trim_start_matches(|c: char| c != '.').trim_start_matches(|c: char| !c.is_alphabetic());
    if short.is_empty() { launch.origin.clone() } else { short.to_owned() }
}

fn table(plan: &Plan, times: &[LaunchTime]) {
    let mut groups: BTreeMap<String, (usize, f64)> = BTreeMap::new();
    for time in times {
        let launch = &plan.launches[time.launch];
        let name = format!("{} {}", kernel_name(&launch.kernel), short_name(launch));
        let group = groups.entry(name).or_default();
        group.0 += 1;
        group.1 += f64::from(time.elapsed_us);
    }
    let total: f64 = groups.values().map(|group| group.1).sum();
    println!("    launch by launch {total:.0} us:");
    let beside: Vec<f32> = times.iter().filter_map(|time| time.beside_us).collect();
    if !beside.is_empty() {
        let sum: f32 = beside.iter().sum();
        println!("    beside the scans, no part of it: {} expansions of W4, {sum:.1} us", beside.len());
    }
    for (name, (count, sum)) in groups {
        println!("    {name:<36} {count:>3} x {:>9.1} us = {sum:>9.1}", sum / count as f64);
    }
}
