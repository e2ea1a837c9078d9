//! Bytes of many tensors to one place on the GPU, through page-locked memory: the threads fill one part while the parts
//! before it are on their way.

use super::driver::{Event, Stream};
use super::staging::Staging;
use crate::device::DeviceError;
use rayon::prelude::*;

/// Bytes of a part: a copy of 4 MB is over before the threads have woken for the next one.
const PART: usize = 16 << 20;
/// Parts in flight.
const PARTS: usize = 3;
/// What one thread copies at a time.
const SLICE: usize = 256 << 10;

/// Copies each view to its offset from `base`. Offsets ascend and views do not overlap; what lies between them is left to
/// chance.
pub(super) fn upload(views: &[(usize, &[u8])], base: u64) -> Result<(), DeviceError> {
    let stream = Stream::new()?;
    let parts = parts(views, PART);
    let mut staging = Staging::allocate(parts.len().min(PARTS) * PART)?;
    let sent = send(&parts, base, &mut staging, &stream);
    // Copies leave from the staging memory: it stays until they are done, also where one of them failed.
    stream.synchronize()?;
    sent
}

fn send(parts: &[Part<'_>], base: u64, staging: &mut Staging, stream: &Stream) -> Result<(), DeviceError> {
    let left: Vec<Event> = (0..PARTS).map(|_| Event::new()).collect::<Result<_, _>>()?;
    for (part, slot) in parts.iter().zip((0..PARTS).cycle()) {
        // What was in it has left.
        left[slot].synchronize()?;
        let bytes = &mut staging.as_mut_slice()[slot * PART..][..part.len];
        part.fill(bytes);
        stream.upload(base + part.start as u64, bytes)?;
        left[slot].record(stream)?;
    }
    Ok(())
}

/// A range of the target, and the pieces of views that lie in it.
struct Part<'v> {
    start: usize,
    len: usize,
    /// By their offset from the start.
    pieces: Vec<(usize, &'v [u8])>,
}

/// Cuts the target into parts of `size` bytes, however the views lie: a small tensor costs no copy of its own.
fn parts<'v>(views: &[(usize, &'v [u8])], size: usize) -> Vec<Part<'v>> {
    let mut parts: Vec<Part<'v>> = Vec::new();
    for (offset, bytes) in views {
        let (mut at, mut rest) = (*offset, *bytes);
        while !rest.is_empty() {
            let start = at / size * size;
            let (piece, tail) = rest.split_at(rest.len().min(start + size - at));
            if parts.last().is_none_or(|part| part.start != start) {
                parts.push(Part { start, len: 0, pieces: Vec::new() });
            }
            if let Some(part) = parts.last_mut() {
                part.pieces.push((at - start, piece));
                part.len = at - start + piece.len();
            }
            (at, rest) = (at + piece.len(), tail);
        }
    }
    parts
}

impl Part<'_> {
    fn fill(&self, mut target: &mut [u8]) {
        let mut copies = Vec::new();
        let mut filled = 0;
        for (offset, piece) in &self.pieces {
            let (_, behind) = std::mem::take(&mut target).split_at_mut(offset - filled);
            let (to, behind) = behind.split_at_mut(piece.len());
            copies.extend(to.chunks_mut(SLICE).zip(piece.chunks(SLICE)));
            (target, filled) = (behind, offset + piece.len());
        }
        copies.into_par_iter().for_each(|(to, from)| to.copy_from_slice(from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_byte_arrives_at_its_offset(
            sizes in prop::collection::vec((0usize..200, 0usize..9), 0..20), size in 1usize..128,
        ) {
            let bytes: Vec<u8> = (0..200u8).collect();
            let (mut views, mut end) = (Vec::new(), 0);
            for (len, gap) in sizes {
                views.push((end, &bytes[..len]));
                end += len + gap;
            }
            let mut target = vec![255; end];
            for part in parts(&views, size) {
                prop_assert!(part.len <= size && part.len > 0);
                let mut staged = vec![255; part.len];
                part.fill(&mut staged);
                target[part.start..][..part.len].copy_from_slice(&staged);
            }
            for (offset, view) in views {
                prop_assert_eq!(&target[offset..][..view.len()], view);
            }
        }
    }

    #[test]
    fn small_tensors_share_a_part() {
        let bytes = [7; 10];
        let views: Vec<(usize, &[u8])> = (0..50).map(|i| (i * 16, &bytes[..])).collect();
        assert_eq!(parts(&views, 1024).len(), 1);
    }
}
