//! Sums of products over tokens, as calibration has them, against sums in f64.

use crate::Folder;
use runtime::cuda::{Gram, Machine};
use std::error::Error;

/// Columns of x and of y, and tokens.
const CASES: [(usize, usize, usize); 6] =
    [(1, 0, 1), (5, 3, 7), (130, 257, 4099), (128, 128, 16), (640, 640, 9000), (1003, 320, 4096)];
/// Additions that a product goes through: those of a step of 16 products, and of 256 steps.
const ADDITIONS: usize = 16 + 256;
/// Values of each sum that are compared.
const SAMPLES: usize = 2000;

/// Returns how many of the chosen cases failed.
pub fn run(images: &Folder, chosen: impl Fn(&str) -> bool) -> Result<usize, Box<dyn Error>> {
    let named = CASES.map(|(k, m, tokens)| (format!("sums of {tokens} tokens, {k} and {m} channels"), (k, m, tokens)));
    let cases: Vec<_> = named.into_iter().filter(|(name, _)| chosen(name)).collect();
    if cases.is_empty() {
        return Ok(0);
    }
    let machine = Machine::open(0, images)?;
    let mut failed = 0;
    for (name, (k, m, tokens)) in cases {
        let (x, y) = (values(k * tokens, 1), values(m * tokens, 2));
        let sums = || {
            let mut gram = Gram::new(&machine, k, m)?;
            gram.add(&x, &y)?;
            gram.finish()
        };
        let (h, c) = sums()?;
        let again = sums()?;
        let same = h == again.0 && c == again.1 && (0..k * k).all(|at| h[at] == h[at % k * k + at / k]);
        let off = worst(&h, &x, &x, k, tokens).max(worst(&c, &y, &x, k, tokens));
        println!("{name}: {off:.3} of what they may be off by");
        failed += usize::from(!same || off > 1.0);
    }
    Ok(failed)
}

/// From -1 to 3: means that are not zero, as behind relu squared.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut random = seed;
    let mut next = || {
        random = random.wrapping_mul(1664525).wrapping_add(1013904223);
        (random >> 8) as f32 / (1 << 22) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The largest error of sampled values of the mean of `y x^T`, over its bound.
fn worst(found: &[f32], y: &[f32], x: &[f32], k: usize, tokens: usize) -> f64 {
    let m = found.len() / k;
    let stride = found.len().div_ceil(SAMPLES).max(1);
    let error = |at: usize| {
        let terms = (0..tokens).map(|t| f64::from(y[t * m + at / k]) * f64::from(x[t * k + at % k]));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
        let additions = (ADDITIONS + tokens.div_ceil(4096) + 2) as f64;
        let bound = additions * size * 2f64.powi(-24);
        (f64::from(found[at]) * tokens as f64 - sum).abs() / bound.max(f64::MIN_POSITIVE)
    };
    (0..found.len()).step_by(stride).map(error).fold(0.0, f64::max)
}
