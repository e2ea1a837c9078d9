//! Times of kernels and steps by the GPU's own clock, and the rates that its hardware reaches.

use super::device::Device;
use super::driver::{Event, Memory, Pinned};
use super::entry::{self, Entry};
use super::kernels::Grid;
use super::params::AddParams;
use super::program::Op;
use crate::device::{DeviceError, SequenceChunk};
use crate::median::median;
use serde::Serialize;

/// Operations of an mma.sync m16n8k32.
const MMA_OPS: f64 = 2.0 * 16.0 * 8.0 * 32.0;
/// Rounds of the peak kernel: about a millisecond.
const PEAK_ROUNDS: u32 = 4096;

/// Where one step's time went.
#[derive(Clone, Copy, Debug)]
pub struct LaunchTime {
    /// Index of the launch in the plan.
    pub launch: usize,
    /// From the end of the launch before to the end of this one.
    pub elapsed_us: f32,
    /// What ran beside it for later launches, from its start to its end.
    pub beside_us: Option<f32>,
}

/// The sizes of an INT8 matrix product, `rows x k` times `n x k` transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Product {
    /// Token rows.
    pub rows: usize,
    /// Weight rows.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
}

impl Device<'_> {
    /// Takes tokens without computing: positions and caches grow, whatever they hold.
    pub fn skip(&mut self, batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError> {
        self.prepare(batch)?;
        self.stream.synchronize()?;
        self.advance();
        Ok(())
    }

    /// Time of every launch in a step of this batch, without graph; the median of `repeats` runs each. The slots'
    /// states advance, their positions do not.
    pub fn time_launches(
        &mut self,
        batch: &[SequenceChunk<'_>],
        repeats: usize,
    ) -> Result<Vec<LaunchTime>, DeviceError> {
        self.prepare(batch)?;
        let events: Vec<Event> = (0..=self.program.len()).map(|_| Event::new()).collect::<Result<_, _>>()?;
        let mut samples = vec![Vec::with_capacity(repeats); self.program.len()];
        let mut beside: Vec<Vec<f32>> = Vec::new();
        for _ in 0..=repeats {
            let queue = self.whole_queue();
            self.beside.measure();
            events[0].record(&self.stream)?;
            for (op, event) in self.program.iter().zip(&events[1..]) {
                queue.enqueue(op)?;
                event.record(&self.stream)?;
            }
            self.stream.synchronize()?;
            for (index, pair) in events.windows(2).enumerate() {
                samples[index].push(pair[1].elapsed_us(&pair[0])?);
            }
            let forks = self.beside.measured_us()?;
            beside.resize(forks.len(), Vec::new());
            beside.iter_mut().zip(forks).for_each(|(times, elapsed_us)| times.push(elapsed_us));
        }
        // The first run warms up.
        let median = |times: Vec<f32>| median(times[1..].to_vec()) as f32;
        let mut beside = beside.into_iter().map(median);
        let expands = |op: &Op| matches!(op, Op::Mixer(mixer) if !mixer.ahead.is_empty());
        let time = |(launch, times): (usize, Vec<f32>)| {
            let beside_us = if expands(&self.program[launch]) { beside.next() } else { None };
            LaunchTime { launch, elapsed_us: median(times), beside_us }
        };
        Ok(samples.into_iter().enumerate().map(time).collect())
    }

    /// Microseconds of one whole step of this batch as [`crate::device::Device::step`] runs it, by the GPU's clock, without
    /// the copies: the median of `repeats`. The slots' states advance, their positions do not.
    pub fn time_step(&mut self, batch: &[SequenceChunk<'_>], repeats: usize) -> Result<f64, DeviceError> {
        self.prepare(batch)?;
        let (start, end) = (Event::new()?, Event::new()?);
        let mut times = Vec::with_capacity(repeats);
        for run in 0..repeats + 3 {
            start.record(&self.stream)?;
            self.run_all(false)?;
            end.record(&self.stream)?;
            self.stream.synchronize()?;
            if run >= 3 {
                times.push(end.elapsed_us(&start)?);
            }
        }
        Ok(median(times))
    }

    /// Bytes a second at which the GPU reads its memory: the weights, by a kernel that does nothing else. The best of 5.
    pub fn read_bandwidth(&self) -> Result<f64, DeviceError> {
        let kib = self.tensors.bytes() / 1024;
        let params = AddParams { a: self.tensors.address(), b: 0, out: 0, count: kib as u32, padding: 0 };
        let grid = Grid::new(self.gpu.sm_count as usize * 4, 1, 1);
        let elapsed_us = self.best_of_5(entry::READ_MEMORY, grid, &params)?;
        Ok(kib as f64 * 1024.0 / elapsed_us * 1e6)
    }

    /// INT8 operations a second of mma.sync, by a kernel that does nothing else. The best of 5.
    pub fn int8_peak(&self) -> Result<f64, DeviceError> {
        let blocks = self.gpu.sm_count * entry::INT8_PEAK.blocks_per_sm;
        let instructions = PEAK_ROUNDS * 8 * (entry::INT8_PEAK.threads / 32) * blocks;
        let params = AddParams { a: 0, b: 0, out: 0, count: PEAK_ROUNDS, padding: 0 };
        let elapsed_us = self.best_of_5(entry::INT8_PEAK, Grid::new(blocks as usize, 1, 1), &params)?;
        Ok(f64::from(instructions) * MMA_OPS / elapsed_us * 1e6)
    }

    /// Microseconds that the vendor's library takes for products, where it is installed and can do them.
    pub fn time_vendor(&self, products: &[Product]) -> Result<Vec<Option<f64>>, DeviceError> {
        self.gpu.make_current()?;
        let Some(vendor) = self.vendor() else { return Ok(vec![None; products.len()]) };
        let time = |shape: &Product| -> Result<Option<f64>, DeviceError> {
            Ok(vendor.product(&self.stream, *shape, 1)?.map(|product| f64::from(product.best_us)))
        };
        products.iter().map(time).collect()
    }

    /// Seconds that the upload of the weights took.
    pub fn upload_seconds(&self) -> f64 {
        self.tensors.upload_time.as_secs_f64()
    }

    /// Bytes a second of copies from page-locked memory of the host. The best of 5.
    pub fn upload_bandwidth(&self) -> Result<f64, DeviceError> {
        const BYTES: usize = 64 << 20;
        self.gpu.make_current()?;
        let (from, to) = (Pinned::allocate(BYTES)?, Memory::allocate(BYTES, "measuring copies")?);
        let (start, end) = (Event::new()?, Event::new()?);
        let mut best = f32::INFINITY;
        for _ in 0..5 {
            start.record(&self.stream)?;
            self.stream.upload(to.address(), from.as_slice())?;
            end.record(&self.stream)?;
            self.stream.synchronize()?;
            best = best.min(end.elapsed_us(&start)?);
        }
        Ok(BYTES as f64 / f64::from(best) * 1e6)
    }

    fn best_of_5(&self, kernel: Entry, grid: Grid, params: &AddParams) -> Result<f64, DeviceError> {
        self.gpu.make_current()?;
        let (start, end) = (Event::new()?, Event::new()?);
        let mut best = f32::INFINITY;
        for run in 0..6 {
            start.record(&self.stream)?;
            self.kernels.launch(&self.stream, kernel, grid, params)?;
            end.record(&self.stream)?;
            self.stream.synchronize()?;
            // The first run warms up.
            if run > 0 {
                best = best.min(end.elapsed_us(&start)?);
            }
        }
        Ok(f64::from(best))
    }
}
