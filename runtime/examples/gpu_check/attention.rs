//! Models of nothing but attention.

use crate::check::Case;
use runtime::plan::{DType, WeightFormat};
use runtime::synthetic::{Layout, Shape};

/// Attention of every cache, of short contexts and of parts, of heads that share keys and of those that do not; prompts that fill one block
/// and several, chunk after chunk, of sequences of different lengths.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let lengths = [
        ("long", vec![vec![250], vec![250], vec![77], vec![1], vec![1]]),
        ("several", vec![vec![1, 100, 15, 60, 63], vec![1; 5], vec![1; 5], vec![1; 5]]),
        ("many", vec![vec![3; 40], vec![1; 40], vec![1; 40]]),
        ("prompts", vec![vec![700], vec![129], vec![384]]),
        ("ragged", vec![vec![300, 129, 1, 65, 200], vec![1, 130, 257, 64, 190]]),
    ];
    let shapes = [(32, 8, 64), (16, 4, 128), (6, 2, 64), (8, 1, 128), (3, 3, 64), (12, 4, 40)];
    for kv_dtype in [DType::F32, DType::F16, DType::Bf16, DType::I8] {
        for (heads, kv_heads, head_dim) in shapes {
            let block = if head_dim == 40 { 32 } else { 64 };
            let layout = Layout { kv_dtype, hadamard_block: Some(block), ..Layout::of(WeightFormat::W8) };
            let layer_pattern = "*".to_owned();
            let shape = Shape { layer_pattern, heads, kv_heads, head_dim, hidden_size: 320, ..Shape::tiny() };
            for (length, steps) in &lengths {
                let name = format!("attention, {kv_dtype:?}, {heads} of {kv_heads} heads of {head_dim}, {length}");
                cases.push(Case { name, shape: shape.clone(), layout, steps: steps.clone() });
            }
        }
    }
    cases
}
