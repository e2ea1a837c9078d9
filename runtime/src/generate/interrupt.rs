//! Ctrl-C while text comes: the step in flight ends, the text so far stays.

use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a process that SIGINT ended.
pub const INTERRUPTED: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C and SIGTERM set the flag that is returned; the second time they end the process at once.
pub fn on_interrupt() -> &'static AtomicBool {
    let handler = || {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    };
    // Fails only when a handler is set already: then that one is obeyed.
    let _ = ctrlc::set_handler(handler);
    &ASKED
}
