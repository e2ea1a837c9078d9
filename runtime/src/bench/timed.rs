//! Devices that can be measured.

use crate::cpu;
use crate::cuda::{self, LaunchTime, Product, Race};
use crate::device::{Device, DeviceError, LaunchByLaunch, SequenceChunk};
use crate::median::median;
use serde::Serialize;
use std::time::Instant;

/// Bytes that a device has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Weights and scales.
    pub weights: u64,
    /// Buffers of a step.
    pub buffers: u64,
    /// States of the sequences there are.
    pub states: u64,
}

/// The most INT8 operations a second that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// How many.
    pub ops_per_second: f64,
    /// What reached them.
    pub by: &'static str,
}

/// Large enough that a matrix product reaches its peak.
const SQUARE: Product = Product { rows: 8192, n: 8192, k: 8192 };

/// A device with a clock.
pub trait Timed: Device {
    /// Microseconds of a step of this batch, without copies of tokens and logits where the device has a clock of its own:
    /// the median of `repeats`. States advance, positions do not.
    fn time_step(&mut self, batch: &[SequenceChunk<'_>], repeats: usize) -> Result<f64, DeviceError>;

    /// Microseconds of each launch, likewise.
    fn time_launches(&mut self, batch: &[SequenceChunk<'_>], repeats: usize) -> Result<Vec<LaunchTime>, DeviceError>;

    /// Takes tokens without computing, so that long contexts can be timed without reading long prompts.
    fn skip(&mut self, batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError>;

    /// Bytes a second that a plain read of its memory reaches.
    fn read_bandwidth(&mut self) -> Result<f64, DeviceError>;

    /// INT8 operations a second that its tensor cores reach, if it has any.
    fn int8_peak(&mut self) -> Result<Option<Peak>, DeviceError>;

    /// A linear of the plan, of so many tokens, and the vendor's INT8 product of its shape in turn, where there is one.
    fn race_vendor(&mut self, _launch: usize, _rows: usize) -> Result<Option<Race>, DeviceError> {
        Ok(None)
    }

    /// Bytes a second of copies from page-locked memory of the host, if it needs any.
    fn upload_bandwidth(&mut self) -> Result<Option<f64>, DeviceError>;

    /// Seconds that the upload of the weights took, if there was one.
    fn upload_seconds(&self) -> Option<f64> {
        None
    }

    /// What it holds, where it counts that.
    fn memory(&self) -> Option<Memory>;
}

impl Timed for cuda::Device<'_> {
    fn time_step(&mut self, batch: &[SequenceChunk<'_>], repeats: usize) -> Result<f64, DeviceError> {
        cuda::Device::time_step(self, batch, repeats)
    }

    fn time_launches(&mut self, batch: &[SequenceChunk<'_>], repeats: usize) -> Result<Vec<LaunchTime>, DeviceError> {
        cuda::Device::time_launches(self, batch, repeats)
    }

    fn skip(&mut self, batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError> {
        cuda::Device::skip(self, batch)
    }

    fn read_bandwidth(&mut self) -> Result<f64, DeviceError> {
        cuda::Device::read_bandwidth(self)
    }

    fn int8_peak(&mut self) -> Result<Option<Peak>, DeviceError> {
        let own = Peak { ops_per_second: cuda::Device::int8_peak(self)?, by: "mma.sync" };
        let elapsed_us = cuda::Device::time_vendor(self, &[SQUARE])?[0];
        let ops = 2.0 * (SQUARE.rows * SQUARE.n * SQUARE.k) as f64;
        let vendor = elapsed_us.map(|us| Peak { ops_per_second: ops / us * 1e6, by: "cuBLASLt" });
        Ok(Some(vendor.filter(|vendor| vendor.ops_per_second > own.ops_per_second).unwrap_or(own)))
    }

    fn race_vendor(&mut self, launch: usize, rows: usize) -> Result<Option<Race>, DeviceError> {
        cuda::Device::race_vendor(self, launch, rows)
    }

    fn upload_bandwidth(&mut self) -> Result<Option<f64>, DeviceError> {
        cuda::Device::upload_bandwidth(self).map(Some)
    }

    fn upload_seconds(&self) -> Option<f64> {
        Some(cuda::Device::upload_seconds(self))
    }

    fn memory(&self) -> Option<Memory> {
        let (weights, buffers, states) = self.memory_bytes();
        Some(Memory { weights, buffers, states })
    }
}

impl Timed for cpu::Device<'_> {
    fn time_step(&mut self, batch: &[SequenceChunk<'_>], repeats: usize) -> Result<f64, DeviceError> {
        let mut times = Vec::with_capacity(repeats);
        for run in 0..=repeats {
            let started = Instant::now();
            self.begin(batch)?;
            self.run_begun()?;
            // The first run touches pages and grows buffers.
            if run > 0 {
                times.push(microseconds(started));
            }
        }
        Ok(median(times))
    }

    fn time_launches(&mut self, batch: &[SequenceChunk<'_>], repeats: usize) -> Result<Vec<LaunchTime>, DeviceError> {
        let mut samples = vec![Vec::with_capacity(repeats); self.plan().launches.len()];
        for run in 0..=repeats {
            self.begin(batch)?;
            for (index, samples) in samples.iter_mut().enumerate() {
                let started = Instant::now();
                self.run_launch(index)?;
                if run > 0 {
                    samples.push(microseconds(started));
                }
            }
        }
        let time = |(launch, times)| LaunchTime { launch, elapsed_us: median(times) as f32, beside_us: None };
        Ok(samples.into_iter().enumerate().map(time).collect())
    }

    fn skip(&mut self, batch: &[SequenceChunk<'_>]) -> Result<(), DeviceError> {
        self.begin(batch)?;
        self.skip_begun();
        Ok(())
    }

    fn read_bandwidth(&mut self) -> Result<f64, DeviceError> {
        Ok(host_read_bandwidth())
    }

    fn int8_peak(&mut self) -> Result<Option<Peak>, DeviceError> {
        Ok(None)
    }

    fn upload_bandwidth(&mut self) -> Result<Option<f64>, DeviceError> {
        Ok(None)
    }

    fn memory(&self) -> Option<Memory> {
        None
    }
}

/// Bytes a second that all cores read from memory together: the best of a few passes over more than the caches hold.
pub fn host_read_bandwidth() -> f64 {
    const WORDS: usize = 32 << 20;
    let words = vec![1u64; WORDS];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let sum = |words: &[u64]| words.iter().fold(0u64, |a, b| a.wrapping_add(*b));
    let pass = |_| {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(WORDS.div_ceil(threads)) {
                scope.spawn(move || std::hint::black_box(sum(part)));
            }
        });
        (WORDS * 8) as f64 / started.elapsed().as_secs_f64()
    };
    (0..5).map(pass).fold(0.0, f64::max)
}

fn microseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}
