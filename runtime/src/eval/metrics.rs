use super::document::Document;
use super::loglikelihood::Score;
use super::task::{Form, Task};
use serde::{Deserialize, Serialize};

/// What one document came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its name in the data set.
    pub id: String,
    /// Its line in the file, counted from 1.
    pub line: usize,
    /// Of each choice, in nats.
    pub loglikelihoods: Vec<f64>,
    /// Whether each continuation is the likeliest text.
    pub greedy: Vec<bool>,
    /// 1 when the likeliest choice is the right one (or the last word the likeliest text), else 0.
    pub acc: u8,
    /// The same with likelihoods divided by the number of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<u8>,
}

impl Sample {
    /// Decides a document as the harness does; the first of equal choices wins.
    pub fn new(task: &Task, document: &Document, scores: &[Score]) -> Sample {
        let loglikelihoods: Vec<f64> = scores.iter().map(|score| score.log_likelihood).collect();
        let right = |values: &[f64]| u8::from(document.label == Some(argmax(values)));
        let normalized: Vec<f64> =
            loglikelihoods.iter().zip(&document.lengths).map(|(sum, length)| sum / *length as f64).collect();
        let acc = match task.form {
            Form::LastWord => u8::from(scores.iter().all(|score| score.greedy)),
            Form::Choices | Form::Contexts => right(&loglikelihoods),
        };
        Sample {
            id: document.id.clone(),
            line: document.line,
            greedy: scores.iter().map(|score| score.greedy).collect(),
            acc,
            acc_norm: task.normalized.then(|| right(&normalized)),
            loglikelihoods,
        }
    }
}

fn argmax(values: &[f64]) -> usize {
    let better = |best: usize, index: usize| if values[index] > values[best] { index } else { best };
    (0..values.len()).fold(0, better)
}

/// The numbers of a task. Standard errors are those of a mean: deviation of the sample over the root of its size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of right answers.
    pub acc: f64,
    /// Its standard error; none for one document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_stderr: Option<f64>,
    /// Share of right answers by likelihood for each character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<f64>,
    /// Its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm_stderr: Option<f64>,
    /// `exp` of the mean negative log-likelihood of a continuation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Its standard error to first order (the harness draws bootstrap samples).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity_stderr: Option<f64>,
}

impl Metrics {
    /// Means over the samples of a task.
    pub fn new(task: &Task, samples: &[Sample]) -> Metrics {
        let acc: Vec<f64> = samples.iter().map(|sample| f64::from(sample.acc)).collect();
        let acc_norm: Option<Vec<f64>> = samples.iter().map(|sample| sample.acc_norm.map(f64::from)).collect();
        let acc_norm = acc_norm.filter(|values| !values.is_empty());
        let sums: Option<Vec<f64>> = (task.form == Form::LastWord)
            .then(|| samples.iter().map(|sample| sample.loglikelihoods.iter().sum()).collect());
        let perplexity = sums.as_deref().map(|sums| (-mean(sums)).exp());
        Metrics {
            acc: mean(&acc),
            acc_stderr: mean_stderr(&acc),
            acc_norm: acc_norm.as_deref().map(mean),
            acc_norm_stderr: acc_norm.as_deref().and_then(mean_stderr),
            perplexity,
            perplexity_stderr: perplexity
                .zip(sums.as_deref().and_then(mean_stderr))
                .map(|(value, error)| value * error),
        }
    }

    /// The number that stands for the task, with its standard error.
    pub fn main(&self) -> (f64, Option<f64>) {
        match self.acc_norm {
            Some(value) => (value, self.acc_norm_stderr),
            None => (self.acc, self.acc_stderr),
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn mean_stderr(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let (mean, count) = (mean(values), values.len() as f64);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (count - 1.0)).sqrt() / count.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::document::Pair;

    fn document(label: Option<usize>, lengths: &[usize]) -> Document {
        let pair = Pair { context: "Q".into(), continuation: " x".into() };
        Document { line: 1, id: "a".into(), pairs: vec![pair; lengths.len()], lengths: lengths.to_vec(), label }
    }

    fn sample(task: &str, label: Option<usize>, lengths: &[usize], scores: &[(f64, bool)]) -> Sample {
        let scores: Vec<Score> =
            scores.iter().map(|&(log_likelihood, greedy)| Score { log_likelihood, greedy }).collect();
        Sample::new(Task::named(task).unwrap(), &document(label, lengths), &scores)
    }

    #[test]
    fn length_decides_only_the_normalized_accuracy() {
        let sample = sample("piqa", Some(1), &[2, 10], &[(-4.0, false), (-10.0, false)]);
        assert_eq!((sample.acc, sample.acc_norm), (0, Some(1)));
    }

    #[test]
    fn the_first_of_equal_choices_wins() {
        let equal = [(-4.0, false), (-4.0, false)];
        assert_eq!(sample("winogrande", Some(0), &[2, 2], &equal).acc, 1);
        assert_eq!(sample("winogrande", Some(1), &[2, 2], &equal).acc, 0);
        assert_eq!(sample("winogrande", Some(1), &[2, 2], &equal).acc_norm, None);
    }

    #[test]
    fn a_last_word_is_right_when_it_is_the_likeliest_text() {
        assert_eq!(sample("lambada_openai", None, &[5], &[(-1.0, true)]).acc, 1);
        assert_eq!(sample("lambada_openai", None, &[5], &[(-1.0, false)]).acc, 0);
    }

    #[test]
    fn standard_errors_are_those_of_a_mean() {
        let right = |label| sample("arc_easy", Some(label), &[1, 1], &[(-1.0, false), (-2.0, false)]);
        let metrics = Metrics::new(Task::named("arc_easy").unwrap(), &[right(0), right(0), right(0), right(1)]);
        assert_eq!((metrics.acc, metrics.perplexity), (0.75, None));
        assert!((metrics.acc_stderr.unwrap() - 0.25).abs() < 1e-12);
        assert_eq!(Metrics::new(Task::named("arc_easy").unwrap(), &[right(0)]).acc_stderr, None);
    }

    #[test]
    fn perplexity_is_over_continuations() {
        let one = |sum| sample("lambada_openai", None, &[5], &[(sum, false)]);
        let metrics = Metrics::new(Task::named("lambada_openai").unwrap(), &[one(-1.0), one(-3.0)]);
        assert!((metrics.perplexity.unwrap() - 2f64.exp()).abs() < 1e-12);
        assert!((metrics.perplexity_stderr.unwrap() - 2f64.exp()).abs() < 1e-12);
    }
}
