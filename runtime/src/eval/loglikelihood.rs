//! Log-likelihoods of continuations, many documents together, what requests share computed once.
//!
//! The requests of a document mostly begin alike. What they share is read once; its states are forked, and each fork
//! reads the rest of one request. Results do not depend on how documents are put together, because a device's do not.

use super::EvalError;
use super::request::Request;
use crate::device::{Device, DeviceError, Outputs, SequenceChunk, SlotId};
use rayon::prelude::*;

/// What the harness calls the result of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Sum over the tokens of the continuation, in nats.
    pub log_likelihood: f64,
    /// Whether every token of the continuation is the likeliest one.
    pub greedy: bool,
}

/// How requests are computed.
#[derive(Clone, Copy, Debug)]
pub struct Scoring {
    /// Most sequences in flight: more take more memory, fewer leave the device idle.
    pub sequences: usize,
    /// Read what the requests of a document share only once.
    pub share_context: bool,
}

impl Default for Scoring {
    fn default() -> Scoring {
        Scoring { sequences: 32, share_context: true }
    }
}

impl Scoring {
    /// Token rows that the model reads for the requests of one document.
    pub fn rows(&self, requests: &[Request]) -> usize {
        let inputs: usize = requests.iter().map(|request| request.input().len()).sum();
        inputs - self.shared(requests) * requests.len().saturating_sub(1)
    }

    fn shared(&self, requests: &[Request]) -> usize {
        match requests {
            [first, rest @ ..] if self.share_context => {
                let common =
                    |shared: usize, request: &Request| common_prefix(&first.input()[..shared], request.input());
                rest.iter().fold(first.input().len(), common)
            }
            _ => 0,
        }
    }

    /// Sequences in flight that the requests of one document need.
    fn slots(&self, requests: &[Request]) -> usize {
        let shared = self.shared(requests);
        requests.iter().filter(|request| request.input().len() > shared).count().max(1)
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Scores documents, the longest first. `done` is told the index of each and the scores of its requests.
///
/// # Errors
/// Those of the device and of `done`.
pub fn log_likelihoods(
    device: &mut dyn Device,
    documents: &[&[Request]],
    scoring: &Scoring,
    done: &mut dyn FnMut(usize, Vec<Score>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(scoring.rows(documents[*index])));
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let wave;
        (wave, rest) = rest.split_at(wave_len(rest, documents, scoring));
        let requests: Vec<&[Request]> = wave.iter().map(|index| documents[*index]).collect();
        let scores = score_wave(device, &requests, scoring)?;
        for (index, scores) in wave.iter().zip(scores) {
            done(*index, scores)?;
        }
    }
    Ok(())
}

/// How many of the next documents fit together.
fn wave_len(order: &[usize], documents: &[&[Request]], scoring: &Scoring) -> usize {
    let mut slots = 0;
    let fits = |index: &&usize| {
        slots += scoring.slots(documents[**index]);
        slots <= scoring.sequences
    };
    order.iter().take_while(fits).count().max(1)
}

/// Tokens for one slot.
struct Job<'a> {
    slot: SlotId,
    tokens: &'a [u32],
    /// Ascending by row.
    wants: Vec<Want>,
}

/// A token whose probability after a row is asked for.
#[derive(Clone, Copy)]
struct Want {
    /// Within the job's tokens.
    row: usize,
    target: u32,
    /// Document and request of the wave.
    of: (usize, usize),
}

/// The targets of a request whose rows lie in `rows` of its input.
fn wants(request: &Request, rows: std::ops::Range<usize>, of: (usize, usize)) -> impl Iterator<Item = Want> {
    let first = rows.start.max(request.split - 1);
    (first..rows.end).map(move |row| Want { row: row - rows.start, target: request.tokens[row + 1], of })
}

fn score_wave(
    device: &mut dyn Device,
    documents: &[&[Request]],
    scoring: &Scoring,
) -> Result<Vec<Vec<Score>>, EvalError> {
    let nothing = Score { log_likelihood: 0.0, greedy: true };
    let mut scores: Vec<Vec<Score>> = documents.iter().map(|requests| vec![nothing; requests.len()]).collect();
    let mut slots = Vec::new();
    let result = read_shared(device, documents, scoring, &mut slots, &mut scores)
        .and_then(|rests| run(device, &rests, &mut scores));
    for slot in slots {
        device.release_slot(slot)?;
    }
    result?;
    Ok(scores)
}

/// Reads what requests share; returns what is left to read.
fn read_shared<'a>(
    device: &mut dyn Device,
    documents: &[&'a [Request]],
    scoring: &Scoring,
    slots: &mut Vec<SlotId>,
    scores: &mut [Vec<Score>],
) -> Result<Vec<Job<'a>>, DeviceError> {
    let mut jobs = Vec::new();
    for (document, requests) in documents.iter().enumerate() {
        let shared = scoring.shared(requests);
        let slot = device.create_slot()?;
        slots.push(slot);
        let mut wanted: Vec<Want> =
            requests.iter().enumerate().flat_map(|(i, request)| wants(request, 0..shared, (document, i))).collect();
        wanted.sort_by_key(|want| want.row);
        if let Some(first) = requests.first() {
            jobs.push(Job { slot, tokens: &first.input()[..shared], wants: wanted });
        }
    }
    run(device, &jobs, scores)?;
    let mut rests = Vec::new();
    for (document, (requests, job)) in documents.iter().zip(&jobs).enumerate() {
        let shared = job.tokens.len();
        let mut open: Vec<usize> = (0..requests.len()).filter(|i| requests[*i].input().len() > shared).collect();
        // The last one may have the slot itself.
        let last = open.pop();
        for i in open {
            let slot = device.fork_slot(job.slot)?;
            slots.push(slot);
            rests.push(rest(&requests[i], shared, slot, (document, i)));
        }
        rests.extend(last.map(|i| rest(&requests[i], shared, job.slot, (document, i))));
    }
    Ok(rests)
}

fn rest(request: &Request, shared: usize, slot: SlotId, of: (usize, usize)) -> Job<'_> {
    let input = request.input();
    Job { slot, tokens: &input[shared..], wants: wants(request, shared..input.len(), of).collect() }
}

/// The tokens of a job that one step takes.
struct Part<'a> {
    slot: SlotId,
    tokens: &'a [u32],
    /// Rows of `tokens` whose logits are wanted.
    rows: Vec<u32>,
    /// For each row, who wants it.
    wants: Vec<&'a [Want]>,
}

fn part<'a>(job: &'a Job<'_>, range: std::ops::Range<usize>) -> Part<'a> {
    let start = job.wants.partition_point(|want| want.row < range.start);
    let end = job.wants.partition_point(|want| want.row < range.end);
    let wants: Vec<&[Want]> = job.wants[start..end].chunk_by(|a, b| a.row == b.row).collect();
    let rows = wants.iter().map(|wants| (wants[0].row - range.start) as u32).collect();
    Part { slot: job.slot, tokens: &job.tokens[range], rows, wants }
}

/// Feeds all jobs, as many tokens a step as the device takes.
fn run(device: &mut dyn Device, jobs: &[Job<'_>], scores: &mut [Vec<Score>]) -> Result<(), DeviceError> {
    let step_rows = device.limits().step_rows.max(1);
    let mut parts = Vec::new();
    let mut room = step_rows;
    for job in jobs {
        let mut at = 0;
        while at < job.tokens.len() {
            let end = job.tokens.len().min(at + room);
            parts.push(part(job, at..end));
            room -= end - at;
            at = end;
            if room == 0 {
                step(device, &std::mem::take(&mut parts), scores)?;
                room = step_rows;
            }
        }
    }
    if parts.is_empty() { Ok(()) } else { step(device, &parts, scores) }
}

fn step(device: &mut dyn Device, parts: &[Part<'_>], scores: &mut [Vec<Score>]) -> Result<(), DeviceError> {
    let chunk = |part| {
        let Part { slot, tokens, rows, .. }: &Part<'_> = part;
        let outputs = if rows.is_empty() { Outputs::None } else { Outputs::Rows(rows) };
        SequenceChunk { slot: *slot, tokens, outputs }
    };
    let logits = device.step(&parts.iter().map(chunk).collect::<Vec<_>>())?;
    let wants: Vec<&[Want]> = parts.iter().flat_map(|part| part.wants.iter().copied()).collect();
    let rows: Vec<(f64, usize)> = (0..wants.len()).into_par_iter().map(|row| normalizer(logits.row(row))).collect();
    for (row, (wants, (log_sum, likeliest))) in wants.iter().zip(rows).enumerate() {
        for want in *wants {
            let score = &mut scores[want.of.0][want.of.1];
            score.log_likelihood += f64::from(logits.row(row)[want.target as usize]) - log_sum;
            score.greedy &= want.target as usize == likeliest;
        }
    }
    Ok(())
}

/// `ln sum exp(logits)` and the first of the largest.
fn normalizer(logits: &[f32]) -> (f64, usize) {
    let largest = logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (index, logit)| if *logit > best.1 { (index, *logit) } else { best });
    let max = f64::from(largest.1);
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - max).exp()).sum();
    (max + sum.ln(), largest.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::device::Limits;
    use crate::plan::{DType, WeightFormat};
    use crate::synthetic::{self, Layout, Shape};

    fn request(tokens: &[u32], split: usize) -> Request {
        Request { tokens: tokens.to_vec(), split }
    }

    /// Choices after one context, contexts before one continuation, a lone request, and choices that begin alike.
    fn documents() -> Vec<Vec<Request>> {
        vec![
            vec![request(&[1, 2, 3, 4, 5], 3), request(&[1, 2, 3, 9], 3), request(&[1, 2, 3, 8, 7, 6, 5], 3)],
            vec![request(&[1, 20, 30, 40, 50], 3), request(&[1, 20, 31, 40, 50], 3)],
            vec![request(&[1, 60, 61, 62, 63, 64, 65, 66, 67], 5)],
            vec![request(&[1, 5, 6, 7], 2), request(&[1, 5, 6, 8], 2), request(&[1, 5, 6], 2)],
        ]
    }

    fn score(step_rows: usize, scoring: Scoring) -> Vec<Vec<Score>> {
        let (plan, store) = synthetic::model(&Shape::tiny(), &Layout::of(WeightFormat::Float { dtype: DType::F32 }), 3);
        let limits = Limits { step_rows, ..Limits::default() };
        let mut device = cpu::Device::new(&plan, &store, &cpu::Options { threads: Some(1), limits }).unwrap();
        let documents = documents();
        let documents: Vec<&[Request]> = documents.iter().map(Vec::as_slice).collect();
        let mut scores = vec![Vec::new(); documents.len()];
        log_likelihoods(&mut device, &documents, &scoring, &mut |index, document| {
            scores[index] = document;
            Ok(())
        })
        .unwrap();
        assert_eq!(device.state_bytes(), 0, "every slot is released");
        scores
    }

    /// One request at a time, from its definition.
    fn from_scratch() -> Vec<Vec<Score>> {
        let (plan, store) = synthetic::model(&Shape::tiny(), &Layout::of(WeightFormat::Float { dtype: DType::F32 }), 3);
        let mut device = cpu::Device::new(&plan, &store, &cpu::Options::default()).unwrap();
        let mut one = |request: &Request| {
            let logits = crate::generate::logits(&mut device, request.input(), None).unwrap();
            let rows: Vec<&[f32]> = logits.chunks_exact(plan.model.vocab_size).collect();
            let mut score = Score { log_likelihood: 0.0, greedy: true };
            for (target, row) in request.continuation().iter().zip(&rows[request.split - 1..]) {
                let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
                score.log_likelihood += f64::from(row[*target as usize]) - sum.ln();
                score.greedy &= row.iter().all(|logit| *logit <= row[*target as usize]);
            }
            score
        };
        documents().iter().map(|requests| requests.iter().map(&mut one).collect()).collect()
    }

    #[test]
    fn gives_what_the_definition_gives_however_requests_are_put_together() {
        let expected = from_scratch();
        for (step_rows, sequences, share_context) in
            [(512, 32, true), (512, 32, false), (3, 32, true), (1, 1, true), (4, 2, false), (7, 4, true)]
        {
            let found = score(step_rows, Scoring { sequences, share_context });
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                let error = (found.log_likelihood - expected.log_likelihood).abs();
                assert!(error < 1e-9, "{step_rows} {sequences} {share_context}: {found:?}, expected {expected:?}");
                assert_eq!(found.greedy, expected.greedy);
            }
        }
    }

    #[test]
    fn counts_shared_tokens_once() {
        let documents = documents();
        let rows = |share_context| {
            let scoring = Scoring { share_context, ..Scoring::default() };
            documents.iter().map(|requests| scoring.rows(requests)).collect::<Vec<_>>()
        };
        assert_eq!(rows(true), [3 + 1 + 3, 2 + 2 + 2, 8, 2 + 1 + 1]);
        assert_eq!(rows(false), [4 + 3 + 6, 4 + 4, 8, 3 + 3 + 2]);
    }

    #[test]
    fn the_likeliest_token_is_the_first_of_equals() {
        let (log_sum, likeliest) = normalizer(&[1.0, 3.0, 3.0]);
        assert_eq!(likeliest, 1);
        assert!((log_sum - (1f64.exp() + 2.0 * 3f64.exp()).ln()).abs() < 1e-12);
    }
}
