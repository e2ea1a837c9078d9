//! The choice of the likeliest token on the GPU: ids come back in place of logits.

use super::driver::{Memory, Pinned, Stream};
use super::entry;
use super::kernels::{Grid, Kernels};
use super::params::ArgmaxParams;
use crate::device::DeviceError;

/// Blocks that share a row of logits.
const ROW_BLOCKS: usize = 16;

pub(super) struct Greedy {
    keys: Memory,
    host: Pinned,
}

impl Greedy {
    pub(super) fn new(rows: usize) -> Result<Greedy, DeviceError> {
        Ok(Greedy { keys: Memory::allocate(rows * 8, "chosen tokens")?, host: Pinned::allocate(rows * 8)? })
    }

    /// Before the step, so that the step is kernels alone.
    pub(super) fn clear(&self, rows: usize, stream: &Stream) -> Result<(), DeviceError> {
        self.keys.clear_first(rows * 8, stream)
    }

    pub(super) fn enqueue(
        &self,
        kernels: &Kernels,
        stream: &Stream,
        logits: u64,
        rows: usize,
        vocab_size: usize,
    ) -> Result<(), DeviceError> {
        let params = ArgmaxParams { logits, keys: self.keys.address(), n: vocab_size as u32, padding: 0 };
        let blocks = vocab_size.div_ceil(entry::ARGMAX.threads as usize).min(ROW_BLOCKS);
        kernels.launch(stream, entry::ARGMAX, Grid::new(blocks, rows, 1), &params)
    }

    /// Waits for the step and returns the token of each row.
    pub(super) fn take(&mut self, rows: usize, stream: &Stream) -> Result<Vec<u32>, DeviceError> {
        let bytes = &mut self.host.as_mut_slice()[..rows * 8];
        stream.download(bytes, self.keys.address())?;
        stream.synchronize()?;
        let keys: &[u64] = bytemuck::cast_slice(&self.host.as_slice()[..rows * 8]);
        Ok(keys.iter().map(|key| token_of(*key)).collect())
    }
}

/// The lower half of a key is the complement of the id: among equal logits the lowest id has the largest key.
fn token_of(key: u64) -> u32 {
    !(key as u32)
}

#[cfg(test)]
mod tests {
    use super::token_of;
    use crate::device::likeliest;
    use proptest::prelude::*;

    /// `key` of argmax.cuh.
    fn key(logit: f32, id: u32) -> u64 {
        let bits = (if logit == 0.0 { 0.0f32 } else { logit }).to_bits();
        let order = match bits >> 31 {
            _ if logit.is_nan() => 0,
            1 => !bits,
            _ => bits | 1 << 31,
        };
        u64::from(order) << 32 | u64::from(!id)
    }

    proptest! {
        #[test]
        fn the_largest_key_is_that_of_the_likeliest_token(
            logits in prop::collection::vec(prop_oneof![
                any::<f32>(), Just(0.0), Just(-0.0), Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY),
            ], 1..20),
        ) {
            let largest = logits.iter().zip(0..).map(|(logit, id)| key(*logit, id)).max().unwrap();
            prop_assert_eq!(token_of(largest), likeliest(&logits));
        }
    }
}
