//! Work beside the scan of many tokens, which leaves most of the GPU's memory bandwidth: W4 weights of the linears up to the
//! next scan become W8 meanwhile.
//!
//! It runs on a second stream. It starts when everything in front of the scan has finished, so nobody reads the weights of
//! the window before any more; and what follows the scan waits for all of it.

use super::driver::{Event, Stream};
use crate::device::DeviceError;
use std::cell::{Cell, RefCell};

/// The second stream.
pub(super) struct Beside {
    stream: Stream,
    forked: Event,
    joined: Event,
    /// The other stream has yet to wait for `joined`.
    pending: Cell<bool>,
    /// Start and end of all work since `measure`; `None` while nobody measures.
    marks: RefCell<Option<Vec<[Event; 2]>>>,
}

impl Beside {
    pub(super) fn new() -> Result<Beside, DeviceError> {
        let (stream, forked, joined) = (Stream::in_background()?, Event::new()?, Event::new()?);
        Ok(Beside { stream, forked, joined, pending: Cell::default(), marks: RefCell::default() })
    }

    /// Puts work on the second stream that starts when `main` has come so far.
    pub(super) fn fork(
        &self,
        main: &Stream,
        enqueue: impl FnOnce(&Stream) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.forked.record(main)?;
        self.stream.wait(&self.forked)?;
        self.pending.set(true);
        if let Some(marks) = self.marks.borrow_mut().as_mut() {
            let [start, end] = [Event::new()?, Event::new()?];
            start.record(&self.stream)?;
            enqueue(&self.stream)?;
            end.record(&self.stream)?;
            marks.push([start, end]);
        } else {
            enqueue(&self.stream)?;
        }
        self.joined.record(&self.stream)
    }

    /// What comes on `main` waits for the work, if it does not yet.
    pub(super) fn join(&self, main: &Stream) -> Result<(), DeviceError> {
        if self.pending.take() { main.wait(&self.joined) } else { Ok(()) }
    }

    /// From here on every fork is timed.
    pub(super) fn measure(&self) {
        *self.marks.borrow_mut() = Some(Vec::new());
    }

    /// Microseconds of each fork since `measure`, all of which have finished.
    pub(super) fn measured_us(&self) -> Result<Vec<f32>, DeviceError> {
        let marks = self.marks.take().unwrap_or_default();
        marks.iter().map(|[start, end]| end.elapsed_us(start)).collect()
    }
}
