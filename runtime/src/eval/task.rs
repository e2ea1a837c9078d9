use super::EvalError;

/// What a line of a task's file holds and what is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `query`, `choices`, `label`: each choice after the query.
    Choices,
    /// `contexts`, `continuation`, `label`: one continuation after each context (partial evaluation).
    Contexts,
    /// `context`, `continuation`: is the continuation the likeliest text?
    LastWord,
}

/// A benchmark of the harness, zero-shot unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its name in the harness.
    pub name: &'static str,
    /// Its file in the data folder, without `.jsonl`.
    pub file: &'static str,
    /// How its lines are read.
    pub form: Form,
    /// Whether the harness reports accuracy normalized by the length of the choices.
    pub normalized: bool,
}

/// All tasks.
pub const TASKS: &[Task] = &[
    Task { name: "arc_easy", file: "arc_easy", form: Form::Choices, normalized: true },
    Task { name: "arc_challenge", file: "arc_challenge", form: Form::Choices, normalized: true },
    Task { name: "hellaswag", file: "hellaswag", form: Form::Choices, normalized: true },
    Task { name: "piqa", file: "piqa", form: Form::Choices, normalized: true },
    Task { name: "winogrande", file: "winogrande", form: Form::Contexts, normalized: false },
    Task { name: "lambada_openai", file: "lambada", form: Form::LastWord, normalized: false },
];

impl Task {
    /// The task of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<&'static Task, EvalError> {
        TASKS.iter().find(|task| task.name == name).ok_or_else(|| EvalError::UnknownTask {
            name: name.to_owned(),
            known: TASKS.iter().map(|task| task.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The one number that stands for the task in an average: normalized accuracy where there is one.
    pub fn main_metric(&self) -> &'static str {
        if self.normalized { "acc_norm" } else { "acc" }
    }
}
