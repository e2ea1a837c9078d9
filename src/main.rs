//! The command line: parses arguments, shows progress, prints results. One file per subcommand, no logic of its own.

mod analyze;
mod auto;
mod bench;
mod calibrate;
mod compare;
mod compile;
mod convert_task;
mod device;
mod eval;
mod failure;
mod inspect;
mod interrupt;
mod list;
mod logits;
mod opt;
mod pipeline;
mod plan_memory;
mod progress;
mod recipe;
mod reference;
mod report;
mod run;
mod synth;
mod table;
mod text;
mod verify;

use clap::{Parser, Subcommand};
use failure::Outcome;
use std::process::ExitCode;

/// Compiles Nemotron-H checkpoints into one deployable artifact of 4- and 8-bit weights, and runs it.
#[derive(Parser)]
#[command(version, propagate_version = true, max_term_width = 120)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Analyze(analyze::Arguments),
    Calibrate(calibrate::Arguments),
    Compile(compile::Arguments),
    Opt(opt::Arguments),
    Inspect(inspect::Arguments),
    Run(run::Arguments),
    Logits(logits::Arguments),
    Eval(eval::Arguments),
    Verify(verify::Arguments),
    Bench(bench::Arguments),
    Compare(compare::Arguments),
    Report(report::Arguments),
    ConvertTask(convert_task::Arguments),
    PlanMemory(plan_memory::Arguments),
    Synth(synth::Arguments),
    List(list::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    std::panic::set_hook(Box::new(failure::report_bug));
    match dispatch(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Analyze(arguments) => analyze::run(&arguments),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Compile(arguments) => compile::run(&arguments),
        Command::Opt(arguments) => opt::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Logits(arguments) => logits::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::ConvertTask(arguments) => convert_task::run(&arguments),
        Command::PlanMemory(arguments) => plan_memory::run(&arguments),
        Command::Synth(arguments) => synth::run(&arguments),
        Command::List(arguments) => list::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn declares_a_consistent_command_line() {
        super::Arguments::command().debug_assert();
    }
}
