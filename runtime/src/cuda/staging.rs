//! Memory of the host that copies to the GPU leave from.

use crate::device::DeviceError;
use cudarc::driver::sys;
use memmap2::{MmapMut, MmapOptions};
use rayon::prelude::*;

const HUGE_PAGE: usize = 2 << 20;

/// Page-locked memory of huge pages: locking small ones, as cuMemHostAlloc does, takes 0.5 ms a megabyte, and 48 of them a fifth
/// of the time in which 4 GB of weights are copied.
pub(super) struct Staging {
    map: MmapMut,
    /// Where the first huge page starts.
    start: usize,
    bytes: usize,
    locked: bool,
}

impl Staging {
    pub(super) fn allocate(bytes: usize) -> Result<Staging, DeviceError> {
        let refused =
            |_| DeviceError::OutOfMemory { what: "copies to the GPU, on the host".to_owned(), bytes: bytes as u64 };
        let map = MmapOptions::new().len(bytes + HUGE_PAGE).map_anon().map_err(refused)?;
        prefer_huge_pages(&map);
        let start = map.as_ptr().align_offset(HUGE_PAGE);
        let mut staging = Staging { map, start, bytes, locked: false };
        // Pages come into being when they are written: all threads take part.
        staging.as_mut_slice().par_chunks_mut(HUGE_PAGE).for_each(|page| page.fill(0));
        staging.lock();
        Ok(staging)
    }

    /// Where it is refused, copies are as correct, and slower: the driver takes copies of what is not locked.
    fn lock(&mut self) {
        let bytes = self.bytes;
        let pointer = self.as_mut_slice().as_mut_ptr();
        // SAFETY: the range is mapped and ours until it is unlocked on drop.
        self.locked = unsafe { sys::cuMemHostRegister_v2(pointer.cast(), bytes, 0) }.result().is_ok();
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.map[self.start..][..self.bytes]
    }
}

/// A kernel without huge pages gives small ones.
fn prefer_huge_pages(map: &MmapMut) {
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.locked {
            let pointer = self.as_mut_slice().as_mut_ptr();
            // SAFETY: locked by us, unlocked once; whoever copies from it waits for the copies first.
            let _ = unsafe { sys::cuMemHostUnregister(pointer.cast()) };
        }
    }
}
