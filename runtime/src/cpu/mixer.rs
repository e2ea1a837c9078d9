//! [`crate::plan::Kernel::Mixer`].

use super::conv1d::Filter;
use super::emit::emit;
use super::gated_rms_norm::GatedNorm;
use super::program::{Op, Step};
use super::ssm_scan::Heads;
use super::tensors::Tensors;
use crate::plan::{BufferId, Emit, Kernel, PlanError, StateId};

pub(super) struct Mixer<'a> {
    z: BufferId,
    xbc: BufferId,
    dt: BufferId,
    filter: Filter,
    heads: Heads<'a>,
    norm: GatedNorm<'a>,
    conv_state: StateId,
    ssm_state: StateId,
    emit: Emit,
}

impl<'a> Mixer<'a> {
    /// # Panics
    /// If `kernel` is another variant.
    pub(super) fn new(kernel: &'a Kernel, tensors: Tensors<'a>) -> Result<Self, PlanError> {
        let Kernel::Mixer { z, xbc, dt, conv, ssm, shape, conv_state, ssm_state, norm_weight, group_size, eps, emit } =
            kernel
        else {
            unreachable!("called for Kernel::Mixer only");
        };
        Ok(Mixer {
            z: *z,
            xbc: *xbc,
            dt: *dt,
            filter: Filter::new(conv, tensors)?,
            heads: Heads::new(ssm, *shape, tensors)?,
            norm: GatedNorm::new(norm_weight.as_ref(), *group_size, *eps, tensors)?,
            conv_state: *conv_state,
            ssm_state: *ssm_state,
            emit: emit.clone(),
        })
    }
}

impl Op for Mixer<'_> {
    fn run(&self, step: &mut Step<'_>) {
        let rows = step.buffers.rows(self.xbc);
        let inner = self.heads.inner();
        let scratch = &mut *step.scratch;
        let convolved = scratch.conv.scratch(rows * self.filter.channels());
        let xbc = step.buffers.floats(self.xbc);
        self.filter.run(xbc, step.batch, step.slots, self.conv_state, convolved);
        let scanned: &mut [f32] = scratch.inner.scratch(rows * inner);
        let inputs = (&*convolved, step.buffers.floats(self.dt));
        let memory = (&mut scratch.results, &mut scratch.state);
        self.heads.run(inputs, step.batch, step.slots, self.ssm_state, memory, scanned);
        let scanned = &*scanned;
        emit(&self.emit, inner, step.buffers, |buffers, t, y| {
            let z = &buffers.floats(self.z)[t * inner..][..inner];
            self.norm.row(&scanned[t * inner..][..inner], z, y);
        });
    }
}
