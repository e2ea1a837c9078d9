use super::EvalError;
use super::loglikelihood::Score;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Scores kept on disk while a run goes on, so that the next one need not compute them again.
///
/// JSON Lines: one record a document, appended as soon as it is scored. A record counts for a run with the same key
/// only; what a key covers is the caller's choice. A last line that was cut off is ignored.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    file: File,
    known: HashMap<(String, usize), Vec<Score>>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    key: String,
    line: usize,
    /// Bits of the log-likelihood, so that what is read is what was written, and whether it is greedy.
    scores: Vec<(u64, bool)>,
}

impl Partial {
    /// Opens or creates the file and reads what is in it.
    ///
    /// # Errors
    /// When it can be neither read nor written.
    pub fn open(path: &Path) -> Result<Partial, EvalError> {
        let help = "check that the folder exists and that you may write to it";
        let failed = |source| EvalError::file("partial results cannot be kept", path, source, help);
        let mut file = File::options().read(true).append(true).create(true).open(path).map_err(failed)?;
        let bytes = std::fs::read(path).map_err(failed)?;
        let records = bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Record>(line).ok());
        let known = records.map(|record| {
            let score = |(bits, greedy)| Score { log_likelihood: f64::from_bits(bits), greedy };
            ((record.key, record.line), record.scores.into_iter().map(score).collect())
        });
        let known = known.collect();
        if bytes.last().is_some_and(|byte| *byte != b'\n') {
            file.write_all(b"\n").map_err(failed)?;
        }
        Ok(Partial { path: path.to_owned(), file, known })
    }

    /// The scores of a document, if an earlier run left them.
    pub fn find(&self, key: &str, line: usize) -> Option<&[Score]> {
        self.known.get(&(key.to_owned(), line)).map(Vec::as_slice)
    }

    /// Keeps the scores of a document.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add(&mut self, key: &str, line: usize, scores: &[Score]) -> Result<(), EvalError> {
        let scores = scores.iter().map(|score| (score.log_likelihood.to_bits(), score.greedy)).collect();
        let record = Record { key: key.to_owned(), line, scores };
        let written = serde_json::to_string(&record).map_err(std::io::Error::from);
        let written = written.and_then(|text| self.file.write_all((text + "\n").as_bytes()));
        let help = "is the disk full? what was kept so far is used by the next run";
        written.map_err(|source| EvalError::file("partial results cannot be kept", &self.path, source, help))
    }

    /// Removes the file: the results are safe elsewhere.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(self) -> Result<(), EvalError> {
        let failed =
            |source| EvalError::file("partial results cannot be removed", &self.path, source, "remove it by hand");
        std::fs::remove_file(&self.path).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [Score; 2] = [
        Score { log_likelihood: -0.1 - 0.2, greedy: true },
        Score { log_likelihood: -123.456_789_012_345_67, greedy: false },
    ];

    #[test]
    fn keeps_scores_to_the_last_bit_under_their_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json.partial");
        let mut partial = Partial::open(&path).unwrap();
        partial.add("a", 7, &SCORES).unwrap();
        let partial = Partial::open(&path).unwrap();
        assert_eq!(partial.find("a", 7), Some(&SCORES[..]));
        assert_eq!(partial.find("b", 7), None);
        assert_eq!(partial.find("a", 8), None);
        partial.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn forgets_a_record_that_was_cut_off_and_goes_on_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json.partial");
        Partial::open(&path).unwrap().add("a", 1, &SCORES).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.clone();
        bytes.extend_from_slice(&whole[..whole.len() / 2]);
        std::fs::write(&path, bytes).unwrap();
        Partial::open(&path).unwrap().add("a", 2, &SCORES).unwrap();
        let partial = Partial::open(&path).unwrap();
        assert!(partial.find("a", 1).is_some() && partial.find("a", 2).is_some());
    }

    #[test]
    fn names_a_file_that_cannot_be_written() {
        let error = Partial::open(Path::new("/dev/null/x")).unwrap_err().to_string();
        assert!(error.contains("/dev/null/x") && error.contains("help:"), "{error}");
    }
}
