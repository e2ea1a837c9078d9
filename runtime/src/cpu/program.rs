//! Launches with their tensors resolved, ready to run.

use super::batch::Batch;
use super::buffers::Buffers;
use super::slots::Slots;
use super::storage::Storage;
use super::tensors::Tensors;
use super::{
    add::Add, attention::Attention, conv1d::Conv1d, dequantize::Dequantize, embed::Embed, gated_rms_norm::GatedRmsNorm,
    linear::Linear, map::Map, mixer::Mixer, rms_norm::RmsNorm, select_outputs::SelectOutputs, ssm_scan::SsmScan,
};
use crate::plan::{Kernel, Plan, PlanError};
use crate::tensors::TensorStore;

/// What a kernel works on.
pub(super) struct Step<'s> {
    pub(super) buffers: &'s mut Buffers,
    pub(super) slots: &'s mut Slots,
    pub(super) batch: &'s Batch,
    pub(super) scratch: &'s mut Scratch,
}

/// Memory that a kernel needs besides its buffers. Its content does not outlive the launch.
#[derive(Default)]
pub(super) struct Scratch {
    /// Results before they are transposed into a buffer.
    pub(super) results: Storage,
    /// A scan state as floats, where it is kept in fewer bits.
    pub(super) state: Storage,
    /// Inside [`Kernel::Mixer`]: the output of the convolution.
    pub(super) conv: Storage,
    /// Inside [`Kernel::Mixer`]: the output of the scan; inside [`Kernel::Attention`]: its output before it is emitted.
    pub(super) inner: Storage,
}

/// A kernel and its tensors.
pub(super) trait Op: Send + Sync {
    /// Computes what the doc comment of its [`Kernel`] says.
    fn run(&self, step: &mut Step<'_>);
}

/// The launches of a validated plan.
pub(super) fn resolve<'a>(plan: &'a Plan, store: &'a dyn TensorStore) -> Result<Vec<Box<dyn Op + 'a>>, PlanError> {
    let resolved = plan.launches.iter().map(|launch| {
        let tensors = Tensors { store, origin: &launch.origin };
        resolve_kernel(&launch.kernel, tensors)
    });
    resolved.collect()
}

/// A kernel with the tensors of one launch.
pub(super) fn resolve_kernel<'a>(kernel: &'a Kernel, tensors: Tensors<'a>) -> Result<Box<dyn Op + 'a>, PlanError> {
    Ok(match kernel {
        Kernel::Embed { table, out } => Box::new(Embed::new(table, *out, tensors)?),
        Kernel::SelectOutputs { x, out } => Box::new(SelectOutputs { x: *x, out: *out }),
        Kernel::Add { a, b, out } => Box::new(Add { a: *a, b: *b, out: *out }),
        Kernel::RmsNorm { x, delta, weight, eps, emit } => Box::new(RmsNorm {
            x: *x,
            delta: *delta,
            weight: tensors.get_optional(weight.as_ref())?,
            eps: *eps,
            emit: emit.clone(),
        }),
        Kernel::Map { x, relu2, emit } => Box::new(Map { x: *x, relu2: *relu2, emit: emit.clone() }),
        Kernel::Linear { x, in_features, segments } => Box::new(Linear::new(*x, *in_features, segments, tensors)?),
        Kernel::Dequantize { acc, x_scale, weight_scale, relu2, out } => Box::new(Dequantize {
            acc: *acc,
            x_scale: *x_scale,
            weight_scale: tensors.get(weight_scale)?,
            relu2: *relu2,
            out: *out,
        }),
        Kernel::Conv1d { x, weights, state, out } => {
            Box::new(Conv1d { x: *x, filter: super::conv1d::Filter::new(weights, tensors)?, state: *state, out: *out })
        }
        Kernel::SsmScan { xbc, dt, weights, shape, state, out } => Box::new(SsmScan {
            xbc: *xbc,
            dt: *dt,
            heads: super::ssm_scan::Heads::new(weights, *shape, tensors)?,
            state: *state,
            out: *out,
        }),
        Kernel::GatedRmsNorm { x, z, weight, group_size, eps, emit } => Box::new(GatedRmsNorm {
            x: *x,
            z: *z,
            norm: super::gated_rms_norm::GatedNorm::new(weight.as_ref(), *group_size, *eps, tensors)?,
            emit: emit.clone(),
        }),
        Kernel::Mixer { .. } => Box::new(Mixer::new(kernel, tensors)?),
        Kernel::Attention { q, k, v, state, heads, kv_heads, head_dim, scale, emit } => Box::new(Attention {
            q: *q,
            k: *k,
            v: *v,
            state: *state,
            heads: *heads,
            kv_heads: *kv_heads,
            head_dim: *head_dim,
            scale: *scale,
            emit: emit.clone(),
        }),
    })
}
