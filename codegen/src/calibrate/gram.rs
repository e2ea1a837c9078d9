//! Sums over tokens: `X^T X` and `Y^T X`, streamed.
//!
//! f32 products, accumulated in f32 over a few thousand tokens at a time. Every entry is computed by one thread in the
//! order of the tokens, so the sums do not depend on the number of threads.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Rows of a sum that one thread computes.
const STRIP: usize = 128;

/// `H = sum x x^T` and `C = sum y x^T` over tokens.
pub(super) struct Gram {
    /// Width of x.
    k: usize,
    /// Tokens so far.
    tokens: usize,
    /// `[k, k]`; what is right of the diagonal's strip is not computed.
    h: Vec<f32>,
    /// `[m, k]`.
    c: Vec<f32>,
}

impl Gram {
    pub(super) fn new(k: usize, m: usize) -> Gram {
        Gram { k, tokens: 0, h: vec![0.0; k * k], c: vec![0.0; m * k] }
    }

    /// Adds tokens: `x` is `[tokens, k]`, `y` `[tokens, m]`.
    pub(super) fn add(&mut self, x: &[f32], y: &[f32]) {
        let (k, tokens) = (self.k, x.len() / self.k);
        let x = MatRef::from_row_major_slice(x, tokens, k);
        self.h.par_chunks_mut(STRIP * k).enumerate().for_each(|(strip, out)| {
            let (first, rows) = (strip * STRIP, out.len() / k);
            let out = MatMut::from_row_major_slice_mut(out, rows, k).subcols_mut(0, first + rows);
            add_product(out, x.subcols(first, rows).transpose(), x.subcols(0, first + rows));
        });
        let m = self.c.len() / k;
        if m > 0 {
            let y = MatRef::from_row_major_slice(y, tokens, m);
            self.c.par_chunks_mut(STRIP * k).enumerate().for_each(|(strip, out)| {
                let (first, rows) = (strip * STRIP, out.len() / k);
                let out = MatMut::from_row_major_slice_mut(out, rows, k);
                add_product(out, y.subcols(first, rows).transpose(), x);
            });
        }
        self.tokens += tokens;
    }

    /// The means of `x x^T`, `[k, k]`, whole, and of `y x^T`, `[m, k]`.
    pub(super) fn finish(self) -> (Vec<f32>, Vec<f32>) {
        let Gram { k, tokens, mut h, mut c, .. } = self;
        let scale = 1.0 / tokens.max(1) as f32;
        h.iter_mut().chain(&mut c).for_each(|value| *value *= scale);
        for i in 0..k {
            for j in 0..i {
                h[j * k + i] = h[i * k + j];
            }
        }
        (h, c)
    }
}

fn add_product(out: MatMut<'_, f32>, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    matmul(out, Accum::Add, a, b, 1.0, Par::Seq);
}

/// `out[t, n] = sum over k of x[t, k] * w[n, k]`, in strips of tokens.
pub(super) fn multiply(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    let n = w.len() / k;
    let w = MatRef::from_row_major_slice(w, n, k).transpose();
    out.par_chunks_mut(STRIP * n).zip(x.par_chunks(STRIP * k)).for_each(|(out, x)| {
        let tokens = x.len() / k;
        let out = MatMut::from_row_major_slice_mut(out, tokens, n);
        matmul(out, Accum::Replace, MatRef::from_row_major_slice(x, tokens, k), w, 1.0, Par::Seq);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn sums_are_those_of_the_definition_however_tokens_are_cut(
            (k, m, tokens, cut) in (1usize..150, 0usize..80, 2usize..40, 1usize..30),
        ) {
            let x: Vec<f32> = (0..tokens * k).map(|i| ((i * 7 + 3) % 13) as f32 - 6.0).collect();
            let y: Vec<f32> = (0..tokens * m).map(|i| ((i * 5 + 1) % 11) as f32 - 5.0).collect();
            let mut gram = Gram::new(k, m);
            let cut = cut.min(tokens - 1);
            gram.add(&x[..cut * k], &y[..cut * m]);
            gram.add(&x[cut * k..], &y[cut * m..]);
            let (h, c) = gram.finish();
            for j in 0..k {
                for i in 0..k {
                    let sum: f32 = (0..tokens).map(|t| x[t * k + i] * x[t * k + j]).sum();
                    prop_assert!((h[i * k + j] - sum / tokens as f32).abs() < 1e-5);
                }
                for i in 0..m {
                    let sum: f32 = (0..tokens).map(|t| y[t * m + i] * x[t * k + j]).sum();
                    prop_assert!((c[i * k + j] - sum / tokens as f32).abs() < 1e-5);
                }
            }
        }

        #[test]
        fn products_are_those_of_the_definition((k, n, tokens) in (1usize..40, 1usize..40, 1usize..150)) {
            let x: Vec<f32> = (0..tokens * k).map(|i| ((i * 7 + 3) % 13) as f32 - 6.0).collect();
            let w: Vec<f32> = (0..n * k).map(|i| ((i * 5 + 1) % 11) as f32 - 5.0).collect();
            let mut out = vec![f32::NAN; tokens * n];
            multiply(&x, &w, k, &mut out);
            for (t, out) in out.chunks_exact(n).enumerate() {
                for (r, out) in out.iter().enumerate() {
                    let sum: f32 = (0..k).map(|i| x[t * k + i] * w[r * k + i]).sum();
                    prop_assert_eq!(*out, sum);
                }
            }
        }
    }
}
