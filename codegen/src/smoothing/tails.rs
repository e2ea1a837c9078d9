//! How large the largest of many channels is in a token, in the mean.
//!
//! The square of a channel is taken to exceed `t` with probability `exp(-(t / scale)^(1 / power))`: a power of 1 is an
//! exponential tail, larger ones are heavier. The mean square and the largest of all tokens say which it is. Then
//! `E[max_j x_j^2]` is the integral over `t` of the probability that any channel exceeds it, channels independent of each other.

/// Points of the integral, evenly in the logarithm.
const POINTS: usize = 200;
/// The integral begins at this share of the largest scale, where nothing is sure to be exceeded any more, and ends where a channel is as rare
/// as one in `RARE`.
const NEAR_ZERO: f64 = 1e-5;
const RARE: f64 = 1e9;

/// Channels of an activation.
pub(super) struct Channels(Vec<Tail>);

/// Channels that are alike.
struct Tail {
    scale: f64,
    power: f64,
    count: f64,
}

impl Channels {
    /// Of these mean squares, and of largest squares, over `tokens`, that are so many times as large.
    pub(super) fn measured(squares: &[f64], crests: impl Iterator<Item = f64>, tokens: f64) -> Self {
        let alive = squares.iter().zip(crests).filter(|(square, crest)| **square > 0.0 && crest.is_finite());
        Channels(alive.map(|(square, crest)| Tail::new(*square, crest, tokens, 1.0)).collect())
    }

    /// Normal values: blocks of `size` of the same mean square.
    pub(super) fn normal(squares: &[f64], size: usize, tokens: f64) -> Self {
        let crest = normal_crest(tokens);
        let blocks = squares.chunks(size).filter(|block| block[0] > 0.0);
        Channels(blocks.map(|block| Tail::new(block[0], crest, tokens, block.len() as f64)).collect())
    }

    /// The mean of the largest square of a token.
    pub(super) fn largest(&self) -> f64 {
        let top = |tail: &Tail| tail.scale * RARE.ln().powf(tail.power);
        let most = self.0.iter().map(top).fold(0.0, f64::max);
        let start = NEAR_ZERO * self.0.iter().map(|tail| tail.scale).fold(0.0, f64::max);
        if start <= 0.0 {
            return 0.0;
        }
        let ratio = (most / start).powf(1.0 / POINTS as f64);
        let point = |index: usize| start * ratio.powi(index as i32);
        let exceeds = |t: f64| 1.0 - self.0.iter().map(|tail| tail.ln_within(t)).sum::<f64>().exp();
        let values: Vec<f64> = (0..=POINTS).map(|index| exceeds(point(index))).collect();
        let strip = |index: usize| (point(index + 1) - point(index)) * (values[index] + values[index + 1]) / 2.0;
        start * values[0] + (0..POINTS).map(strip).sum::<f64>()
    }
}

impl Tail {
    fn new(square: f64, crest: f64, tokens: f64, count: f64) -> Self {
        let power = power(crest, tokens);
        Tail { scale: square / ln_gamma(1.0 + power).exp(), power, count }
    }

    /// The logarithm of the probability that none exceeds `t`.
    fn ln_within(&self, t: f64) -> f64 {
        self.count * (-(-(t / self.scale).powf(1.0 / self.power)).exp()).ln_1p()
    }
}

/// The square that one of so many normal values of variance 1 exceeds: `2 phi(x) / x` is one in `tokens`.
fn normal_crest(tokens: f64) -> f64 {
    let rare = 2.0 * tokens.max(8.0).ln();
    (0..20).fold(rare, |square, _| rare - (std::f64::consts::FRAC_PI_2 * square).ln())
}

/// The power with which one of so many tokens exceeds `crest` times the mean: `ln(tokens)^power / gamma(1 + power)` is `crest`.
fn power(crest: f64, tokens: f64) -> f64 {
    let rare = tokens.max(8.0).ln();
    // Beyond, heavier tails have smaller crests again.
    let (mut low, mut high) = (0.01, rare - 0.5);
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        let is_below = middle * rare.ln() - ln_gamma(1.0 + middle) < crest.max(1.0).ln();
        *(if is_below { &mut low } else { &mut high }) = middle;
    }
    (low + high) / 2.0
}

/// The logarithm of the gamma function of `x >= 1`, to 1e-10: Stirling's series at `x + 8`.
fn ln_gamma(x: f64) -> f64 {
    let z = x + 8.0;
    let product: f64 = (0..8).map(|step| x + f64::from(step)).product();
    let series = 1.0 / (12.0 * z) - 1.0 / (360.0 * z.powi(3)) + 1.0 / (1260.0 * z.powi(5));
    (z - 0.5) * z.ln() - z + (2.0 * std::f64::consts::PI).ln() / 2.0 + series - product.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::SplitMix64;

    #[test]
    fn knows_the_gamma_function() {
        for (x, factorial) in [(1.0, 1.0), (2.0, 1.0), (3.0, 2.0), (5.0, 24.0), (11.0, 3_628_800.0)] {
            assert!((ln_gamma(x) - f64::ln(factorial)).abs() < 1e-9, "{x}: {}", ln_gamma(x));
        }
        assert!((ln_gamma(1.5).exp() - std::f64::consts::PI.sqrt() / 2.0).abs() < 1e-9);
    }

    #[test]
    fn finds_the_tail_of_which_mean_and_largest_are_known() {
        // Exponential: the largest of n is ln n times the mean.
        assert!((power(f64::ln(65536.0), 65536.0) - 1.0).abs() < 1e-6);
        // Constant, and more than any tail gives.
        assert!(power(1.0, 65536.0) < 0.02);
        assert!(power(1e9, 65536.0) > 10.0);
    }

    #[test]
    fn gives_the_largest_of_equal_channels() {
        // Of k exponential channels it is the harmonic number of k.
        let crests = || std::iter::repeat(f64::ln(65536.0));
        let found = Channels::measured(&[1.0; 128], crests(), 65536.0).largest();
        assert!((found - 5.44).abs() < 0.05, "{found}, expected near 5.44");
        let one = Channels::measured(&[3.0], crests(), 65536.0).largest();
        assert!((one - 3.0).abs() < 0.05, "{one}, expected 3");
    }

    #[test]
    fn follows_normal_values_and_the_loudest_channel() {
        let mut random = SplitMix64(7);
        let mut token = || (0..256).map(|_| random.normal().powi(2)).fold(0.0, f64::max);
        let measured = (0..2000).map(|_| token()).sum::<f64>() / 2000.0;
        let found = Channels::normal(&[1.0; 256], 256, 65536.0).largest();
        assert!((found / measured - 1.0).abs() < 0.1, "{found}, measured {measured}");
        let mut loud = vec![1.0; 256];
        loud[..64].fill(100.0);
        let louder = Channels::normal(&loud, 64, 65536.0).largest();
        assert!(louder > 50.0 * found && louder < 100.0 * found, "{louder} after {found}");
    }

    #[test]
    fn takes_silent_channels_for_nothing() {
        assert_eq!(Channels::normal(&[0.0; 64], 64, 65536.0).largest(), 0.0);
        assert_eq!(Channels::measured(&[0.0, 0.0], [f64::NAN, 4.0].into_iter(), 65536.0).largest(), 0.0);
    }
}
