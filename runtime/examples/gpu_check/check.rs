//! Small models of odd and even shapes, every format and layout, prefill and decode, one and several sequences.

use crate::{Folder, attention, rings};
use runtime::cpu;
use runtime::cuda;
use runtime::device::{Device, LaunchByLaunch, Limits, Outputs, SequenceChunk, SlotId};
use runtime::plan::{DType, WeightFormat};
use runtime::synthetic::{Layout, Shape, model};
use runtime::verify::{Bound, LaunchDifference, verify_step};
use std::collections::BTreeMap;
use std::error::Error;

/// Largest float difference over the largest value: a few hundred roundings of 2^-24 in sums of some thousand terms,
/// and what one 8-bit rounding of an activation makes of the next float.
const RELATIVE: f64 = 2e-4;
/// 8-bit values that may fall to the other side of a half, and values of narrow states to another neighbor.
const BOUND: Bound = Bound { relative: RELATIVE, quantized_share: 0.02, state_share: 0.02 };

pub struct Case {
    pub name: String,
    pub shape: Shape,
    pub layout: Layout,
    /// Tokens of each sequence in each step.
    pub steps: Vec<Vec<usize>>,
}

/// The shape the issue asks for: nothing divides anything.
fn odd() -> Shape {
    Shape {
        layer_pattern: "MM-*".to_owned(),
        hidden_size: 320,
        vocab_size: 1003,
        mamba_heads: 10,
        mamba_head_dim: 32,
        groups: 5,
        state_size: 32,
        conv_kernel: 4,
        intermediate_size: 832,
        heads: 8,
        kv_heads: 2,
        head_dim: 40,
    }
}

fn formats() -> Vec<(&'static str, WeightFormat)> {
    vec![
        ("f32", WeightFormat::Float { dtype: DType::F32 }),
        ("f16", WeightFormat::Float { dtype: DType::F16 }),
        ("bf16", WeightFormat::Float { dtype: DType::Bf16 }),
        ("w8", WeightFormat::W8),
        ("w4", WeightFormat::W4TwoLevel { group_size: 128 }),
        ("w4 groups of 32", WeightFormat::W4TwoLevel { group_size: 32 }),
        ("w4 f16 scales", WeightFormat::W4Group { group_size: 128 }),
        ("w4 f16 scales, groups of 64", WeightFormat::W4Group { group_size: 64 }),
    ]
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let short = vec![vec![5, 1, 3], vec![1, 1, 1], vec![1, 1, 1]];
    let long = vec![vec![129], vec![100], vec![1]];
    let kept = [DType::F32, DType::I8, DType::F16, DType::Bf16];
    for (index, (format_name, format)) in formats().into_iter().enumerate() {
        for (shape_name, shape) in [("tiny", Shape::tiny()), ("odd", odd())] {
            for fancy in [false, true] {
                let layout = Layout {
                    fused_mixer: fancy,
                    separate_dequantize: fancy,
                    hadamard_block: fancy.then_some(16),
                    kv_dtype: if fancy { kept[(index + 1) % 4] } else { DType::F16 },
                    ssm_dtype: kept[(index + usize::from(fancy)) % 4],
                    ..Layout::of(format)
                };
                let name = format!("{shape_name}, {format_name}{}", if fancy { ", fused" } else { "" });
                cases.push(Case { name, shape: shape.clone(), layout, steps: short.clone() });
            }
        }
    }
    for (format_name, format) in formats().into_iter().take(3) {
        let name = format!("odd, {format_name}, 131 and 70 rows");
        let steps = vec![vec![70, 61], vec![69, 1], vec![1, 1]];
        cases.push(Case { name, shape: odd(), layout: Layout::of(format), steps });
    }
    for (format_name, format) in formats().into_iter().skip(2).take(3) {
        let layout = Layout { fused_mixer: true, hadamard_block: Some(64), ..Layout::of(format) };
        let shape = Shape { layer_pattern: "M-*-".to_owned(), ..Shape::mini() };
        let case = |name: String, steps: Vec<Vec<usize>>| Case { name, shape: shape.clone(), layout, steps };
        cases.push(case(format!("mini, {format_name}, 129 + 100 + 1"), long.clone()));
        cases.push(case(format!("mini, {format_name}, 12 sequences"), vec![vec![1; 12], vec![1; 12]]));
        cases.push(case(format!("mini, {format_name}, 20 and 50 rows"), vec![vec![15, 5], vec![40, 10]]));
    }
    for (format_name, format) in formats().into_iter().skip(3).take(2) {
        // Rows of results that the copy engine stores, and of 10 features, which it does not.
        let layout = Layout { fused_mixer: true, hadamard_block: Some(16), ..Layout::of(format) };
        let name = format!("odd, {format_name}, 129 + 100 + 1");
        cases.push(Case { name, shape: odd(), layout, steps: long.clone() });
        for (block, intermediate_size) in [(256, 2560), (1024, 2048)] {
            let layout = Layout { fused_mixer: true, hadamard_block: Some(block), ..Layout::of(format) };
            let shape = Shape { layer_pattern: "M-*-".to_owned(), intermediate_size, ..Shape::mini() };
            let name = format!("mini, {format_name}, rotated by {block}");
            cases.push(Case { name, shape, layout, steps: vec![vec![40], vec![1], vec![1]] });
        }
        // Gated rows that one sequence's out_proj makes itself: one or two turns, several pieces a group.
        for (block, mamba_heads, groups) in
            [(Some(256), 48, 4), (None, 64, 4), (Some(1024), 64, 4), (Some(128), 128, 8), (Some(512), 160, 8)]
        {
            let layout = Layout { fused_mixer: true, hadamard_block: block, ..Layout::of(format) };
            let shape =
                Shape { layer_pattern: "M-".to_owned(), mamba_heads, groups, intermediate_size: 2048, ..Shape::mini() };
            let name = format!("gated rows, {format_name}, {} columns", mamba_heads * 64);
            cases.push(Case { name, shape, layout, steps: vec![vec![40], vec![5], vec![1], vec![1]] });
        }
    }
    cases.extend(norms());
    // Tiles of more than one round, the last of which is cut in two: clusters that share tokens, or weights.
    for (intermediate_size, steps) in [(8448, vec![vec![300], vec![257]]), (4224, vec![vec![700], vec![129]])] {
        let layout = Layout::of(WeightFormat::W8);
        let shape = Shape { layer_pattern: "-".to_owned(), intermediate_size, ..Shape::mini() };
        cases.push(Case { name: format!("many tiles, {intermediate_size} columns"), shape, layout, steps });
    }
    // Rows that are mapped by clusters: unequal parts, an unfinished last piece, more pieces than a cluster has warps. Of more
    // than 64 rows by one block, or by two.
    for (block, intermediate_size, rows) in [
        (Some(256), 5376, 5),
        (Some(256), 3584, 5),
        (None, 4096, 5),
        (Some(256), 21_504, 1),
        (Some(256), 21_504, 5),
        (None, 3232, 3),
        (None, 23_928, 5),
        (Some(256), 25_600, 1),
        (Some(256), 25_600, 6),
    ] {
        let layout = Layout { hadamard_block: block, ..Layout::of(WeightFormat::W8) };
        let shape = Shape { layer_pattern: "-".to_owned(), intermediate_size, ..Shape::tiny() };
        let name = format!("maps, {rows} rows of {intermediate_size} columns");
        cases.push(Case { name, shape, layout, steps: vec![vec![1; rows], vec![14; rows]] });
    }
    cases.extend(mixers_of_several());
    cases.extend(attention::cases());
    cases.extend(scans());
    cases.extend(rings::cases());
    cases
}

/// Scans of many tokens: chunks that end anywhere, sequences of different lengths, every type of state.
fn scans() -> Vec<Case> {
    let mut cases = Vec::new();
    let one = vec![vec![64], vec![200], vec![33], vec![1]];
    let several = vec![vec![1, 100, 15, 63, 65], vec![40, 1, 32, 7, 130]];
    // Heads, groups, head_dim, state_size.
    for (heads, groups, head_dim, state_size) in [(8, 2, 64, 128), (10, 5, 32, 32), (3, 1, 100, 68), (4, 4, 16, 256)] {
        for ssm_dtype in [DType::F32, DType::I8, DType::F16, DType::Bf16] {
            let layout = Layout { fused_mixer: groups == 2, ssm_dtype, ..Layout::of(WeightFormat::W8) };
            let shape = Shape {
                layer_pattern: "M".to_owned(),
                mamba_heads: heads,
                mamba_head_dim: head_dim,
                groups,
                state_size,
                ..Shape::tiny()
            };
            for (length, steps) in [("one sequence", &one), ("several", &several)] {
                let name = format!("scan, {ssm_dtype:?}, {heads} heads of {head_dim} x {state_size}, {length}");
                cases.push(Case { name, shape: shape.clone(), layout, steps: steps.clone() });
            }
        }
    }
    cases
}

/// Norms of two, four and eight blocks a row, in one turn and in two, and one of whole pieces for one block alone; linears of 5 to
/// 16 rows behind them. Norms of more rows than are shared by blocks: of one warp's pieces to those of eight.
fn norms() -> Vec<Case> {
    let mut cases = Vec::new();
    for (format_name, format) in formats().into_iter().skip(3).take(2) {
        for (hidden_size, rows) in [(1024, 5), (1536, 8), (2048, 16), (4096, 7), (4096, 40), (8192, 6), (1152, 12)] {
            let layer_pattern = "-".to_owned();
            let shape = Shape { layer_pattern, hidden_size, intermediate_size: 1280, ..Shape::tiny() };
            let name = format!("norms, {format_name}, {rows} rows of {hidden_size} columns");
            cases.push(Case { name, shape, layout: Layout::of(format), steps: vec![vec![1; rows]; 2] });
        }
        for (hidden_size, rows) in [(128, 67), (1152, 65), (4096, 70), (5120, 66), (8192, 65)] {
            let layer_pattern = "-".to_owned();
            let shape = Shape { layer_pattern, hidden_size, intermediate_size: 320, ..Shape::tiny() };
            let name = format!("norms, {format_name}, a prompt of {rows} rows of {hidden_size} columns");
            cases.push(Case { name, shape, layout: Layout::of(format), steps: vec![vec![rows]] });
        }
    }
    cases
}

/// Mixers of four sequences and more: norms of one to eight blocks a row, and some that their kernel leaves to another; heads of
/// one piece and of several; a convolution of three taps. One sequence's convolutions of few taps and of many.
fn mixers_of_several() -> Vec<Case> {
    let shapes = [
        (Some(256), 16, 64, 4, 4, 4),
        (Some(256), 48, 64, 4, 4, 7),
        (None, 64, 64, 4, 3, 6),
        (Some(1024), 64, 64, 4, 4, 33),
        (Some(512), 128, 64, 8, 4, 16),
        (Some(512), 160, 64, 8, 4, 5),
        (Some(256), 32, 16, 2, 4, 9),
        (Some(256), 16, 64, 4, 2, 1),
        (Some(256), 16, 64, 4, 6, 1),
    ];
    let case = |(block, mamba_heads, mamba_head_dim, groups, conv_kernel, sequences)| {
        let layout = Layout { fused_mixer: true, hadamard_block: block, ..Layout::of(WeightFormat::W8) };
        let layer_pattern = "M-".to_owned();
        let mini = Shape { layer_pattern, intermediate_size: 2048, ..Shape::mini() };
        let shape = Shape { mamba_heads, mamba_head_dim, groups, conv_kernel, ..mini };
        let name = format!("mixers of {sequences}, {} columns, {conv_kernel} taps", mamba_heads * mamba_head_dim);
        Case { name, shape, layout, steps: vec![vec![1; sequences], vec![1; sequences], vec![1; sequences]] }
    };
    shapes.into_iter().map(case).chain(kept_states_of_several()).collect()
}

/// The same by the type and the width of what is kept: whole rows, rows of whole and of half 16 bytes, more sequences than warps,
/// and heads that are no whole pieces.
fn kept_states_of_several() -> Vec<Case> {
    let shapes =
        [(64, 64, 4, 128, 16), (16, 64, 4, 128, 40), (32, 16, 2, 68, 9), (16, 64, 4, 72, 4), (16, 40, 2, 128, 5)];
    let types = [DType::F32, DType::F16, DType::Bf16, DType::I8];
    let mut cases = Vec::new();
    for (ssm_dtype, (mamba_heads, mamba_head_dim, groups, state_size, sequences)) in
        types.into_iter().flat_map(|ssm_dtype| shapes.map(|shape| (ssm_dtype, shape)))
    {
        let layout = Layout { fused_mixer: true, ssm_dtype, ..Layout::of(WeightFormat::W8) };
        let mini = Shape { layer_pattern: "M-".to_owned(), intermediate_size: 2048, ..Shape::mini() };
        let shape = Shape { mamba_heads, mamba_head_dim, groups, state_size, ..mini };
        let name = format!("mixers of {sequences}, {ssm_dtype:?} states of {mamba_head_dim} x {state_size}");
        cases.push(Case { name, shape, layout, steps: vec![vec![1; sequences]; 3] });
    }
    cases
}

#[derive(Default)]
struct Worst {
    launches: usize,
    accumulators: u64,
    quantized: u64,
    quantized_share: f64,
    relative: f64,
}

/// Returns how many launches failed, of the chosen cases.
pub fn run(images: &Folder, chosen: impl Fn(&str) -> bool) -> Result<usize, Box<dyn Error>> {
    let mut worst: BTreeMap<&'static str, Worst> = BTreeMap::new();
    let mut failures = 0;
    for case in cases().into_iter().filter(|case| chosen(&case.name)) {
        let differences = differences(&case, images)?;
        let failed: Vec<_> = differences.iter().filter(|d| !d.passes(&BOUND)).collect();
        println!("{:<48} {:>4} launches, {} failed", case.name, differences.len(), failed.len());
        for difference in failed.iter().take(6) {
            println!("    {difference:?}");
        }
        failures += failed.len();
        for difference in &differences {
            let entry = worst.entry(difference.kernel).or_default();
            entry.launches += 1;
            entry.accumulators = entry.accumulators.max(difference.accumulators);
            entry.quantized = entry.quantized.max(difference.quantized);
            entry.quantized_share = entry.quantized_share.max(difference.quantized_share);
            entry.relative = entry.relative.max(difference.relative);
        }
    }
    println!("\n{:<16} {:>8} {:>8} {:>8} {:>10} {:>12}", "kernel", "launches", "i32", "8-bit", "share", "float");
    for (kernel, worst) in worst {
        println!(
            "{kernel:<16} {:>8} {:>8} {:>8} {:>10.6} {:>12.3e}",
            worst.launches, worst.accumulators, worst.quantized, worst.quantized_share, worst.relative
        );
    }
    Ok(failures)
}

fn differences(case: &Case, images: &Folder) -> Result<Vec<LaunchDifference>, Box<dyn Error>> {
    let (plan, store) = model(&case.shape, &case.layout, 7);
    // The rows of the longest step of a case, rounded up.
    let limits = Limits { step_rows: 704, ..Limits::default() };
    let mut reference = cpu::Device::new(&plan, &store, &cpu::Options { threads: None, limits })?;
    let mut device = cuda::Device::new(&plan, &store, images, &cuda::Options { ordinal: 0, limits })?;
    let mut random = 12345u32;
    let mut differences = Vec::new();
    for _ in 0..case.steps[0].len() {
        assert_eq!(reference.create_slot()?, device.create_slot()?);
    }
    for lengths in &case.steps {
        let tokens: Vec<Vec<u32>> = lengths
            .iter()
            .map(|length| {
                let mut next = || {
                    random = random.wrapping_mul(1664525).wrapping_add(1013904223);
                    (random >> 8) % case.shape.vocab_size as u32
                };
                (0..*length).map(|_| next()).collect()
            })
            .collect();
        let batch: Vec<SequenceChunk<'_>> = tokens
            .iter()
            .enumerate()
            .map(|(slot, tokens)| SequenceChunk { slot: SlotId(slot as u32), tokens, outputs: Outputs::Last })
            .collect();
        differences.extend(verify_step(&mut reference, &mut device, &batch)?);
    }
    whole_step_differs(&mut reference, &mut device, case, &mut differences)?;
    Ok(differences)
}

/// The logits of the same step on copies of these slots, one launch of the plan at a time.
fn launch_by_launch(
    device: &mut cuda::Device<'_>,
    slots: &[SlotId],
    tokens: &[u32],
) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut copies = Vec::new();
    for slot in slots {
        let copy = device.create_slot()?;
        device.copy_slot(*slot, copy)?;
        copies.push(copy);
    }
    let chunk = |slot: &SlotId| SequenceChunk { slot: *slot, tokens, outputs: Outputs::Last };
    let batch: Vec<SequenceChunk<'_>> = copies.iter().map(chunk).collect();
    device.begin(&batch)?;
    for index in 0..device.plan().launches.len() {
        device.run_launch(index)?;
    }
    let logits = device.finish()?.values.to_vec();
    copies.iter().try_for_each(|slot| device.release_slot(*slot))?;
    Ok(logits)
}

/// Logits of a prompt that are not those of its launches one by one, to the bit: what runs beside launches
/// must be there when it is needed, and not before.
pub fn unequal_logits(device: &mut cuda::Device<'_>, slot: SlotId, tokens: &[u32]) -> Result<u64, Box<dyn Error>> {
    let separate = launch_by_launch(device, &[slot], tokens)?;
    let found = device.step(&[SequenceChunk { slot, tokens, outputs: Outputs::Last }])?;
    Ok(unequal(&separate, found.values))
}

fn unequal(a: &[f32], b: &[f32]) -> u64 {
    a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count() as u64
}

/// One step as it really runs, with dependent launches and as a graph, twice: the second replays.
fn whole_step_differs(
    reference: &mut cpu::Device<'_>,
    device: &mut cuda::Device<'_>,
    case: &Case,
    differences: &mut Vec<LaunchDifference>,
) -> Result<(), Box<dyn Error>> {
    for _ in 0..2 {
        let batch: Vec<SequenceChunk<'_>> = (0..case.steps[0].len())
            .map(|slot| SequenceChunk { slot: SlotId(slot as u32), tokens: &[9], outputs: Outputs::Last })
            .collect();
        let expected = reference.step(&batch)?.values.to_vec();
        let slots: Vec<SlotId> = (0..case.steps[0].len() as u32).map(SlotId).collect();
        let separate = launch_by_launch(device, &slots, &[9])?;
        let found = device.step(&batch)?.values.to_vec();
        // Kernels that do two launches of the plan must add in the same order as two that do one each.
        let unequal = unequal(&separate, &found);
        let norm: f64 = expected.iter().map(|v| f64::from(*v).powi(2)).sum();
        let apart: f64 = expected.iter().zip(&found).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        let relative = (apart / norm).sqrt();
        // Over a whole model 8-bit roundings that fell apart add up: a hundredth of that is allowed per launch.
        println!("    logits of a whole step are {relative:.2e} apart");
        differences.push(LaunchDifference {
            launch: usize::MAX,
            kernel: "whole step",
            origin: "logits".to_owned(),
            accumulators: unequal,
            quantized: 0,
            quantized_share: 0.0,
            state_share: 0.0,
            relative: relative * 0.01,
        });
    }
    let prompt: Vec<u32> = (0..200).map(|token| token % case.shape.vocab_size as u32).collect();
    differences.push(LaunchDifference {
        launch: usize::MAX,
        kernel: "whole prompt",
        origin: "logits".to_owned(),
        accumulators: unequal_logits(device, SlotId(0), &prompt)?,
        quantized: 0,
        quantized_share: 0.0,
        state_share: 0.0,
        relative: 0.0,
    });
    Ok(())
}
