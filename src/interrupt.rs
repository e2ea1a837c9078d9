//! Ctrl-C.

use crate::failure::complain;
use std::path::Path;

/// The exit code of a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// On Ctrl-C, SIGTERM and SIGHUP: cleans up, says so and exits.
pub fn on_interrupt(mut clean_up: impl FnMut() + Send + 'static) {
    let handler = move || {
        clean_up();
        complain("interrupted; nothing was written");
        std::process::exit(INTERRUPTED);
    };
    // Fails only when a handler is set already: then that one cleans up.
    let _ = ctrlc::set_handler(handler);
}

/// Removes a folder that this process is still filling, or its contents when `keep_folder`.
pub fn remove_folder(folder: &Path, keep_folder: bool) {
    // A file may appear between listing and removing; the process ends right after this.
    for _ in 0..10 {
        if std::fs::remove_dir_all(folder).is_ok() {
            break;
        }
    }
    if keep_folder {
        let _ = std::fs::create_dir(folder);
    }
}
