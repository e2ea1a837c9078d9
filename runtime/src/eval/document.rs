use super::Problem;
use super::task::Form;
use serde::Deserialize;

/// One question of a benchmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its line in the file, counted from 1.
    pub line: usize,
    /// Its name in the data set.
    pub id: String,
    /// What is scored, in the order of the choices.
    pub pairs: Vec<Pair>,
    /// Characters of each choice, without the delimiter.
    pub lengths: Vec<usize>,
    /// The right choice; `None` for [`Form::LastWord`].
    pub label: Option<usize>,
}

/// A text and what may follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Given.
    pub context: String,
    /// Scored; begins with the delimiter.
    pub continuation: String,
}

/// What the harness puts between a context and its continuation.
const TARGET_DELIMITER: &str = " ";
/// What it puts between the examples of a few-shot prompt.
const FEWSHOT_DELIMITER: &str = "\n\n";

#[derive(Deserialize)]
struct Choices {
    id: String,
    query: String,
    choices: Vec<String>,
    label: i64,
}

#[derive(Deserialize)]
struct Contexts {
    id: String,
    contexts: Vec<String>,
    continuation: String,
    label: i64,
}

#[derive(Deserialize)]
struct LastWord {
    id: String,
    context: String,
    continuation: String,
}

/// Reads JSON Lines. Lines that cannot be used are reported and left out; `limit` counts lines with text.
pub fn read(form: Form, bytes: &[u8], limit: Option<usize>) -> (Vec<Document>, Vec<Problem>) {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    for (index, line) in lines.take(limit.unwrap_or(usize::MAX)) {
        match parse(form, index + 1, line) {
            Ok(document) => documents.push(document),
            Err(message) => problems.push(Problem { line: index + 1, message, skipped: true }),
        }
    }
    (documents, problems)
}

fn parse(form: Form, line: usize, bytes: &[u8]) -> Result<Document, String> {
    let document = match form {
        Form::Choices => choices(line, json(bytes)?)?,
        Form::Contexts => contexts(line, json(bytes)?)?,
        Form::LastWord => last_word(line, json(bytes)?),
    };
    if let Some(index) = document.pairs.iter().position(|pair| pair.context.is_empty()) {
        return Err(format!("context {index} is empty"));
    }
    if let Some(index) = document.lengths.iter().position(|length| *length == 0) {
        return Err(format!("choice {index} is empty"));
    }
    Ok(document)
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("the line is not UTF-8: {error}"))?;
    serde_json::from_str(text).map_err(|error| format!("the line does not fit the task: {error}"))
}

fn label(label: i64, choices: usize) -> Result<Option<usize>, String> {
    let checked = usize::try_from(label).ok().filter(|label| *label < choices);
    checked.map(Some).ok_or_else(|| format!("label is {label}, expected 0 to {}", choices.saturating_sub(1)))
}

fn choices(line: usize, raw: Choices) -> Result<Document, String> {
    if raw.choices.len() < 2 {
        return Err(format!("there are {} choices, expected two or more", raw.choices.len()));
    }
    let label = label(raw.label, raw.choices.len())?;
    let lengths = raw.choices.iter().map(|choice| choice.chars().count()).collect();
    let pair = |choice: &String| Pair { context: raw.query.clone(), continuation: delimited(choice) };
    Ok(Document { line, id: raw.id, pairs: raw.choices.iter().map(pair).collect(), lengths, label })
}

fn contexts(line: usize, raw: Contexts) -> Result<Document, String> {
    if raw.contexts.len() < 2 {
        return Err(format!("there are {} contexts, expected two or more", raw.contexts.len()));
    }
    let label = label(raw.label, raw.contexts.len())?;
    let lengths = vec![raw.continuation.chars().count(); raw.contexts.len()];
    let continuation = delimited(&raw.continuation);
    let pair = |context: String| Pair { context, continuation: continuation.clone() };
    Ok(Document { line, id: raw.id, pairs: raw.contexts.into_iter().map(pair).collect(), lengths, label })
}

fn last_word(line: usize, raw: LastWord) -> Document {
    let lengths = vec![raw.continuation.chars().count()];
    let pair = Pair { context: raw.context, continuation: raw.continuation };
    Document { line, id: raw.id, pairs: vec![pair], lengths, label: None }
}

fn delimited(text: &str) -> String {
    format!("{TARGET_DELIMITER}{text}")
}

/// Puts solved examples before every context of a document.
pub fn with_examples(document: &mut Document, form: Form, examples: &[&Document]) {
    // The last word brings a delimiter of its own; in an example the harness puts the usual one before it.
    let delimiter = if form == Form::LastWord { TARGET_DELIMITER } else { "" };
    let solved = |example: &&Document| {
        let gold = &example.pairs[example.label.unwrap_or(0)];
        format!("{}{delimiter}{}{FEWSHOT_DELIMITER}", gold.context, gold.continuation)
    };
    let prompt: String = examples.iter().map(solved).collect();
    for pair in &mut document.pairs {
        pair.context.insert_str(0, &prompt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"id":"a","query":"Q","choices":["x","été"],"label":1}"#;

    fn problem(form: Form, line: &str) -> String {
        let (documents, problems) = read(form, line.as_bytes(), None);
        assert!(documents.is_empty());
        problems[0].message.clone()
    }

    #[test]
    fn puts_one_space_before_a_choice_and_counts_its_characters() {
        let (documents, problems) = read(Form::Choices, GOOD.as_bytes(), None);
        assert!(problems.is_empty());
        assert_eq!(documents[0].pairs[1], Pair { context: "Q".into(), continuation: " été".into() });
        assert_eq!(documents[0].lengths, [1, 3]);
    }

    #[test]
    fn a_last_word_brings_its_own_space() {
        let line = br#"{"id":"a","context":"so","continuation":" on"}"#;
        let (documents, _) = read(Form::LastWord, line, None);
        assert_eq!(documents[0].pairs[0].continuation, " on");
    }

    #[test]
    fn names_the_lines_that_cannot_be_used_and_keeps_the_rest() {
        let text = format!("{GOOD}\n\nnot json\n{GOOD}\n");
        let (documents, problems) = read(Form::Choices, text.as_bytes(), None);
        assert_eq!(documents.iter().map(|document| document.line).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        let cases = [
            (r#"{"id":"a","query":"Q","choices":["x",""],"label":0}"#, "choice 1 is empty"),
            (r#"{"id":"a","query":"Q","choices":["x","y"],"label":2}"#, "label is 2, expected 0 to 1"),
            (r#"{"id":"a","query":"","choices":["x","y"],"label":0}"#, "context 0 is empty"),
            (r#"{"id":"a","query":"Q","choices":["x"],"label":0}"#, "there are 1 choices, expected two or more"),
        ];
        for (line, expected) in cases {
            assert_eq!(problem(Form::Choices, line), expected);
        }
        assert!(
            problem(Form::Choices, r#"{"id":"a","choices":["x","y"],"label":0}"#).contains("missing field `query`")
        );
        let (_, problems) = read(Form::Choices, b"\xff", None);
        assert!(problems[0].message.contains("not UTF-8"));
    }

    #[test]
    fn a_limit_counts_lines() {
        let text = format!("bad\n{GOOD}\n{GOOD}\n");
        let (documents, problems) = read(Form::Choices, text.as_bytes(), Some(2));
        assert_eq!((documents.len(), problems.len()), (1, 1));
    }

    #[test]
    fn examples_come_before_the_context_with_their_answers() {
        let (mut documents, _) = read(Form::Choices, GOOD.as_bytes(), None);
        let examples = documents.clone();
        with_examples(&mut documents[0], Form::Choices, &[&examples[0]]);
        assert_eq!(documents[0].pairs[0].context, "Q été\n\nQ");
    }

    #[test]
    fn a_last_word_in_an_example_comes_after_the_usual_delimiter_and_its_own() {
        let line = r#"{"id": "1", "context": "the", "continuation": " end"}"#;
        let (mut documents, _) = read(Form::LastWord, line.as_bytes(), None);
        let examples = documents.clone();
        with_examples(&mut documents[0], Form::LastWord, &[&examples[0]]);
        assert_eq!(documents[0].pairs[0].context, "the  end\n\nthe");
    }
}
