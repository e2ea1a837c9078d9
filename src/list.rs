//! `nemoc list`: what there is.

use crate::failure::Outcome;
use clap::ValueEnum;
use codegen::kernels::{KERNELS, KernelRow};
use std::fmt::Write as _;
use std::io::Write as _;

/// List passes, ops or kernels, from the tables they are declared in.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to list.
    #[arg(value_enum)]
    what: What,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// The passes, in the order of the pipeline.
    Passes,
    /// The kernels of CUDA devices: entry point, template, instance.
    Kernels,
    /// The ops of the nemo dialect.
    Ops,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let text = match arguments.what {
        What::Passes => passes(),
        What::Kernels => kernels(),
        What::Ops => ops(),
    };
    anstream::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn passes() -> String {
    let width = passes::PASSES.iter().map(|pass| pass.name.len()).max().unwrap_or(0);
    let line = |pass: &passes::PassSpec| format!("{:width$}  {}\n", pass.name, pass.summary);
    passes::PASSES.iter().map(line).collect()
}

fn kernels() -> String {
    let width = KERNELS.iter().map(|row| row.entry.name.len()).max().unwrap_or(0);
    let line = |row: &KernelRow| format!("{:width$}  {:18} {}\n", row.entry.name, row.file, row.instance);
    KERNELS.iter().map(line).collect()
}

fn ops() -> String {
    let width = ir::ops::TABLE.iter().map(|op| op.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for op in ir::ops::TABLE {
        let _ = writeln!(text, "{:width$}  {}", op.name, first_sentence(op.doc));
    }
    text
}

fn first_sentence(doc: &[&str]) -> String {
    let text = doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    match text.split_once(". ") {
        Some((sentence, _)) => format!("{sentence}."),
        None => text,
    }
}
