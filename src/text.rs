//! Texts that commands read, and the windows they are predicted in.

use crate::failure::Failure;
use runtime::eval::Windows;
use std::path::Path;

/// A UTF-8 text.
pub struct Text {
    /// The name of its file, no path.
    pub name: String,
    pub content: String,
}

impl Text {
    pub fn read(path: &Path) -> Result<Text, Failure> {
        let content = std::fs::read_to_string(path).map_err(|error| {
            Failure::at(path.display(), format!("cannot read the text: {error}\nhelp: give a UTF-8 text file"))
        })?;
        Ok(Text { name: file_name(path), content })
    }
}

/// The last part of a path; nothing for a path without one.
pub fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Into what a text is cut before it is predicted.
#[derive(clap::Args)]
pub struct WindowArguments {
    /// Tokens of a window; each window starts from a fresh state. With --chunk 1 they are taken one by one, as in
    /// generation: what is rounded with every step shows.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..1 << 24))]
    window: u32,
    /// Most windows [default: the whole text].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    windows: Option<u32>,
}

impl WindowArguments {
    pub fn windows(&self) -> Windows {
        Windows { size: self.window as usize, count: self.windows.map(|count| count as usize), ..Windows::default() }
    }
}
