//! Sums and maxima over rows, in a fixed order of 16 lanes: fast with any vector width, the same with every one.

pub(super) const LANES: usize = 16;

/// Adding and subtracting it rounds a float of magnitude below 2^22 to an integer, ties to even; the low bits of the
/// sum are that integer.
pub(super) const ROUND: f32 = 12_582_912.0;

/// `round_half_even(t)` for `|t| < 2^22`.
#[inline(always)]
pub(super) fn round(t: f32) -> f32 {
    (t + ROUND) - ROUND
}

/// The sum of `f` over all values.
#[inline(always)]
pub(super) fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += f(v);
    }
    reduce(lanes, |a, b| a + b)
}

/// The largest `f` of all values, at least 0.
#[inline(always)]
pub(super) fn max(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, f(v));
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, f(v));
    }
    reduce(lanes, larger)
}

/// Combines lanes in halves: sixteen steps one after the other would take longer than the loop over a group.
#[inline(always)]
fn reduce(l: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let c = |i: usize, j: usize| combine(combine(l[i], l[i + 8]), combine(l[j], l[j + 8]));
    combine(combine(c(0, 4), c(2, 6)), combine(c(1, 5), c(3, 7)))
}
