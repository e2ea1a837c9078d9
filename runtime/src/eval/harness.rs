//! Benchmarks scored exactly as lm-evaluation-harness scores them.

use super::document::{self, Document};
use super::examples::{self, Fewshot};
use super::loglikelihood::{Score, Scoring, log_likelihoods};
use super::metrics::{Metrics, Sample};
use super::partial::Partial;
use super::request::{Request, encode_pair};
use super::task::Task;
use super::{EvalError, Problem};
use crate::device::Device;
use crate::generate::Tokenizer;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Which documents, and how they are read.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Score the first documents of a file only.
    pub limit: Option<usize>,
    /// Longest context the model is used with; a longer document loses its beginning, as in the harness.
    pub max_length: Option<usize>,
    /// Refuse a document with a problem, instead of reporting it and going on.
    pub strict: bool,
    /// Solved examples before each document.
    pub fewshot: Fewshot,
    /// Folder with a file of examples for each task.
    pub examples_dir: Option<PathBuf>,
}

/// A task, read and tokenized.
#[derive(Debug)]
pub struct Prepared {
    /// The task.
    pub task: &'static Task,
    /// What was wrong with its documents.
    pub problems: Vec<Problem>,
    documents: Vec<Document>,
    requests: Vec<Vec<Request>>,
    digest: u64,
}

/// A task, scored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskResult {
    /// Name of the task.
    #[serde(skip)]
    pub task: String,
    /// Documents scored.
    pub documents: usize,
    /// Documents left out because their lines could not be used.
    pub skipped: usize,
    /// Documents that lost their beginning because they are longer than the context.
    pub truncated: usize,
    /// Documents whose scores an interrupted run had left.
    pub resumed: usize,
    /// Tokens the model read in this run.
    pub tokens: usize,
    /// Time this run took.
    pub seconds: f64,
    /// The numbers.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// One entry a document, in the order of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Vec<Sample>>,
}

/// Reads the file of a task from the folder `data` and tokenizes it.
///
/// # Errors
/// When the file cannot be read or holds nothing to score; in a strict run, at the first problem.
pub fn prepare(
    task: &'static Task,
    data: &Path,
    tokenizer: &Tokenizer,
    how: &Preparation,
) -> Result<Prepared, EvalError> {
    let path = data.join(task.file).with_extension("jsonl");
    let bytes = read(&path)?;
    let (mut documents, mut problems) = document::read(task.form, &bytes, how.limit);
    let mut digest = xxh3_64(&bytes);
    if how.fewshot.count > 0 {
        let path = how.examples_dir.as_deref().unwrap_or(data).join(task.file).with_extension("jsonl");
        let bytes = read(&path)?;
        examples::put_before(&mut documents, task, &path, &bytes, &how.fewshot)?;
        digest ^= xxh3_64_with_seed(&bytes, how.fewshot.seed ^ (how.fewshot.count as u64).rotate_right(16));
    }
    let encoded: Result<Vec<_>, EvalError> =
        documents.par_iter().map(|document| encode(tokenizer, document, how.max_length)).collect();
    let mut requests = Vec::new();
    let mut kept = Vec::new();
    for (document, (encoded, problem)) in documents.into_iter().zip(encoded?) {
        problems.extend(problem);
        if let Some(encoded) = encoded {
            kept.push(document);
            requests.push(encoded);
        }
    }
    problems.sort_by_key(|problem| problem.line);
    if let (true, Some(problem)) = (how.strict, problems.first()) {
        return Err(EvalError::Document { path, problem: problem.clone() });
    }
    if kept.is_empty() {
        return Err(EvalError::NoDocuments { path });
    }
    Ok(Prepared { task, problems, documents: kept, requests, digest })
}

fn read(path: &Path) -> Result<Vec<u8>, EvalError> {
    let help = "--data DIR names the folder with one TASK.jsonl for each task";
    std::fs::read(path).map_err(|source| EvalError::file("the documents cannot be read", path, source, help))
}

type Encoded = (Option<Vec<Request>>, Option<Problem>);

fn encode(tokenizer: &Tokenizer, document: &Document, max_length: Option<usize>) -> Result<Encoded, EvalError> {
    let mut requests = Vec::new();
    let mut cut = 0;
    for (index, pair) in document.pairs.iter().enumerate() {
        let skipped = |message| Problem { line: document.line, message, skipped: true };
        let Some(mut request) = encode_pair(tokenizer, pair)? else {
            let message = format!("choice {index} has no tokens of its own after its context");
            return Ok((None, Some(skipped(message))));
        };
        if let Some(max_length) = max_length {
            if request.continuation().len() > max_length {
                let message = format!(
                    "choice {index} has {} tokens, the context length is {max_length}",
                    request.continuation().len()
                );
                return Ok((None, Some(skipped(message))));
            }
            cut = cut.max(request.truncate(max_length));
        }
        requests.push(request);
    }
    let problem = (cut > 0).then(|| Problem {
        line: document.line,
        message: format!("the document is longer than the context; {cut} tokens were cut off at its beginning"),
        skipped: false,
    });
    Ok((Some(requests), problem))
}

impl Prepared {
    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Token rows to compute.
    pub fn rows(&self, scoring: &Scoring) -> usize {
        self.requests.iter().map(|requests| scoring.rows(requests)).sum()
    }

    /// What makes scores comparable: the model, the data, and the length documents were cut to.
    fn key(&self, model: &str) -> String {
        let cut: Vec<usize> = self.requests.iter().flatten().map(|request| request.tokens.len()).collect();
        let lengths = xxh3_64(bytemuck::cast_slice(&cut));
        format!("{}/{model}/{:016x}/{lengths:016x}", self.task.name, self.digest)
    }

    /// Scores all documents. `model` says which model this is, for telling apart what `partial` keeps; `progress` is
    /// told how many token rows are done.
    ///
    /// # Errors
    /// Those of the device and of writing partial results.
    pub fn evaluate(
        &self,
        device: &mut dyn Device,
        scoring: &Scoring,
        model: &str,
        mut partial: Option<&mut Partial>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<TaskResult, EvalError> {
        let key = self.key(model);
        let started = Instant::now();
        let known = |document: &Document| Some(partial.as_deref()?.find(&key, document.line)?.to_vec());
        let mut scores: Vec<Option<Vec<Score>>> = self.documents.iter().map(known).collect();
        let open: Vec<usize> = (0..scores.len()).filter(|index| scores[*index].is_none()).collect();
        let requests: Vec<&[Request]> = open.iter().map(|index| self.requests[*index].as_slice()).collect();
        let tokens: usize = requests.iter().map(|requests| scoring.rows(requests)).sum();
        let mut done = self.rows(scoring) - tokens;
        progress(done);
        log_likelihoods(device, &requests, scoring, &mut |index, document| {
            done += scoring.rows(requests[index]);
            progress(done);
            let index = open[index];
            if let Some(partial) = partial.as_deref_mut() {
                partial.add(&key, self.documents[index].line, &document)?;
            }
            scores[index] = Some(document);
            Ok(())
        })?;
        let scores: Vec<Vec<Score>> = scores.into_iter().flatten().collect();
        Ok(self.result(&scores, open.len(), tokens, started.elapsed()))
    }

    fn result(&self, scores: &[Vec<Score>], computed: usize, tokens: usize, elapsed: Duration) -> TaskResult {
        let samples = self.documents.iter().zip(scores);
        let samples: Vec<Sample> = samples.map(|(document, scores)| Sample::new(self.task, document, scores)).collect();
        TaskResult {
            task: self.task.name.to_owned(),
            documents: samples.len(),
            skipped: self.problems.iter().filter(|problem| problem.skipped).count(),
            truncated: self.problems.iter().filter(|problem| !problem.skipped).count(),
            resumed: samples.len() - computed,
            tokens,
            seconds: elapsed.as_secs_f64(),
            metrics: Metrics::new(self.task, &samples),
            samples: Some(samples),
        }
    }
}
