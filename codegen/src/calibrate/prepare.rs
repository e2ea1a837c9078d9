use super::factor::InverseFactor;
use super::gptq::{self, Inputs};
use super::gram::Gram;
use super::{BLOCK_TOKENS, Settings};
use crate::weights::PackedWeight;
use ir::weights::StorageFormat;

/// The Hessian of some inputs, and what rounding derives from it.
pub struct Prepared {
    pub(super) factor: InverseFactor,
    hessian: Vec<f32>,
    upper: Vec<f32>,
    importance: Vec<f32>,
    clip: bool,
    sweeps: usize,
}

impl Prepared {
    /// For inputs `[tokens, k]`; `None` when they are not finite.
    pub fn of(inputs: &[f32], k: usize, settings: Settings) -> Option<Prepared> {
        let mut gram = Gram::new(k, 0);
        inputs.chunks(BLOCK_TOKENS * k).for_each(|tokens| gram.add(tokens, &[]));
        Prepared::new(gram.finish().0, k, settings)
    }

    /// A weight `[n, k]`, rounded by GPTQ.
    pub fn round(&self, format: StorageFormat, weight: &[f32]) -> PackedWeight {
        gptq::round(format, weight.to_vec(), weight, &self.inputs())
    }

    /// For a Hessian `[k, k]`; `None` when it cannot be factorized.
    pub(super) fn new(mut hessian: Vec<f32>, k: usize, settings: Settings) -> Option<Prepared> {
        let importance: Vec<f32> = (0..k).map(|i| hessian[i * k + i]).collect();
        let mut order: Vec<usize> = (0..k).collect();
        if settings.act_order {
            order.sort_by(|a, b| importance[*b].total_cmp(&importance[*a]));
        }
        let factor = InverseFactor::new(&hessian, order, settings.damping)?;
        let upper = factor.rows();
        hessian.iter_mut().step_by(k + 1).for_each(|value| *value += factor.added);
        let Settings { clip, sweeps, .. } = settings;
        Some(Prepared { factor, hessian, upper, importance, clip, sweeps })
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        let Prepared { factor, hessian, upper, importance, clip, sweeps } = self;
        let (k, order) = (importance.len(), &factor.order);
        Inputs { k, hessian, order, upper, importance, clip: *clip, sweeps: *sweeps }
    }
}
