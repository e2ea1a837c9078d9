//! `nemoc convert-task`: benchmark files as they are published, made into what `nemoc eval --data` reads.

use crate::failure::{Failure, Outcome};
use runtime::eval::{Task, convert};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Convert the published file of a benchmark into the one that `nemoc eval --data` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// arc_easy, arc_challenge, hellaswag, piqa, winogrande or lambada_openai.
    task: String,
    /// JSON Lines as published: ARC-Easy-Test.jsonl, hellaswag_val.jsonl, valid.jsonl (PIQA), dev.jsonl (WinoGrande),
    /// lambada_test_en.jsonl; or the rows of the Hugging Face data set as JSON Lines.
    #[arg(value_name = "PUBLISHED.jsonl")]
    published: PathBuf,
    /// The labels, one a line, where they are published apart (valid-labels.lst of PIQA).
    #[arg(long, value_name = "LABELS.lst")]
    labels: Option<PathBuf>,
    /// The folder for `nemoc eval --data`.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let task = Task::named(&arguments.task)?;
    let published = read(&arguments.published)?;
    let labels = arguments.labels.as_deref().map(read).transpose()?;
    let converted = convert(task.name, &published, labels.as_deref()).map_err(|problem| {
        let help = "help: give the file as it is published; `nemoc convert-task --help` names it";
        Failure::at(format_args!("{}:{}", arguments.published.display(), problem.line), format!("{problem}\n{help}"))
    })?;
    let path = arguments.output.join(task.file).with_extension("jsonl");
    std::fs::create_dir_all(&arguments.output).and_then(|()| std::fs::write(&path, &converted)).map_err(|error| {
        Failure::at(path.display(), format!("cannot write: {error}\nhelp: choose another folder with -o"))
    })?;
    writeln!(anstream::stdout(), "{}: {} documents", path.display(), converted.lines().count())?;
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::at(path.display(), format!("cannot read: {error}\nhelp: give a UTF-8 text file")))
}
