//! How a command fails: the message in the house style, the exit code.

use anstyle::{AnsiColor, Style};
use runtime::generate::INTERRUPTED;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why a command did not finish.
#[derive(Debug)]
pub enum Failure {
    /// For people: what is wrong, then lines `  --> place` and `help: what to do`.
    Message(String),
    /// The command line asks for something impossible: exit code 2.
    Usage(String),
    /// Ctrl-C ended it early; what it has done is kept, and the user knows.
    Interrupted,
    /// The reader of the output went away (`| head`): nothing to say, nobody to say it to.
    OutputClosed,
}

/// What a command returns.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// An error of a library that does not know the file it was about.
    pub fn at(place: impl std::fmt::Display, error: impl std::fmt::Display) -> Failure {
        let text = error.to_string();
        if text.contains("\n  --> ") {
            return Failure::Message(text);
        }
        let (head, help) = text.split_at(text.find("\nhelp: ").unwrap_or(text.len()));
        Failure::Message(format!("{head}\n  --> {place}{help}"))
    }

    /// Says what happened, on stderr.
    pub fn report(&self) -> ExitCode {
        match self {
            Failure::OutputClosed => ExitCode::SUCCESS,
            Failure::Interrupted => ExitCode::from(INTERRUPTED),
            Failure::Usage(text) => {
                complain(text);
                ExitCode::from(2)
            }
            Failure::Message(text) => {
                complain(text);
                ExitCode::FAILURE
            }
        }
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        let broken_pipe = (&error as &dyn Error)
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        if broken_pipe { Failure::OutputClosed } else { Failure::Message(error.to_string()) }
    }
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// Runs something that catches panics itself and reports them as errors.
pub fn quiet_panics<T>(action: impl FnOnce() -> T) -> T {
    QUIET.store(true, Ordering::Relaxed);
    let result = action();
    QUIET.store(false, Ordering::Relaxed);
    result
}

/// A panic is a bug of the compiler: says so, in place of Rust's own message.
pub fn report_bug(info: &std::panic::PanicHookInfo<'_>) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    let place = info.location().map_or_else(String::new, |at| format!("\n  --> {at}"));
    let what = info.payload_as_str().unwrap_or("no message");
    let what = what.strip_prefix("bug: ").unwrap_or(what);
    complain(&format!(
        "this is a bug in nemoc {}: {what}{place}\nhelp: report it with the command and the files that lead here; \
         `--dump-ir DIR` keeps the IR, RUST_BACKTRACE=1 shows the way",
        env!("CARGO_PKG_VERSION")
    ));
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        complain(&backtrace.to_string());
    }
}

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const PLACE: Style = AnsiColor::Blue.on_default();
const HELP: Style = AnsiColor::Green.on_default().bold();

/// Says why the command failed.
pub fn complain(text: &str) {
    say("error", ERROR, text);
}

/// Says something that the user should know although the command goes on.
pub fn warn(text: &str) {
    say("warning", WARNING, text);
}

fn say(word: &str, style: Style, text: &str) {
    let mut out = format!("{style}{word}:{style:#} ");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("help:") {
            out += &format!("{HELP}help:{HELP:#}{rest}\n");
        } else if line.starts_with("  --> ") {
            out += &format!("{PLACE}{line}{PLACE:#}\n");
        } else {
            out += &format!("{line}\n");
        }
    }
    // A stderr that cannot be written leaves the exit code to speak.
    let _ = anstream::stderr().write_all(out.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::Failure;

    fn text(failure: Failure) -> String {
        match failure {
            Failure::Message(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn puts_the_place_before_the_help() {
        let failure = Failure::at("a.nemo", "it is broken\nhelp: mend it");
        assert_eq!(text(failure), "it is broken\n  --> a.nemo\nhelp: mend it");
    }

    #[test]
    fn keeps_the_place_an_error_knows_itself() {
        let failure = Failure::at("a.nemo", "it is broken\n  --> b.nemo\nhelp: mend it");
        assert_eq!(text(failure), "it is broken\n  --> b.nemo\nhelp: mend it");
    }

    #[test]
    fn says_nothing_when_the_reader_went_away() {
        let error = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(matches!(Failure::from(error), Failure::OutputClosed));
    }
}
