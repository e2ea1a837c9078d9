//! The command line as a user meets it: output, errors, exit codes.

mod analyze;
mod artifact;
mod compile;
mod general;
mod opt;
mod support;
mod synth;
