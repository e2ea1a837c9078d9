//! Linears of many rows beside the vendor's INT8 product, in turn.

use super::batch::StepShape;
use super::device::Device;
use super::driver::{Event, Stream};
use super::enqueue::Queue;
use super::measure::Product;
use super::program::Op;
use super::vendor::VendorProduct;
use super::weights::{LinearOp, WideOp};
use crate::device::DeviceError;
use crate::median::median;
use serde::Serialize;

/// Both in turn on the same random bytes, so that neither has a cooler or less busy GPU: medians.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Race {
    /// The shape of both.
    pub product: Product,
    /// The linear with scales and all that follows, its weights being W8.
    pub ours_us: f32,
    /// The vendor's product, i32.
    pub vendor_us: f32,
    /// What makes W8 of the linear's W4 weights, by itself.
    pub expand_us: Option<f32>,
}

/// Turns of each that count, and as many before them as the clocks take to settle.
const TURNS: usize = 60;
const WARM_UP: usize = 30;
/// Weights that are multiplied one after the other: more than L2 holds.
const WEIGHT_BYTES: usize = 256 << 20;

impl Device<'_> {
    /// A linear of the plan and the vendor's product of its shape. `None` where there is no library, the GPU has no
    /// warpgroup instructions, or the linear does not use them. Leaves nothing of use in the step's buffers.
    pub fn race_vendor(&self, launch: usize, rows: usize) -> Result<Option<Race>, DeviceError> {
        self.gpu.make_current()?;
        let Some(Op::Linear(linear)) = self.program.get(launch) else { return Ok(None) };
        let shape = StepShape { rows, outputs: 1, sequences: 1, longest: rows, long_context: false };
        let queue = Queue { shape, ..self.queue() };
        let (Some(wide), Some(vendor)) = (queue.widened(linear, rows), self.vendor()) else { return Ok(None) };
        let k = wide.linear.k_padded as usize;
        let n = wide.linear.segments().iter().map(|segment| segment.out_features as usize).sum();
        let product = Product { rows, n, k };
        if rows > self.step_rows() || !is_whole(linear, wide) {
            return Ok(None);
        }
        let copies = WEIGHT_BYTES.div_ceil(n * k).max(2);
        let Some(theirs) = vendor.product(&self.stream, product, copies)? else { return Ok(None) };
        let ours = |turn: usize| {
            let (x, weight) = theirs.operands(turn);
            queue.multiply(&wide.on(x, weight), rows)
        };
        let [ours_us, vendor_us] = in_turn(&self.stream, ours, |turn| run(&theirs, &self.stream, turn))?;
        let expand = |_| queue.expand(&self.stream, &wide.expand);
        let expand_us = match wide.expand[..] {
            [] => None,
            // The product in between leaves nothing of the weights in L2.
            _ => Some(in_turn(&self.stream, expand, |turn| run(&theirs, &self.stream, turn))?[0]),
        };
        Ok(Some(Race { product, ours_us, vendor_us, expand_us }))
    }
}

/// Whether warpgroup instructions do all of it, on rows without gaps.
fn is_whole(linear: &LinearOp, wide: &WideOp) -> bool {
    let dense = wide.linear.segments().iter().all(|segment| segment.row_bytes == wide.linear.k_padded);
    linear.scalar.is_empty() && dense
}

fn run(product: &VendorProduct<'_>, stream: &Stream, turn: usize) -> Result<(), DeviceError> {
    // What it refuses it refused when it was chosen.
    product.run(stream, turn);
    Ok(())
}

/// Medians of the times from the end of one to the end of the other. Each turn has a number of its own.
fn in_turn(
    stream: &Stream,
    first: impl Fn(usize) -> Result<(), DeviceError>,
    second: impl Fn(usize) -> Result<(), DeviceError>,
) -> Result<[f32; 2], DeviceError> {
    let events: Vec<Event> = (0..=2 * (WARM_UP + TURNS)).map(|_| Event::new()).collect::<Result<_, _>>()?;
    events[0].record(stream)?;
    for (turn, event) in events[1..].iter().enumerate() {
        if turn % 2 == 0 {
            first(turn)?
        } else {
            second(turn)?
        }
        event.record(stream)?;
    }
    stream.synchronize()?;
    let elapsed = events.windows(2).map(|pair| pair[1].elapsed_us(&pair[0]));
    let times: Vec<f32> = elapsed.skip(2 * WARM_UP).collect::<Result<_, _>>()?;
    Ok([0, 1].map(|start| median(times[start..].iter().step_by(2).copied().collect()) as f32))
}
