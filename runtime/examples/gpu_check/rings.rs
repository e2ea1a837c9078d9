//! Linears whose blocks have more tiles than their rings have stages: matrices of many short rows, and of few long ones.

use crate::check::Case;
use runtime::plan::WeightFormat;
use runtime::synthetic::{Layout, Shape};

const W8: WeightFormat = WeightFormat::W8;
const W4: WeightFormat = WeightFormat::W4TwoLevel { group_size: 128 };
const W4_GROUP: WeightFormat = WeightFormat::W4Group { group_size: 128 };

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Sequences for each kernel that takes few rows of the format.
    for (name, format, sequences) in [
        ("w8", W8, &[1, 2, 4, 7, 16, 24, 40][..]),
        ("w4", W4, &[1, 2, 4, 7, 24, 40]),
        ("w4 f16 scales", W4_GROUP, &[1, 2, 4, 7, 16, 24, 40]),
    ] {
        cases.extend(sequences.iter().map(|sequences| mlp(name, format, *sequences)));
    }
    for (formats, hidden_size, sequences) in [
        // With rows of two stages and of one.
        ([W8, W4, W4_GROUP], 2176, 1),
        ([W4_GROUP, W8, W4], 192, 1),
        ([W4, W4_GROUP, W8], 192, 2),
        ([W8, W4, W4_GROUP], 192, 4),
        // Pairs of blocks: scales come in again behind tiles without. Where rows are shorter, other kernels.
        ([W4, W8, W4], 2048, 7),
        ([W4, W8, W4], 2048, 24),
        ([W8, W4, W8], 2048, 40),
        ([W4, W8, W4], 256, 7),
        ([W4, W4, W8], 512, 24),
        ([W8, W4, W8], 256, 40),
        ([W4, W4_GROUP, W8], 192, 16),
        ([W4, W8, W4_GROUP], 192, 24),
    ] {
        cases.push(mixer(formats, hidden_size, sequences));
    }
    cases
}

fn case(name: String, shape: Shape, layout: Layout, sequences: usize) -> Case {
    Case { name, shape, layout, steps: vec![vec![1; sequences]; 2] }
}

/// Ten tiles a block of an H200, of which five are dealt to it where tiles are, and a last one of four rows; rows of eleven stages.
fn mlp(format_name: &str, format: WeightFormat, sequences: usize) -> Case {
    let layer_pattern = "-".to_owned();
    let shape = Shape { layer_pattern, hidden_size: 192, intermediate_size: 21_500, ..Shape::tiny() };
    case(format!("rings, {format_name}, {sequences} sequences"), shape, Layout::of(format), sequences)
}

/// Nine tiles a block, of three formats in one launch.
fn mixer(formats: [WeightFormat; 3], hidden_size: usize, sequences: usize) -> Case {
    let [first, ..] = formats;
    let layout = Layout { segments: Some(formats), fused_mixer: true, hadamard_block: Some(1024), ..Layout::of(first) };
    let (mamba_heads, mamba_head_dim, groups, state_size) = (128, 64, 8, 128);
    let layer_pattern = "M".to_owned();
    let tiny = Shape { layer_pattern, hidden_size, ..Shape::tiny() };
    let shape = Shape { mamba_heads, mamba_head_dim, groups, state_size, ..tiny };
    case(format!("rings, formats mixed, {hidden_size} columns, {sequences} sequences"), shape, layout, sequences)
}
