//! Linears of many rows beside the vendor's INT8 product, in turn.

use super::batch::StepShape;
use super::device::Device;
use super::driver::{Event, Stream};
use super::enqueue::Queue;
use super::measure::Product;
use super::program::Op;
use super::vendor::Choice;
use super::weights::{LinearOp, WideOp};
use crate::device::DeviceError;
use crate::median::median;
use serde::Serialize;
use std::time::Duration;

/// Medians of a linear and of the vendor's product of its shape, in turn without a pause, so that neither has a cooler or less
/// busy GPU.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pair {
    /// The linear with scales and all that follows, its weights being W8.
    pub ours_us: f32,
    /// The vendor's product, i32.
    pub vendor_us: f32,
}

impl Pair {
    /// The rate of ours over that of the vendor's.
    pub fn rate(&self) -> f32 {
        self.vendor_us / self.ours_us
    }
}

/// Both on the same random bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Race {
    /// The shape of both.
    pub product: Product,
    /// Beside the fastest of the vendor's algorithms, after a rest: the clock is high, as the GPU may take more power for a while.
    pub rested: Pair,
    /// The same when the clock has become what the limit of power leaves.
    pub settled: Pair,
    /// Beside the algorithm that the vendor's library proposes first, then.
    pub first: Pair,
    /// What makes W8 of the linear's W4 weights, by itself.
    pub expand_us: Option<f32>,
}

/// Turns of each that count, and those before them.
const TURNS: usize = 60;
const WARM_UP: usize = 30;
/// What the clock takes to settle.
const SETTLE_US: f32 = 200e3;
const REST: Duration = Duration::from_millis(100);
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
        let ours = &|turn: usize| {
            let (x, weight) = theirs.operands(turn);
            queue.multiply(&wide.on(x, weight), rows)
        };
        let vendors = |choice: Choice| {
            let theirs = &theirs;
            move |turn| {
                theirs.run(&self.stream, turn, choice);
                Ok(())
            }
        };
        let against = |choice, warm_up| in_turn(&self.stream, warm_up, ours, vendors(choice));
        std::thread::sleep(REST);
        let rested = against(Choice::Fastest, WARM_UP)?;
        let turns = SETTLE_US / (rested.ours_us + rested.vendor_us).max(1.0);
        let settled = against(Choice::Fastest, turns as usize)?;
        let first = against(Choice::First, WARM_UP)?;
        let expand = |_| queue.expand(&self.stream, &wide.expand);
        let expand_us = match wide.expand[..] {
            [] => None,
            // The product in between leaves nothing of the weights in L2.
            _ => Some(in_turn(&self.stream, WARM_UP, expand, vendors(Choice::Fastest))?.ours_us),
        };
        Ok(Some(Race { product, rested, settled, first, expand_us }))
    }
}

/// Whether warpgroup instructions do all of it, on rows without gaps.
fn is_whole(linear: &LinearOp, wide: &WideOp) -> bool {
    let dense = wide.linear.segments().iter().all(|segment| segment.row_bytes == wide.linear.k_padded);
    linear.scalar.is_empty() && dense
}

/// Medians of the times from the end of one to the end of the other. Each turn has a number of its own.
fn in_turn(
    stream: &Stream,
    warm_up: usize,
    ours: impl Fn(usize) -> Result<(), DeviceError>,
    vendors: impl Fn(usize) -> Result<(), DeviceError>,
) -> Result<Pair, DeviceError> {
    let run = |turn: usize| if turn.is_multiple_of(2) { ours(turn) } else { vendors(turn) };
    (0..2 * warm_up).try_for_each(run)?;
    let events: Vec<Event> = (0..=2 * TURNS).map(|_| Event::new()).collect::<Result<_, _>>()?;
    events[0].record(stream)?;
    for (turn, event) in events[1..].iter().enumerate() {
        run(turn)?;
        event.record(stream)?;
    }
    stream.synchronize()?;
    let elapsed = events.windows(2).map(|pair| pair[1].elapsed_us(&pair[0]));
    let times: Vec<f32> = elapsed.collect::<Result<_, _>>()?;
    let of = |start: usize| median(times[start..].iter().step_by(2).copied().collect()) as f32;
    Ok(Pair { ours_us: of(0), vendor_us: of(1) })
}
