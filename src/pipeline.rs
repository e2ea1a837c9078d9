//! Running passes: what `compile` and `opt` share.

use crate::failure::{Failure, quiet_panics};
use crate::table::{elapsed, table};
use codegen::plan::{Compiled, plan_of};
use frontend::Checkpoint;
use ir::manager::{Manager, ManagerError, Observer, Options, PassRun, PassStatus, Report};
use ir::melior::{Context, ir::Module};
use ir::pass::Pass;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Looking at the IR between passes.
#[derive(clap::Args, Default)]
#[command(next_help_heading = "Looking inside")]
pub struct PipelineArguments {
    /// Write the module before the first and after each pass, as numbered files.
    #[arg(long, value_name = "DIR")]
    pub dump_ir: Option<PathBuf>,
    /// Print the module after each pass that changed it, to stderr.
    #[arg(long)]
    print_after_all: bool,
    /// Print how long each pass took, to stderr.
    #[arg(long)]
    time_passes: bool,
    /// Skip the passes after the N-th that changed the module, to find the one at fault.
    #[arg(long, value_name = "N")]
    bisect: Option<usize>,
    /// Run every pass again on its own result and refuse one that changes it.
    #[arg(long)]
    check_idempotence: bool,
}

impl PipelineArguments {
    /// Runs passes; `input_name` names the dump of the module they start from.
    pub fn run<'c>(
        &self,
        context: &'c Context,
        module: Module<'c>,
        passes: Vec<Box<dyn Pass>>,
        input_name: &str,
    ) -> Result<(Module<'c>, Report), Failure> {
        let options = Options {
            dump_dir: self.dump_ir.clone(),
            input_name: input_name.to_owned(),
            bisect: self.bisect,
            check_idempotence: self.check_idempotence,
        };
        let mut observer = Printer { enabled: self.print_after_all };
        let manager = Manager::new(passes, options);
        let (module, report) =
            quiet_panics(|| manager.run(context, module, &mut observer)).map_err(|error| failure(&error))?;
        if self.time_passes {
            anstream::stderr().write_all(timings(&report).as_bytes())?;
        }
        if self.bisect.is_some() {
            anstream::stderr().write_all(bisected(&report).as_bytes())?;
        }
        Ok((module, report))
    }

    /// Whether the module may be short of the last pass.
    pub fn stops_early(&self) -> bool {
        self.bisect.is_some()
    }
}

/// The plan of a checkpoint after some passes, for commands that do not look inside.
pub fn compiled(checkpoint: &Checkpoint, passes: Vec<Box<dyn Pass>>) -> Result<(Compiled, Report), Failure> {
    let context = ir::irdl::context();
    let module = frontend::import::import(&context, checkpoint)?;
    let manager = Manager::new(passes, Options::default());
    let (module, report) = quiet_panics(|| manager.run(&context, module, &mut ())).map_err(|error| failure(&error))?;
    Ok((plan_of(&module)?, report))
}

fn failure(error: &ManagerError) -> Failure {
    let help = error.help().map_or_else(String::new, |help| format!("\nhelp: {help}"));
    Failure::Message(format!("{error}{help}"))
}

struct Printer {
    enabled: bool,
}

impl Observer for Printer {
    fn after(&mut self, run: &PassRun, module: &Module<'_>) {
        if self.enabled && run.status == PassStatus::Changed {
            // A stderr that cannot be written is no reason to stop compiling.
            let _ = writeln!(anstream::stderr(), "// ----- after {} -----\n{}", run.name, ir::module::print(module));
        }
    }
}

fn timings(report: &Report) -> String {
    let mut drawn = table(&["pass", "result", "ops>", "run>", "verify>"]);
    for run in &report.passes {
        let result = match run.status {
            PassStatus::Changed => "changed",
            PassStatus::Unchanged => "nothing to do",
            PassStatus::Skipped => "skipped",
        };
        let ops = format!("{} -> {}", run.ops_before, run.ops_after);
        drawn.add_row([run.name.into(), result.into(), ops, elapsed(run.run_time), elapsed(run.verify_time)]);
    }
    let sum = |of: fn(&PassRun) -> Duration| elapsed(report.passes.iter().map(of).sum());
    drawn.add_row(["total".into(), String::new(), String::new(), sum(|run| run.run_time), sum(|run| run.verify_time)]);
    format!("{drawn}\n")
}

fn bisected(report: &Report) -> String {
    match report.last_changed() {
        Some(last) => format!("stopped after {} change(s), the last is of {}\n", report.changed().count(), last.name),
        None => "no pass has changed the module\n".to_owned(),
    }
}
