//! Memory that lives as long as the device, beside weights, buffers and states.

use super::driver::{Gpu, Memory, Stream};
use super::entry;
use crate::device::DeviceError;
use crate::plan::{Kernel, Plan};

/// Memory that the kernels of one launch hand to each other.
pub(super) struct Scratch {
    pub(super) convolved: Memory,
    pub(super) scanned: Memory,
    /// What the first kernel of a scan in chunks leaves to the second.
    pub(super) prepared: Memory,
    pub(super) part_acc: Memory,
    pub(super) part_top: Memory,
    pub(super) part_sum: Memory,
    /// W8 made of the W4 weights of linears, at their [`super::expansion::Expanded`].
    pub(super) expanded: Memory,
    /// A counter a launch of a linear, all 0 between launches.
    pub(super) draws: Memory,
}

impl Scratch {
    pub(super) fn new(
        plan: &Plan,
        gpu: &Gpu,
        stream: &Stream,
        step_rows: usize,
        expanded: usize,
    ) -> Result<Scratch, DeviceError> {
        let (mut channels, mut inner, mut parts, mut part_values) = (0, 0, 0, 0);
        let (mut linears, mut prepared) = (0, 0);
        for launch in &plan.launches {
            match &launch.kernel {
                Kernel::Mixer { conv, shape, .. } => {
                    channels = channels.max(conv.channels);
                    inner = inner.max(shape.heads * shape.head_dim);
                    prepared = prepared.max(entry::chunked_bytes(step_rows, shape.heads, shape.groups));
                }
                Kernel::SsmScan { shape, .. } => {
                    prepared = prepared.max(entry::chunked_bytes(step_rows, shape.heads, shape.groups));
                }
                Kernel::Attention { heads, kv_heads, head_dim, .. } => {
                    // Rows times parts is at most this, whatever the rows.
                    let most = (step_rows + 2 * gpu.sm_count as usize / kv_heads + 1) * heads;
                    parts = parts.max(most);
                    part_values = part_values.max(most * head_dim);
                }
                Kernel::Linear { segments, .. } => linears += segments.len(),
                _ => {}
            }
        }
        let floats = |count: usize, what: &str| Memory::allocate(count * 4, what);
        Ok(Scratch {
            convolved: floats(step_rows * channels, "convolved channels")?,
            scanned: floats(step_rows * inner, "the output of scans")?,
            prepared: Memory::allocate(prepared, "chunks of scans")?,
            part_acc: floats(part_values, "parts of attention")?,
            part_top: floats(parts, "parts of attention")?,
            part_sum: floats(parts, "parts of attention")?,
            expanded: Memory::allocate(expanded, "expanded weights")?,
            draws: Memory::zeroed(linears * 4, "counters of tiles", stream)?,
        })
    }
}
