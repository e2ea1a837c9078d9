//! The pass manager: runs passes over a module, and alone does what is no pass's business: checking stages, verifying,
//! dumping, timing, bisecting. It returns data and calls an [`Observer`]; printing is the command line's.
//!
//! With a dump folder, `NN-PASS.mlir` holds the module after pass `NN`, `00-import.mlir` the one before the first, and
//! `nemo.irdl` the dialect, so that `mlir-opt-22 --irdl-file=DIR/nemo.irdl DIR/01-fold-norms.mlir` reads each of them.
//! `NN-PASS.choices.txt` says what a pass with choices chose and what that beat. A module that breaks the IR is dumped
//! before it is refused.

mod dump;
mod error;

pub use error::{ManagerError, Problem};

use crate::pass::{Pass, PassFailure};
use crate::stage::Stage;
use crate::verify::verify;
use crate::{error::IrError, module};
use dump::Dump;
use melior::{Context, ir::Module};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What the manager does beside running passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where to write the module after each pass; the folder is made if it is missing, files of the same names are
    /// replaced, others stay.
    pub dump_dir: Option<PathBuf>,
    /// The name of the dump of the input.
    pub input_name: String,
    /// Stop changing the module after this many passes that changed it: the last of them made the difference.
    pub bisect: Option<usize>,
    /// Run every pass again on its own result and refuse one that changes it: passes are idempotent.
    pub check_idempotence: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { dump_dir: None, input_name: "import".into(), bisect: None, check_idempotence: false }
    }
}

/// What became of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassStatus {
    /// It rewrote the module.
    Changed,
    /// It had nothing to do.
    Unchanged,
    /// Bisecting had ended before it.
    Skipped,
}

/// A pass that ran or was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassRun {
    /// Its place in the pipeline, from 1: the number of its dump.
    pub number: usize,
    /// Its name.
    pub name: &'static str,
    /// What became of it.
    pub status: PassStatus,
    /// How long the rewrite took.
    pub run_time: Duration,
    /// How long verifying the result took.
    pub verify_time: Duration,
    /// Ops of the graph before it.
    pub ops_before: usize,
    /// Ops of the graph after it.
    pub ops_after: usize,
    /// The file that holds its result.
    pub dump: Option<PathBuf>,
}

/// What a pipeline did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Every pass, in order.
    pub passes: Vec<PassRun>,
}

impl Report {
    /// The passes that changed the module.
    pub fn changed(&self) -> impl Iterator<Item = &PassRun> {
        self.passes.iter().filter(|run| run.status == PassStatus::Changed)
    }

    /// The last pass that changed the module: the culprit when bisecting has found it.
    pub fn last_changed(&self) -> Option<&PassRun> {
        self.changed().last()
    }

    /// Time of all passes and of verifying after them.
    pub fn total_time(&self) -> Duration {
        self.passes.iter().map(|run| run.run_time + run.verify_time).sum()
    }
}

/// Follows a pipeline while it runs: progress bars, `--print-after-all`.
pub trait Observer {
    /// Before pass `number` of `total`.
    fn before(&mut self, _number: usize, _total: usize, _name: &'static str) {}
    /// After a pass, with the module it left.
    fn after(&mut self, _run: &PassRun, _module: &Module<'_>) {}
}

/// Watches nothing.
impl Observer for () {}

/// Runs passes.
pub struct Manager {
    passes: Vec<Box<dyn Pass>>,
    options: Options,
}

impl Manager {
    /// A manager of these passes, in this order.
    pub fn new(passes: Vec<Box<dyn Pass>>, options: Options) -> Self {
        Self { passes, options }
    }

    /// Runs the passes over `module`.
    ///
    /// # Errors
    /// [`ManagerError`] names the pass, the problem and the dump folder.
    pub fn run<'c>(
        &self,
        context: &'c Context,
        module: Module<'c>,
        observer: &mut dyn Observer,
    ) -> Result<(Module<'c>, Report), ManagerError> {
        let mut run = Run::start(context, module, self)?;
        for (index, pass) in self.passes.iter().enumerate() {
            observer.before(index + 1, self.passes.len(), pass.name());
            let finished = run.pass(index + 1, pass.as_ref())?;
            observer.after(&finished, &run.module);
            run.report.passes.push(finished);
        }
        Ok((run.module, run.report))
    }
}

/// A pipeline under way.
struct Run<'c, 'm> {
    context: &'c Context,
    module: Module<'c>,
    options: &'m Options,
    dump: Dump,
    report: Report,
}

impl<'c, 'm> Run<'c, 'm> {
    fn start(context: &'c Context, module: Module<'c>, manager: &'m Manager) -> Result<Self, ManagerError> {
        let options = &manager.options;
        let failed = |problem| ManagerError { pass: None, problem, dump_dir: options.dump_dir.clone() };
        let dump = Dump::open(options.dump_dir.as_deref()).map_err(failed)?;
        dump.write(0, &options.input_name, &module).map_err(failed)?;
        verify(context, &module).map_err(|error| failed(Problem::Input(error)))?;
        Ok(Self { context, module, options, dump, report: Report::default() })
    }

    /// Runs one pass and puts its result in place of the module.
    fn pass(&mut self, number: usize, pass: &dyn Pass) -> Result<PassRun, ManagerError> {
        let name = pass.name();
        let dump_dir = self.options.dump_dir.clone();
        self.try_pass(number, pass).map_err(|problem| ManagerError { pass: Some(name), problem, dump_dir })
    }

    fn try_pass(&mut self, number: usize, pass: &dyn Pass) -> Result<PassRun, Problem> {
        let ops_before = module::ops(&self.module).map_or(0, |ops| ops.len());
        let mut run = PassRun {
            number,
            name: pass.name(),
            status: PassStatus::Skipped,
            run_time: Duration::ZERO,
            verify_time: Duration::ZERO,
            ops_before,
            ops_after: ops_before,
            dump: None,
        };
        if self.options.bisect.is_some_and(|limit| self.report.changed().count() >= limit) {
            return Ok(run);
        }
        let started = Instant::now();
        let rewritten = rewrite(self.context, pass, &self.module)?;
        run.run_time = started.elapsed();
        self.dump.write_choices(number, pass.name(), pass.choices())?;
        run.status = PassStatus::Unchanged;
        if let Some(new) = rewritten {
            run.dump = self.dump.write(number, pass.name(), &new)?;
            let started = Instant::now();
            verify(self.context, &new).map_err(Problem::Broken)?;
            run.verify_time = started.elapsed();
            run.status = PassStatus::Changed;
            run.ops_after = module::ops(&new).map_or(0, |ops| ops.len());
            self.module = new;
            if self.options.check_idempotence {
                self.check_idempotence(pass)?;
            }
        } else {
            run.dump = self.dump.write(number, pass.name(), &self.module)?;
        }
        Ok(run)
    }

    /// Refuses a pass that changes its own result. One whose result its own stage rule excludes cannot run again.
    fn check_idempotence(&self, pass: &dyn Pass) -> Result<(), Problem> {
        let stage = Stage::of(&self.module);
        if !stage.is_some_and(|stage| pass.requires().contains(&stage)) {
            return Ok(());
        }
        match rewrite(self.context, pass, &self.module)? {
            Some(again) if module::print(&again) != module::print(&self.module) => Err(Problem::NotIdempotent),
            _ => Ok(()),
        }
    }
}

/// Runs a pass on a module of a stage it accepts; a panic in it becomes an error that names it.
fn rewrite<'c>(context: &'c Context, pass: &dyn Pass, module: &Module<'c>) -> Result<Option<Module<'c>>, Problem> {
    let found = Stage::of(module);
    let accepts = pass.requires();
    match found {
        Some(found) if !accepts.contains(&found) => return Err(Problem::WrongStage { found, accepts }),
        _ => {}
    }
    match catch_unwind(AssertUnwindSafe(|| pass.run(context, module))) {
        Ok(Ok(rewritten)) => Ok(rewritten),
        Ok(Err(PassFailure::User(error))) => Err(Problem::Refused(error)),
        Ok(Err(PassFailure::Ir(error))) => Err(Problem::Failed(error)),
        Err(payload) => Err(Problem::Panicked(panic_message(payload.as_ref()))),
    }
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

impl From<IrError> for Problem {
    fn from(error: IrError) -> Self {
        Problem::Failed(error)
    }
}
