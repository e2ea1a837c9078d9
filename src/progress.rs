//! Progress bars on stderr; none when it is not a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts bytes; give it the total when that is known.
pub fn byte_bar(what: &'static str) -> ProgressBar {
    bar(what, "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left")
}

fn bar(what: &'static str, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is valid").progress_chars("=> ");
    ProgressBar::new(0).with_style(style).with_message(what)
}

/// A bar that counts things.
pub fn count_bar(what: &'static str) -> ProgressBar {
    bar(what, "{msg} {bar:30} {pos}/{len}, {eta} left")
}
