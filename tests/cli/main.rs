//! The command line as a user meets it: output, errors, exit codes.

mod analyze;
mod general;
mod support;
mod synth;
