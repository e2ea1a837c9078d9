//! The command line as a user meets it: output, errors, exit codes.

mod analyze;
mod artifact;
mod auto;
mod calibrate;
mod compare;
mod compile;
mod eval;
mod general;
mod measure;
mod opt;
mod plan_memory;
mod states;
mod support;
mod synth;
