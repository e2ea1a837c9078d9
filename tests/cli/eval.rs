//! `nemoc eval --tasks` and `nemoc report`.

use crate::support::{nemoc, phase, refuses, stderr, stdout};
use serde_json::Value;
use std::path::Path;
use tempfile::tempdir;

const DATA: &str = "tests/harness/data";

/// The JSON of a run on phase 0 and what it warned about.
fn eval(arguments: &[&str]) -> (Value, String) {
    let arguments = [&["eval", phase(0), "--json"], arguments].concat();
    let assert = nemoc().args(arguments).assert().success();
    let output = assert.get_output();
    (serde_json::from_slice(&output.stdout).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn questions(dir: &Path, lines: &[&str]) {
    std::fs::write(dir.join("piqa.jsonl"), lines.join("\n")).unwrap();
}

const QUESTION: &str =
    r#"{"id":"good","query":"Question: What is wet?\nAnswer:","choices":["Water.","Sand."],"label":0}"#;
const EMPTY_CHOICE: &str =
    r#"{"id":"empty","query":"Question: What is dry?\nAnswer:","choices":["Sand.",""],"label":0}"#;

#[test]
fn scores_a_document_the_same_with_and_without_shared_context() {
    let common = ["--tasks", "hellaswag,winogrande", "--data", DATA, "--limit", "4", "--log-samples"];
    let samples = |extra: &[&str]| {
        let (report, _) = eval(&[&common[..], extra].concat());
        ["hellaswag", "winogrande"].map(|task| report["results"][task]["samples"].clone())
    };
    let shared = samples(&[]);
    assert_eq!(shared[0].as_array().unwrap().len(), 4);
    assert_eq!(shared, samples(&["--from-scratch"]));
    assert_eq!(shared, samples(&["--sequences", "1", "--chunk", "7"]));
}

#[test]
fn reports_lines_that_cannot_be_used_and_goes_on() {
    let dir = tempdir().unwrap();
    questions(dir.path(), &[QUESTION, "{\"id\": 7}", "", EMPTY_CHOICE, QUESTION]);
    let data = dir.path().to_str().unwrap();
    let (report, warnings) = eval(&["--tasks", "piqa", "--data", data]);
    assert_eq!(report["results"]["piqa"]["documents"], 2);
    assert_eq!(report["results"]["piqa"]["skipped"], 2);
    assert!(warnings.contains("piqa.jsonl:2") && warnings.contains("does not fit the task"), "{warnings}");
    assert!(warnings.contains("piqa.jsonl:4") && warnings.contains("choice 1 is empty"), "{warnings}");
    let strict = ["eval", phase(0), "--tasks", "piqa", "--data", data, "--strict"];
    refuses(&strict, &["does not fit the task", "piqa.jsonl:2", "help: ", "--strict"]);
}

#[test]
fn cuts_a_document_that_is_longer_than_the_context_and_says_so() {
    let dir = tempdir().unwrap();
    let long = QUESTION.replace("What is wet?", &"What is wet, and why is it so? ".repeat(20)).replace("good", "long");
    questions(dir.path(), &[QUESTION, &long]);
    let arguments = ["--tasks", "piqa", "--data", dir.path().to_str().unwrap(), "--context", "64"];
    let (report, warnings) = eval(&arguments);
    assert_eq!(report["results"]["piqa"]["documents"], 2);
    assert_eq!(report["results"]["piqa"]["truncated"], 1);
    assert!(warnings.contains("longer than the context") && warnings.contains("piqa.jsonl:2"), "{warnings}");
    refuses(&[&["eval", phase(0), "--strict"], &arguments[..]].concat(), &["longer than the context", "piqa.jsonl:2"]);
}

#[test]
fn refuses_a_missing_file_an_unknown_task_and_a_file_without_documents() {
    let dir = tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let run = |task| ["eval", phase(0), "--tasks", task, "--data", data];
    refuses(&run("piqa"), &["documents cannot be read", "piqa.jsonl", "help: ", "--data"]);
    refuses(&run("mmlu"), &["no task \"mmlu\"", "help: ", "arc_easy"]);
    questions(dir.path(), &["{}"]);
    let message = stderr(1, &run("piqa"));
    assert!(message.contains("no document that can be scored"), "{message}");
}

#[test]
fn goes_on_where_an_earlier_run_stopped() {
    let dir = tempdir().unwrap();
    let output = dir.path().join("results.json");
    let arguments = ["--tasks", "arc_easy", "--data", DATA, "--limit", "5", "--log-samples"];
    let (whole, _) = eval(&arguments);
    // A folder in the way: the results cannot be written, but the scores are kept.
    std::fs::create_dir(&output).unwrap();
    std::fs::write(output.join("x"), "").unwrap();
    let run = [&["eval", phase(0), "-o", output.to_str().unwrap()], &arguments[..]].concat();
    refuses(&run, &["cannot write", "results.json"]);
    let partial = output.with_added_extension("partial");
    // The run was killed while it wrote the last record.
    let kept = std::fs::read(&partial).unwrap();
    std::fs::write(&partial, &kept[..kept.len() - 10]).unwrap();
    std::fs::remove_dir_all(&output).unwrap();
    stdout(&run);
    let resumed: Value = serde_json::from_slice(&std::fs::read(&output).unwrap()).unwrap();
    assert_eq!(resumed["results"]["arc_easy"]["resumed"], 4);
    assert_eq!(resumed["results"]["arc_easy"]["samples"], whole["results"]["arc_easy"]["samples"]);
    assert!(!partial.exists());
}

#[test]
fn scores_kept_for_another_model_do_not_count() {
    let dir = tempdir().unwrap();
    let output = dir.path().join("r.json");
    std::fs::write(output.with_added_extension("partial"), "not a record\n{\"key\":\"a\",\"line\":1,\"scores\":[]}\n")
        .unwrap();
    let (report, _) = eval(&["--tasks", "piqa", "--data", DATA, "--limit", "1", "-o", output.to_str().unwrap()]);
    assert_eq!(report["results"]["piqa"]["resumed"], 0);
}

#[test]
fn solved_examples_come_before_a_document() {
    let run = |extra: &[&str]| {
        let (report, _) = eval(&[&["--tasks", "arc_easy", "--data", DATA, "--limit", "2"], extra].concat());
        report["results"]["arc_easy"]["tokens"].as_u64().unwrap()
    };
    assert!(run(&["--num-fewshot", "5", "--examples", DATA]) > 2 * run(&[]));
}

#[test]
fn joins_runs_into_one_page_that_needs_no_network() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (results, page, csv) = (path("r.json"), path("r.html"), path("r.csv"));
    let arguments = ["--tasks", "piqa", "--data", DATA, "--limit", "2", "--text", "CONTRIBUTING.md", "--window", "64"];
    let run = [&["eval", phase(0), phase(1), "--windows", "2", "--baseline", phase(0), "-o", &results], &arguments[..]];
    stdout(&run.concat());
    let text = stdout(&["report", &results, &results, "--html", &page, "--csv", &csv]);
    assert_eq!(text.matches("nano phase 1").count(), 2, "{text}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("Accuracy against bytes") && page.contains("Precision by layer"));
    assert!(!page.contains("http") && !page.contains("NaN") && !page.contains("<script"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    let csv = std::fs::read_to_string(csv).unwrap();
    assert!(csv.starts_with("model,phase,digest,metric,value,stderr\n") && csv.contains(",piqa.acc_norm,"));
}

#[test]
fn refuses_results_of_another_schema() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("r.json");
    std::fs::write(&path, "{\"schema\": \"nemoc-eval/9\"}").unwrap();
    refuses(&["report", path.to_str().unwrap()], &["nemoc-eval/9", "nemoc-eval/1", "r.json", "help: "]);
}

#[test]
fn asks_what_to_measure() {
    let message = stderr(2, &["eval", phase(0)]);
    assert!(message.contains("--tasks") && message.contains("--perplexity"), "{message}");
}

#[test]
fn measures_a_checkpoint_as_its_own_phase_0() {
    let dir = tempdir().unwrap();
    let text = dir.path().join("text.txt");
    std::fs::write(&text, "The river rises in the mountains and flows to the sea. ".repeat(8)).unwrap();
    let common = ["--window", "32", "--windows", "2", "--json", "--text", text.to_str().unwrap()];
    let run = |arguments: &[&str]| -> Value {
        serde_json::from_str(&stdout(&[&["eval"], arguments, &common].concat())).unwrap()
    };
    let artifact = run(&[phase(0)]);
    let checkpoint = run(&["examples/nano", "--baseline", phase(0)]);
    let nll = |report: &Value| report["models"][0]["perplexity"]["mean_nll"].as_f64().unwrap();
    assert_eq!(nll(&artifact), nll(&checkpoint));
    assert_eq!(checkpoint["models"][0]["divergence"]["mean_kl"], 0.0);
    let quantized = run(&[phase(1), "--baseline", "examples/nano"]);
    assert!(quantized["models"][0]["divergence"]["mean_kl"].as_f64().unwrap() > 0.0);
    refuses(&["eval", "examples/configs/nemotron-h-8b-base-8k", "--speed"], &["no weights", "help: "]);
}

#[test]
fn converts_a_published_benchmark_that_it_then_scores() {
    let dir = tempdir().unwrap();
    let (published, labels) = (dir.path().join("valid.jsonl"), dir.path().join("valid-labels.lst"));
    let line = r#"{"goal": "What is wet?", "sol1": "Sand.", "sol2": "Water."}"#;
    std::fs::write(&published, format!("{line}\n{line}\n")).unwrap();
    std::fs::write(&labels, "1\n1\n").unwrap();
    let data = dir.path().join("data");
    let (published, labels, data) = (published.to_str().unwrap(), labels.to_str().unwrap(), data.to_str().unwrap());
    let said = stdout(&["convert-task", "piqa", published, "--labels", labels, "-o", data]);
    assert!(said.contains("piqa.jsonl: 2 documents"), "{said}");
    let (report, _) = eval(&["--tasks", "piqa", "--data", data]);
    assert_eq!(report["results"]["piqa"]["documents"], 2);
    refuses(&["convert-task", "piqa", published, "-o", data], &["has no label", "valid.jsonl:1", "help: "]);
    refuses(&["convert-task", "boolq", published, "-o", data], &["there is no task", "help: "]);
}
