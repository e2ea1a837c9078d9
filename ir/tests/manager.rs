//! What the pass manager does around passes.

use ir::manager::{Manager, ManagerError, Observer, Options, PassRun, PassStatus, Problem, Report};
use ir::melior::{Context, ir::Module};
use ir::module::{get_string, parse, print, set_string};
use ir::pass::{Pass, PassError, PassFailure};
use ir::stage::Stage;
use std::ops::RangeInclusive;

const GRAPH: &str = r#"
!act = !nemo.act<32 : i64, f32, "none", "plain">
!matrix = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
func.func @forward(%tokens: !nemo.tokens) -> !act {
  %w = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix
  %x = "nemo.embed"(%tokens, %w) {name = "embeddings"} : (!nemo.tokens, !matrix) -> !act
  return %x : !act
}
"#;

/// A copy of a module.
fn copy<'c>(context: &'c Context, module: &Module<'_>) -> Module<'c> {
    parse(context, &print(module)).unwrap()
}

/// Sets a note of the module to its own name, once.
struct Note(&'static str);

impl Pass for Note {
    fn name(&self) -> &'static str {
        self.0
    }
    fn requires(&self) -> RangeInclusive<Stage> {
        Stage::Imported..=Stage::Annotated
    }
    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        let note = format!("nemo.{}", self.0);
        if get_string(module, &note).is_some() {
            return Ok(None);
        }
        let mut new = copy(context, module);
        set_string(context, &mut new, &note, "seen");
        Ok(Some(new))
    }
}

/// What [`Fault`] does wrong.
#[derive(Clone, Copy)]
enum Wrong {
    Refuses,
    Panics,
    BreaksTheIr,
    NeverEnds,
    NeedsALaterStage,
}

/// A pass with a fault.
struct Fault(Wrong);

impl Pass for Fault {
    fn name(&self) -> &'static str {
        "faulty"
    }
    fn requires(&self) -> RangeInclusive<Stage> {
        if let Wrong::NeedsALaterStage = self.0 {
            Stage::Quantized..=Stage::Quantized
        } else {
            Stage::Imported..=Stage::Planned
        }
    }
    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        match self.0 {
            Wrong::Refuses => Err(PassError {
                pass: "faulty",
                message: "norms are not folded".into(),
                help: Some("run fold-norms first".into()),
            }
            .into()),
            Wrong::Panics => panic!("index out of bounds"),
            Wrong::BreaksTheIr => {
                let mut new = copy(context, module);
                set_string(context, &mut new, "nemo.stage", "halfway");
                Ok(Some(new))
            }
            _ => {
                let mut new = copy(context, module);
                let longer = get_string(module, "nemo.count").unwrap_or_default() + "I";
                set_string(context, &mut new, "nemo.count", &longer);
                Ok(Some(new))
            }
        }
    }
}

fn notes(names: &[&'static str]) -> Vec<Box<dyn Pass>> {
    names.iter().map(|name| Box::new(Note(name)) as Box<dyn Pass>).collect()
}

/// Runs passes over the graph; the text of the result and the report.
fn run(passes: Vec<Box<dyn Pass>>, options: Options) -> Result<(String, Report), ManagerError> {
    let context = ir::irdl::context();
    let module = parse(&context, GRAPH).unwrap();
    let (module, report) = Manager::new(passes, options).run(&context, module, &mut ())?;
    Ok((print(&module), report))
}

fn run_fault(fault: Wrong, options: Options) -> ManagerError {
    run(vec![Box::new(Note("first")), Box::new(Fault(fault))], options).unwrap_err()
}

fn statuses(report: &Report) -> Vec<(&str, PassStatus)> {
    report.passes.iter().map(|run| (run.name, run.status)).collect()
}

#[test]
fn runs_passes_in_order_and_reports_what_they_did() {
    let (text, report) = run(notes(&["fold", "fold", "fuse"]), Options::default()).unwrap();
    assert!(text.contains("nemo.fold") && text.contains("nemo.fuse"));
    assert_eq!(
        statuses(&report),
        [("fold", PassStatus::Changed), ("fold", PassStatus::Unchanged), ("fuse", PassStatus::Changed)]
    );
    assert_eq!(report.last_changed().map(|run| (run.number, run.name)), Some((3, "fuse")));
    assert!(report.passes.iter().all(|run| run.ops_before == 2 && run.ops_after == 2 && run.dump.is_none()));
}

#[test]
fn dumps_the_input_and_every_pass_that_ran() {
    let dir = tempfile::tempdir().unwrap();
    let dump_dir = dir.path().join("deep/er");
    let options = Options { dump_dir: Some(dump_dir.clone()), ..Options::default() };
    let (text, report) = run(notes(&["fold", "fold", "fuse"]), options).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(&dump_dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["00-import.mlir", "01-fold.mlir", "02-fold.mlir", "03-fuse.mlir", "nemo.irdl"]);
    assert_eq!(std::fs::read_to_string(dump_dir.join("03-fuse.mlir")).unwrap(), text);
    assert_eq!(report.passes[0].dump.as_deref(), Some(dump_dir.join("01-fold.mlir").as_path()));
}

#[test]
fn stops_changing_the_module_when_bisecting() {
    let options = Options { bisect: Some(1), ..Options::default() };
    let (text, report) = run(notes(&["fold", "fold", "fuse"]), options).unwrap();
    assert!(text.contains("nemo.fold") && !text.contains("nemo.fuse"));
    assert_eq!(
        statuses(&report),
        [("fold", PassStatus::Changed), ("fold", PassStatus::Skipped), ("fuse", PassStatus::Skipped)]
    );
    assert_eq!(report.last_changed().map(|run| run.name), Some("fold"));
}

#[test]
fn changes_nothing_when_bisecting_at_zero() {
    let options = Options { bisect: Some(0), ..Options::default() };
    let (_, report) = run(notes(&["fold"]), options).unwrap();
    assert_eq!(report.last_changed(), None);
}

#[test]
fn names_the_pass_and_its_help_when_a_pass_refuses() {
    let error = run_fault(Wrong::Refuses, Options::default());
    assert_eq!(error.to_string(), "faulty: norms are not folded");
    assert_eq!(error.help().as_deref(), Some("run fold-norms first"));
}

#[test]
fn names_a_pass_that_panics_and_the_dump_folder() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { dump_dir: Some(dir.path().to_owned()), ..Options::default() };
    let error = run_fault(Wrong::Panics, options);
    assert_eq!(error.to_string(), "faulty: bug: the pass panicked: index out of bounds");
    assert!(error.help().unwrap().contains(&dir.path().display().to_string()));
    assert!(dir.path().join("01-first.mlir").exists());
}

#[test]
fn names_a_pass_that_breaks_the_ir_and_keeps_its_module() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { dump_dir: Some(dir.path().to_owned()), ..Options::default() };
    let error = run_fault(Wrong::BreaksTheIr, options);
    assert_eq!(error.pass, Some("faulty"));
    assert!(matches!(&error.problem, Problem::Broken(error) if error.violations().len() == 1), "{error}");
    let broken = std::fs::read_to_string(dir.path().join("02-faulty.mlir")).unwrap();
    assert!(broken.contains("halfway"));
}

#[test]
fn names_a_pass_that_changes_its_own_result() {
    let options = Options { check_idempotence: true, ..Options::default() };
    let error = run_fault(Wrong::NeverEnds, options.clone());
    assert!(matches!(error.problem, Problem::NotIdempotent), "{error}");
    run(notes(&["fold"]), options).unwrap();
}

#[test]
fn refuses_a_pass_at_the_wrong_stage() {
    let error = run_fault(Wrong::NeedsALaterStage, Options::default());
    assert_eq!(error.to_string(), "faulty: the module is at stage `imported`, the pass accepts `quantized`");
    assert_eq!(error.help().as_deref(), Some("run the passes that lead to stage `quantized` first"));
}

#[test]
fn refuses_an_input_that_is_no_legal_ir() {
    let context = ir::irdl::context();
    let mut module = parse(&context, GRAPH).unwrap();
    set_string(&context, &mut module, "nemo.stage", "halfway");
    let error = Manager::new(notes(&["fold"]), Options::default()).run(&context, module, &mut ()).unwrap_err();
    assert_eq!(error.pass, None);
    assert!(matches!(error.problem, Problem::Input(_)), "{error}");
}

#[test]
fn says_which_dump_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = run(notes(&["fold"]), Options { dump_dir: Some(file.clone()), ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

#[test]
fn tells_an_observer_about_every_pass() {
    #[derive(Default)]
    struct Log(Vec<String>);
    impl Observer for Log {
        fn before(&mut self, number: usize, total: usize, name: &'static str) {
            self.0.push(format!("{number}/{total} {name}"));
        }
        fn after(&mut self, run: &PassRun, module: &Module<'_>) {
            let noted = get_string(module, &format!("nemo.{}", run.name)).is_some();
            self.0.push(format!("{} noted: {noted}", run.name));
        }
    }
    let context = ir::irdl::context();
    let module = parse(&context, GRAPH).unwrap();
    let mut log = Log::default();
    Manager::new(notes(&["fold", "fuse"]), Options::default()).run(&context, module, &mut log).unwrap();
    assert_eq!(log.0, ["1/2 fold", "fold noted: true", "2/2 fuse", "fuse noted: true"]);
}
