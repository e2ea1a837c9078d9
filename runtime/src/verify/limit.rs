//! What one more of a few numbers may be.

/// How many they are.
pub(super) const COPIES: usize = 16;
/// Those above the median, whose spread stands for the tail.
const ABOVE: usize = COPIES / 2;
/// That one more is beyond the limit.
const CHANCE: f64 = 1e-3;

/// A number that another of the same distribution exceeds with a chance of one in a thousand.
///
/// Whatever the distribution, one more of n numbers is above the k-th largest but one with probability (k + 1) / (n + 1).
/// Beyond that the tail is taken to be exponential (Pickands 1975, *Statistical inference using extreme order statistics*), which
/// is heavier than that of the norm of a sum of many small parts. The mean excess m of the k numbers is then distributed as the
/// mean of k exponential ones, so that one more is further than `c m` above it with probability `(1 + c / k)^-k`, and c follows.
pub(super) fn limit(samples: &[f64; COPIES]) -> f64 {
    let mut ascending = *samples;
    ascending.sort_by(f64::total_cmp);
    let (below, above) = ascending.split_at(COPIES - ABOVE);
    let base = below[below.len() - 1];
    let excess = above.iter().map(|sample| sample - base).sum::<f64>() / ABOVE as f64;
    let reached = (ABOVE + 1) as f64 / (COPIES + 1) as f64;
    let spreads = ABOVE as f64 * ((reached / CHANCE).powf(1.0 / ABOVE as f64) - 1.0);
    // A NaN is sorted to the end, or to the start.
    if samples.iter().any(|sample| sample.is_nan()) { f64::NAN } else { base + spreads * excess }
}

/// Student's t with sixteen degrees of freedom, which is exceeded with [`CHANCE`].
const STUDENT: f64 = 3.686;

/// The same for numbers that are about zero and normal: how far up one more may be.
pub(super) fn centered_limit(samples: &[f64; COPIES]) -> f64 {
    let squares: f64 = samples.iter().map(|sample| sample * sample).sum();
    STUDENT * (squares / COPIES as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    #[test]
    fn samples_that_agree_are_their_limit() {
        assert_eq!(limit(&[0.25; COPIES]), 0.25);
    }

    #[test]
    fn one_that_stands_out_is_within_the_limit() {
        let mut samples = [0.0; COPIES];
        samples[3] = 1.0;
        assert!((1.0..1.25).contains(&limit(&samples)), "{}", limit(&samples));
    }

    #[test]
    fn one_in_a_thousand_is_beyond_the_limit_of_an_exponential_tail() {
        let mut random = Pcg64::seed_from_u64(1);
        let mut draw = |_| -(1.0 - random.random::<f64>()).ln();
        let beyond = (0..50_000).filter(|_| limit(&std::array::from_fn(&mut draw)) < draw(0)).count();
        assert!((35..65).contains(&beyond), "{beyond}");
    }

    #[test]
    fn one_in_a_thousand_is_beyond_the_limit_of_normal_numbers_about_zero() {
        let mut random = Pcg64::seed_from_u64(2);
        // Box and Muller 1958.
        let mut draw = |_| {
            let (radius, turn) = (-2.0 * (1.0 - random.random::<f64>()).ln(), random.random::<f64>());
            3.0 * radius.sqrt() * (std::f64::consts::TAU * turn).cos()
        };
        let beyond = (0..50_000).filter(|_| centered_limit(&std::array::from_fn(&mut draw)) < draw(0)).count();
        assert!((35..65).contains(&beyond), "{beyond}");
    }

    #[test]
    fn a_sample_that_is_no_number_admits_nothing() {
        for no_number in [f64::NAN, -f64::NAN] {
            let mut samples = [1.0; COPIES];
            samples[7] = no_number;
            assert!(limit(&samples).is_nan() && centered_limit(&samples).is_nan());
        }
    }
}
