use super::GenerateError;
use crate::device::likeliest;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// How the next token is chosen. Applied in the order of the fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Positive logits of tokens that occurred are divided by this, negative ones multiplied. 1 changes nothing.
    pub repetition_penalty: f32,
    /// Logits are divided by this. 0 takes the likeliest token and ignores the fields below.
    pub temperature: f32,
    /// Only this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Only tokens with at least this share of the likeliest token's probability; 0 keeps all.
    pub min_p: f32,
    /// Seed of the random numbers. The same seed gives the same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { repetition_penalty: 1.0, temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

impl Sampling {
    fn check(&self) -> Result<(), GenerateError> {
        let checks = [
            ("--repetition-penalty", self.repetition_penalty, 0.01..=100.0, "0.01 to 100"),
            ("--temperature", self.temperature, 0.0..=100.0, "0 to 100"),
            ("--top-p", self.top_p, f32::MIN_POSITIVE..=1.0, "above 0, at most 1"),
            ("--min-p", self.min_p, 0.0..=1.0, "0 to 1"),
        ];
        for (name, value, range, expected) in checks {
            if !range.contains(&value) {
                return Err(GenerateError::BadSampling { name, value: f64::from(value), expected });
            }
        }
        Ok(())
    }
}

/// Chooses tokens.
pub struct Sampler {
    sampling: Sampling,
    random: Pcg64,
    /// Whether a token occurred.
    seen: Vec<bool>,
    logits: Vec<f32>,
    /// Candidates and their weights, likeliest first.
    candidates: Vec<(u32, f64)>,
}

impl Sampler {
    /// Checks the parameters.
    pub fn new(sampling: Sampling, vocab_size: usize) -> Result<Sampler, GenerateError> {
        sampling.check()?;
        Ok(Sampler {
            sampling,
            random: Pcg64::seed_from_u64(sampling.seed),
            seen: vec![false; vocab_size],
            logits: Vec::with_capacity(vocab_size),
            candidates: Vec::with_capacity(vocab_size),
        })
    }

    /// Tells the repetition penalty that a token occurred.
    pub fn observe(&mut self, token: u32) {
        if let Some(seen) = self.seen.get_mut(token as usize) {
            *seen = true;
        }
    }

    /// Whether the choice is that of [`likeliest`], whatever came before.
    pub fn takes_the_likeliest(&self) -> bool {
        self.sampling.temperature == 0.0 && self.sampling.repetition_penalty == 1.0
    }

    /// Chooses the next token. Equal logits go to the lower id.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.penalize();
        if self.sampling.temperature == 0.0 {
            return likeliest(&self.logits);
        }
        self.rank();
        self.keep_top_p();
        self.draw()
    }

    fn penalize(&mut self) {
        let penalty = self.sampling.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        for (logit, seen) in self.logits.iter_mut().zip(&self.seen) {
            if *seen {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// Fills `candidates` with relative weights (the likeliest has 1), already cut by top-k and min-p.
    fn rank(&mut self) {
        let max = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let temperature = f64::from(self.sampling.temperature);
        let weight = |logit: f32| (f64::from(logit - max) / temperature).exp();
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        self.candidates.clear();
        let all = self.logits.iter().enumerate().map(|(id, logit)| (id as u32, weight(*logit)));
        self.candidates.extend(all.filter(|(_, weight)| *weight > 0.0));
        let k = self.sampling.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, order);
            self.candidates.truncate(k);
        }
        self.candidates.sort_unstable_by(order);
    }

    /// Top-p on what top-k left, then min-p.
    fn keep_top_p(&mut self) {
        let total: f64 = self.candidates.iter().map(|(_, weight)| weight).sum();
        let wanted = f64::from(self.sampling.top_p) * total;
        let mut sum = 0.0;
        let reached = self.candidates.iter().position(|(_, weight)| {
            sum += weight;
            sum >= wanted
        });
        if let Some(last) = reached {
            self.candidates.truncate(last + 1);
        }
        let least = f64::from(self.sampling.min_p);
        self.candidates.retain(|(_, weight)| *weight >= least);
    }

    fn draw(&mut self) -> u32 {
        let total: f64 = self.candidates.iter().map(|(_, weight)| weight).sum();
        let mut rest = self.random.random::<f64>() * total;
        for &(id, weight) in &self.candidates {
            rest -= weight;
            if rest < 0.0 {
                return id;
            }
        }
        // Rounding can leave a little; and if no logit was a number there are no candidates at all.
        self.candidates.last().map_or_else(|| likeliest(&self.logits), |(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(sampling: Sampling, logits: &[f32]) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling, logits.len()).unwrap();
        let mut counts = vec![0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.sample(logits) as usize] += 1;
        }
        counts
    }

    fn warm() -> Sampling {
        Sampling { temperature: 1.0, seed: 7, ..Sampling::default() }
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_the_lower_id_of_equals() {
        let mut sampler = Sampler::new(Sampling::default(), 4).unwrap();
        assert_eq!(sampler.sample(&[0.0, 2.0, 2.0, f32::NAN]), 1);
        assert_eq!(sampler.sample(&[f32::NAN, -5.0, -1.0, f32::NEG_INFINITY]), 2);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let counts = histogram(warm(), &[0.0, 2f32.ln(), 5f32.ln()]);
        for (count, expected) in counts.iter().zip([0.125, 0.25, 0.625]) {
            assert!((*count as f64 / 20_000.0 - expected).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn a_lower_temperature_sharpens() {
        let logits = [0.0, 1.0];
        let cold = histogram(Sampling { temperature: 0.2, ..warm() }, &logits);
        let hot = histogram(Sampling { temperature: 5.0, ..warm() }, &logits);
        assert!(cold[0] < 300 && hot[0] > 8_000, "{cold:?} {hot:?}");
    }

    #[test]
    fn top_k_top_p_and_min_p_cut_the_tail() {
        let logits = [5f32.ln(), 0.0, 2f32.ln(), 2f32.ln()];
        let kept = |sampling| histogram(sampling, &logits).iter().map(|count| *count > 0).collect::<Vec<_>>();
        assert_eq!(kept(Sampling { top_k: 2, ..warm() }), [true, false, true, false]);
        assert_eq!(kept(Sampling { top_p: 0.5, ..warm() }), [true, false, false, false]);
        assert_eq!(kept(Sampling { top_p: 0.65, ..warm() }), [true, false, true, false]);
        assert_eq!(kept(Sampling { min_p: 0.3, ..warm() }), [true, false, true, true]);
        assert_eq!(kept(warm()), [true; 4]);
    }

    #[test]
    fn the_repetition_penalty_pushes_seen_tokens_down_whatever_their_sign() {
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, 2).unwrap();
        sampler.observe(0);
        assert_eq!(sampler.sample(&[1.5, 1.0]), 1);
        assert_eq!(sampler.sample(&[-1.0, -1.5]), 1);
        assert_eq!(sampler.sample(&[3.0, 1.0]), 0);
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let logits: Vec<f32> = (0..50).map(|i| (i * 37 % 11) as f32 * 0.3).collect();
        let tokens = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..warm() }, 50).unwrap();
            (0..40).map(|_| sampler.sample(&logits)).collect::<Vec<_>>()
        };
        assert_eq!(tokens(1), tokens(1));
        assert_ne!(tokens(1), tokens(2));
    }

    #[test]
    fn refuses_parameters_out_of_range() {
        for sampling in [
            Sampling { temperature: -1.0, ..warm() },
            Sampling { temperature: f32::NAN, ..warm() },
            Sampling { top_p: 0.0, ..warm() },
            Sampling { min_p: 1.5, ..warm() },
            Sampling { repetition_penalty: 0.0, ..warm() },
        ] {
            assert!(matches!(Sampler::new(sampling, 4), Err(GenerateError::BadSampling { .. })), "{sampling:?}");
        }
    }
}
