//! How far two devices may be apart after one launch, from the order in which they add.
//!
//! A float result is a sum of products. Its error is at most `c u sum |terms|`, where u = 2^-24 is the rounding of f32
//! and c the number of roundings on the longest way of a term to the result:
//!
//! - A *chain* of n additions counts n, but not more than `8 sqrt(n)`: roundings are independent, and a chain of n exceeds
//!   that with a probability below 1e-13 (Higham and Mary 2019, *A new approach to probabilistic rounding error analysis*).
//!   The longest chain of either device is that of the CPU's sixteen running sums, or of the loop over tokens. Tiles of
//!   floats on the GPU add up sums of sixteen products each: as long, within what is allowed for joining running sums.
//! - The sum of the magnitudes of n terms of either sign is taken to be `sqrt(n)` times the largest result: this is an
//!   assumption about weights and activations, not a theorem; terms that cancel better would show as a failure.
//! - Both devices may err by this, in opposite directions.
//!
//! On tensor cores attention multiplies queries and weights as sums of two 16-bit numbers. What those leave out, up to 2^-18 of
//! each, is independent from column to column and key to key, so that it averages out: it is not counted, and must stay within
//! what the chains of additions may err by.
//!
//! A scan in chunks multiplies sums of two 16-bit numbers, too, but of 22 bits: what they leave out is at most 2^-21 = 8 u of a
//! product and independent from product to product. By the same law a sum of them stays below 8 * 8 u of the root of the sum of
//! their squares, which is taken to be the largest result, as above; two such products are on each way (C and B, weights and x; or x
//! and B, C and the state): 128 u. A tensor core cuts off what a rounding would round, 2 u an addition, and a way has at most 24
//! such additions in products of C and B and 12 in each of two others (Fasi, Higham, Mikaitis and Pranesh 2021, *Numerical
//! behavior of NVIDIA tensor cores*): 96 u. Decays are exponentials of exact sums. Between chunks the state is f32. All of it is
//! less than what is counted for the loop over the 64 or more tokens that it takes the place of, so nothing is added for it.
//!
//! Sums of integers are exact, whatever the order.
//!
//! A scan state in fewer bits is rounded stochastically with the same random bits on both devices: two floats that differ by d
//! of the distance of two neighbors become different ones with probability d. That distance is at least 2^-11 (f16) or 2^-8
//! (bf16) of the value, and 1/127 of the row's largest (i8); the error is taken to be relative to the value, as above.

use super::LaunchDifference;
use crate::plan::{Activation, BufferId, DType, Emit, Kernel, Plan, Rows, Segment, SsmShape, WeightFormat};

/// Half a unit in the last place of 1.
const U: f64 = 1.0 / (1u64 << 24) as f64;
/// Running sums of the CPU's float reductions; the GPU has more.
const LANES: usize = 16;
/// Additions that join running sums.
const JOIN: f64 = 8.0;
/// Roundings of an exponential and of what silu and softplus do with it.
const EXPONENTIAL: f64 = 12.0;
/// Attention scores, in magnitudes of their terms, reach this.
const SCORE: f64 = 16.0;
/// However large the bound of the floats is, no more 8-bit values may fall to the other side of a half.
const MOST_SHARE: f64 = 0.02;

/// What a launch may differ by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Floats, over the largest value of the same buffer or state.
    pub relative: f64,
    /// Share of 8-bit values that may be one apart.
    pub quantized_share: f64,
    /// Share of the values of a scan state in fewer than 32 bits that may be another neighbor.
    pub state_share: f64,
}

/// Rows of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRows {
    /// Of all chunks.
    pub tokens: usize,
    /// Logits asked for.
    pub outputs: usize,
    /// Of the longest chunk.
    pub longest: usize,
    /// Tokens of the longest sequence, after the step.
    pub context: usize,
}

/// How likely a launch is to give another 8-bit value than another device on the same inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Chances {
    /// One apart, of a value of the 8-bit result.
    pub(super) quantized: f64,
    /// Another neighbor, of a value of a scan state in fewer than 32 bits.
    pub(super) state: f64,
}

impl Chances {
    pub(super) fn of(plan: &Plan, kernel: &Kernel, rows: StepRows) -> Chances {
        let (relative, emit) = relative(plan, kernel, rows);
        let quantized = match emit.map(|emit| emit.to) {
            // Nothing is added before the rounding: the same floats, the same integers.
            Some(Activation::Quantized { .. }) if !is_pointwise(kernel) => 127.0 * relative,
            _ => 0.0,
        };
        let state = state_steps(plan, kernel, rows).map_or(0.0, |(steps, _)| steps);
        Chances { quantized: quantized.min(MOST_SHARE), state: state.min(MOST_SHARE) }
    }
}

impl Bound {
    /// Not a bit.
    pub const EXACT: Bound = Bound { relative: 0.0, quantized_share: 0.0, state_share: 0.0 };

    /// i32 sums are equal to the bit, 8-bit values at most one apart, where a float lies between two of them.
    pub fn admits(&self, difference: &LaunchDifference) -> bool {
        difference.passes(self)
    }

    /// Of a launch of this plan in a step of these rows.
    pub fn of(plan: &Plan, kernel: &Kernel, rows: StepRows) -> Bound {
        let (relative, emit) = relative(plan, kernel, rows);
        let chances = Chances::of(plan, kernel, rows);
        let quantized_share = match emit.map(|emit| emit.to) {
            Some(Activation::Quantized { data, .. }) if !is_pointwise(kernel) => {
                share(chances.quantized, values(plan, data, rows))
            }
            _ => 0.0,
        };
        let state = state_steps(plan, kernel, rows);
        let state_share = state.map_or(0.0, |(_, elements)| share(chances.state, elements));
        Bound { relative, quantized_share, state_share }
    }
}

/// Of the floats of a launch, and how it emits them.
fn relative<'k>(plan: &Plan, kernel: &'k Kernel, rows: StepRows) -> (f64, Option<&'k Emit>) {
    let (roundings, emit) = roundings(plan, kernel, rows);
    let Some(emit) = emit else {
        return (2.0 * U * roundings, None);
    };
    let rotation = emit.hadamard_block.map_or(0.0, |block| (f64::from(block.ilog2()) + 1.0) * (block as f64).sqrt());
    // Largest value, quotient and product of the scale.
    (2.0 * U * (roundings + rotation + 3.0), Some(emit))
}

fn is_pointwise(kernel: &Kernel) -> bool {
    matches!(kernel, Kernel::Map { emit, .. } if emit.hadamard_block.is_none())
}

fn values(plan: &Plan, id: BufferId, rows: StepRows) -> usize {
    let buffer = plan.buffer(id);
    buffer.cols * if buffer.rows == Rows::Token { rows.tokens } else { rows.outputs }
}

/// How far a launch may move the values of a scan state in fewer bits apart, in distances of two neighbors, and how many
/// values that state has.
fn state_steps(plan: &Plan, kernel: &Kernel, rows: StepRows) -> Option<(f64, usize)> {
    let (state, before) = match kernel {
        Kernel::SsmScan { state, .. } => (plan.state(*state), 0.0),
        // What is added is a product of two convolved factors.
        Kernel::Mixer { ssm_state, conv: weights, .. } => (plan.state(*ssm_state), 2.0 * conv(weights.kernel)),
        _ => return None,
    };
    let steps = match state.dtype {
        DType::I8 => 127.0,
        DType::F16 => 2f64.powi(11),
        DType::Bf16 => 2f64.powi(8),
        _ => return None,
    };
    Some((2.0 * U * (moved(rows.longest) + before) * steps, state.elements()))
}

/// Two floats that differ by d of the distance of two integers have a half between them with probability d. Of few values,
/// more than that share may: four standard deviations and three values are allowed.
fn share(probability: f64, values: usize) -> f64 {
    let values = values.max(1) as f64;
    let expected = probability * values;
    (expected + 4.0 * expected.sqrt() + 3.0) / values
}

fn chain(additions: f64) -> f64 {
    additions.min(8.0 * additions.sqrt())
}

/// A sum of n products in running sums.
fn sum(n: usize) -> f64 {
    chain(n.div_ceil(LANES) as f64) + JOIN
}

/// A sum of n products of either sign.
fn dot(n: usize) -> f64 {
    sum(n) * (n as f64).sqrt()
}

/// The mean square and its root: terms of one sign, and the root halves their error.
fn norm(n: usize) -> f64 {
    sum(n) / 2.0 + 6.0
}

fn conv(taps: usize) -> f64 {
    (chain(taps as f64) + 1.0) * (taps as f64).sqrt() + EXPONENTIAL
}

/// States decay: a term is rounded in each step, by the decay and by the sum.
fn moved(longest: usize) -> f64 {
    (2.0 * chain(longest as f64) + EXPONENTIAL) * 2.0
}

fn scan(shape: &SsmShape, longest: usize) -> f64 {
    moved(longest) + dot(shape.state_size)
}

fn gated(group_size: usize) -> f64 {
    norm(group_size) + EXPONENTIAL
}

/// Keys and values of 8 bits are multiplied by their scales before the sum on one device and after it on the other.
fn attention(head_dim: usize, context: usize, dtype: DType) -> f64 {
    let scaled = if dtype == DType::I8 { 1.0 } else { 0.0 };
    let scores = (sum(head_dim) + scaled) * SCORE + EXPONENTIAL;
    (scores + scaled + chain(context as f64) + JOIN) * (context as f64).sqrt()
}

fn segment(segment: &Segment, in_features: usize) -> f64 {
    match segment.format {
        WeightFormat::Float { .. } => dot(in_features),
        WeightFormat::W8 | WeightFormat::W4TwoLevel { .. } => 0.0,
        WeightFormat::W4Group { group_size } => {
            let groups = in_features.div_ceil(group_size) as f64;
            (chain(groups) + JOIN) * groups.sqrt()
        }
    }
}

/// Roundings of the largest result of a kernel before it is emitted.
fn roundings<'k>(plan: &Plan, kernel: &'k Kernel, rows: StepRows) -> (f64, Option<&'k Emit>) {
    match kernel {
        Kernel::SelectOutputs { .. } => (0.0, None),
        Kernel::Embed { .. } => (2.0, None),
        Kernel::Add { .. } => (1.0, None),
        // Conversion, product of the scales, product; and relu^2.
        Kernel::Dequantize { .. } => (7.0, None),
        Kernel::Linear { in_features, segments, .. } => {
            let sums = segments.iter().map(|s| segment(s, *in_features)).fold(0.0, f64::max);
            // As for dequantize; relu^2 doubles an error, a residual adds one.
            (2.0 * (sums + 4.0), None)
        }
        Kernel::RmsNorm { x, emit, .. } => (norm(plan.buffer(*x).cols), Some(emit)),
        Kernel::Map { emit, .. } => (1.0, Some(emit)),
        Kernel::Conv1d { weights, .. } => (conv(weights.kernel), None),
        Kernel::SsmScan { shape, .. } => (scan(shape, rows.longest), None),
        Kernel::GatedRmsNorm { group_size, emit, .. } => (gated(*group_size), Some(emit)),
        Kernel::Mixer { conv: weights, shape, group_size, emit, .. } => {
            // Three convolved factors come together in the scan.
            let before = 3.0 * conv(weights.kernel) + scan(shape, rows.longest);
            (before + gated(*group_size), Some(emit))
        }
        Kernel::Attention { head_dim, state, emit, .. } => {
            (attention(*head_dim, rows.context, plan.state(*state).dtype), Some(emit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{Layout, Shape, model};

    const ROWS: StepRows = StepRows { tokens: 8, outputs: 1, longest: 8, context: 8 };

    fn bounds(format: WeightFormat) -> Vec<(&'static str, Bound)> {
        let (plan, _) = model(&Shape::tiny(), &Layout::of(format), 1);
        let of = |launch: &crate::plan::Launch| {
            (crate::verify::kernel_name(&launch.kernel), Bound::of(&plan, &launch.kernel, ROWS))
        };
        plan.launches.iter().map(of).collect()
    }

    fn largest(bounds: &[(&str, Bound)], kernel: &str) -> f64 {
        bounds.iter().filter(|(name, _)| *name == kernel).map(|(_, bound)| bound.relative).fold(0.0, f64::max)
    }

    #[test]
    fn integer_linears_are_bound_by_their_scales_alone() {
        let integer = largest(&bounds(WeightFormat::W8), "linear");
        assert!(integer > 0.0 && integer < 1e-6, "{integer}");
        let float = largest(&bounds(WeightFormat::Float { dtype: DType::F32 }), "linear");
        assert!(float > integer && float < 1e-4, "{float}");
    }

    #[test]
    fn states_in_fewer_bits_may_be_other_neighbors_and_f32_states_may_not() {
        let state_share = |ssm_dtype| {
            let layout = Layout { ssm_dtype, fused_mixer: true, ..Layout::of(WeightFormat::W8) };
            let (plan, _) = model(&Shape::mini(), &layout, 1);
            let shares = plan.launches.iter().map(|launch| Bound::of(&plan, &launch.kernel, ROWS).state_share);
            shares.fold(0.0, f64::max)
        };
        assert_eq!(state_share(DType::F32), 0.0);
        let [f16, bf16, int8] = [DType::F16, DType::Bf16, DType::I8].map(state_share);
        assert!(0.0 < int8 && int8 < bf16 && bf16 < f16 && f16 < 0.03, "{int8} {bf16} {f16}");
    }

    #[test]
    fn moving_rows_changes_nothing() {
        assert_eq!(largest(&bounds(WeightFormat::W8), "select_outputs"), 0.0);
    }

    #[test]
    fn integers_of_pointwise_kernels_are_equal() {
        let bounds = bounds(WeightFormat::W8);
        let maps: Vec<_> = bounds.iter().filter(|(name, _)| *name == "map").collect();
        assert!(!maps.is_empty() && maps.iter().all(|(_, bound)| bound.quantized_share == 0.0), "{maps:?}");
    }

    #[test]
    fn few_of_many_values_may_round_the_other_way() {
        assert!(share(127e-5, 1_000_000) < 2e-3);
        assert!(share(MOST_SHARE, 1_000_000) < 0.021);
        assert!((share(0.0, 100) - 0.03).abs() < 1e-12);
    }
}
