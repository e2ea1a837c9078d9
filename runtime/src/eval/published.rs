//! From the files that data sets are published as to the lines that `nemoc eval` reads.
//!
//! Each rule is that of the task's `doc_to_text`, `doc_to_choice` and `doc_to_target` in lm-evaluation-harness 0.4.13.

use super::Problem;
use serde::Deserialize;
use serde_json::{Value, json};

/// Converts a published file of JSON Lines; `labels` is the file of labels where the data set keeps them apart (PIQA).
///
/// # Errors
/// At the first line that does not have the published form.
pub fn convert(task: &str, bytes: &str, labels: Option<&str>) -> Result<String, Problem> {
    let mut labels = labels.map(|labels| labels.lines().filter(|line| !line.trim().is_empty()));
    let mut text = String::new();
    let lines = bytes.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    for (index, (line, content)) in lines.enumerate() {
        let label = labels.as_mut().map(|labels| labels.next().unwrap_or_default());
        let converted = convert_line(task, index, content, label).map_err(|message| Problem {
            line: line + 1,
            message,
            skipped: false,
        })?;
        text += &format!("{converted}\n");
    }
    match labels.map(Iterator::count) {
        None | Some(0) => Ok(text),
        Some(left) => {
            let message = format!("{left} labels are left over at the end");
            Err(Problem { line: bytes.lines().count(), message, skipped: false })
        }
    }
}

fn convert_line(task: &str, index: usize, line: &str, label: Option<&str>) -> Result<Value, String> {
    match task {
        "hellaswag" => hellaswag(index, parse(line)?),
        "piqa" => piqa(index, parse(line)?, label),
        "winogrande" => winogrande(parse(line)?),
        "lambada_openai" => lambada(index, parse(line)?),
        _ => arc(parse(line)?),
    }
}

fn parse<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| format!("the line does not fit the published form: {error}"))
}

/// Published by some as a number, by others as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Label {
    Number(i64),
    Text(String),
}

impl Label {
    /// Its value, which the data set counts from `first`.
    fn index(&self, first: i64, choices: usize) -> Result<usize, String> {
        let value = match self {
            Label::Number(value) => Some(*value),
            Label::Text(text) => text.trim().parse().ok(),
        };
        let last = first + choices as i64 - 1;
        let index = value.filter(|value| (first..=last).contains(value)).map(|value| (value - first) as usize);
        index.ok_or_else(|| {
            let found = match self {
                Label::Number(value) => value.to_string(),
                Label::Text(text) => format!("{text:?}"),
            };
            format!("the label is {found}, expected {first} to {last}")
        })
    }
}

#[derive(Deserialize)]
struct Arc {
    id: String,
    question: ArcQuestion,
    choices: Option<ArcColumns>,
    #[serde(rename = "answerKey")]
    answer_key: String,
}

/// AllenAI's file nests the choices in the question; the Hugging Face data set keeps them beside it, as columns.
#[derive(Deserialize)]
#[serde(untagged)]
enum ArcQuestion {
    Nested { stem: String, choices: Vec<ArcChoice> },
    Plain(String),
}

#[derive(Deserialize)]
struct ArcChoice {
    text: String,
    label: String,
}

#[derive(Deserialize)]
struct ArcColumns {
    text: Vec<String>,
    label: Vec<String>,
}

fn arc(document: Arc) -> Result<Value, String> {
    let (question, labels, choices): (_, Vec<String>, Vec<String>) = match (document.question, document.choices) {
        (ArcQuestion::Nested { stem, choices }, _) => {
            let (labels, texts) = choices.into_iter().map(|choice| (choice.label, choice.text)).unzip();
            (stem, labels, texts)
        }
        (ArcQuestion::Plain(question), Some(columns)) => (question, columns.label, columns.text),
        (ArcQuestion::Plain(_), None) => return Err("the line has no choices".to_owned()),
    };
    let label = labels
        .iter()
        .position(|label| *label == document.answer_key)
        .ok_or_else(|| format!("answerKey is {:?}, expected one of {}", document.answer_key, labels.join(", ")))?;
    Ok(
        json!({"id": document.id, "query": format!("Question: {question}\nAnswer:"), "choices": choices, "label": label}),
    )
}

#[derive(Deserialize)]
struct HellaSwag {
    ind: i64,
    activity_label: String,
    ctx_a: String,
    #[serde(default)]
    ctx_b: String,
    endings: Vec<String>,
    label: Label,
    source_id: String,
    split_type: String,
}

fn hellaswag(index: usize, document: HellaSwag) -> Result<Value, String> {
    let context = format!("{}: {} {}", document.activity_label, document.ctx_a, capitalize(&document.ctx_b));
    let choices: Vec<String> = document.endings.iter().map(|ending| without_markup(ending)).collect();
    Ok(json!({
        "id": format!("hellaswag-val-{index}"),
        "ind": document.ind,
        "source_id": document.source_id,
        "split_type": document.split_type,
        "query": without_markup(&context),
        "label": document.label.index(0, choices.len())?,
        "choices": choices,
    }))
}

/// Python's `str.capitalize`: the rest becomes lower case.
fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters.as_str().to_lowercase().chars()).collect())
}

/// The harness's `preprocess` of HellaSwag: WikiHow's markup goes, and so does one of two spaces that it leaves.
fn without_markup(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let mut rest = text.as_str();
    let mut kept = String::new();
    while let Some(open) = rest.find('[') {
        let Some(length) = rest[open..].find(']').filter(|length| !rest[open..][..*length].contains('\n')) else {
            kept += &rest[..=open];
            rest = &rest[open + 1..];
            continue;
        };
        kept += &rest[..open];
        rest = &rest[open + length + 1..];
    }
    (kept + rest).replace("  ", " ")
}

#[derive(Deserialize)]
struct Piqa {
    goal: String,
    sol1: String,
    sol2: String,
    label: Option<Label>,
}

fn piqa(index: usize, document: Piqa, label: Option<&str>) -> Result<Value, String> {
    let label = label.map(|label| Label::Text(label.to_owned())).or(document.label);
    let label =
        label.ok_or("the line has no label: PIQA keeps them in a file of their own, give it too")?.index(0, 2)?;
    Ok(json!({
        "id": format!("piqa-valid-{index}"),
        "query": format!("Question: {}\nAnswer:", document.goal),
        "choices": [document.sol1, document.sol2],
        "label": label,
    }))
}

#[derive(Deserialize)]
struct WinoGrande {
    #[serde(rename = "qID", default)]
    id: String,
    sentence: String,
    option1: String,
    option2: String,
    answer: Label,
}

fn winogrande(document: WinoGrande) -> Result<Value, String> {
    let (before, after) = document.sentence.split_once('_').ok_or("the sentence has no blank `_`")?;
    Ok(json!({
        "id": document.id,
        "contexts": [format!("{before}{}", document.option1), format!("{before}{}", document.option2)],
        "continuation": after.trim(),
        "label": document.answer.index(1, 2)?,
    }))
}

#[derive(Deserialize)]
struct Lambada {
    text: String,
}

fn lambada(index: usize, document: Lambada) -> Result<Value, String> {
    let (context, word) = document.text.rsplit_once(' ').ok_or("the text is a single word")?;
    Ok(json!({"id": format!("lambada-test-{index}"), "context": context, "continuation": format!(" {word}")}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(task: &str, line: &str) -> Value {
        serde_json::from_str(&convert(task, line, None).unwrap()).unwrap()
    }

    #[test]
    fn reads_both_published_forms_of_arc() {
        let nested = r#"{"id":"q","question":{"stem":"Why?","choices":[{"text":"a","label":"1"},{"text":"b","label":"2"}]},"answerKey":"2"}"#;
        let columns = r#"{"id":"q","question":"Why?","choices":{"text":["a","b"],"label":["1","2"]},"answerKey":"2"}"#;
        let expected = json!({"id": "q", "query": "Question: Why?\nAnswer:", "choices": ["a", "b"], "label": 1});
        assert_eq!(one("arc_easy", nested), expected);
        assert_eq!(one("arc_challenge", columns), expected);
    }

    #[test]
    fn takes_the_markup_out_of_hellaswag_as_the_harness_does() {
        let line = r#"{"ind":4,"activity_label":"Home","ctx_a":"How to [x] sit [title] Sit.","ctx_b":"the Man","endings":[" [step] down  now","up"],"label":"1","source_id":"s","split_type":"zeroshot"}"#;
        let document = one("hellaswag", line);
        assert_eq!(document["query"], "Home: How to sit.  Sit. The man".replace(".  ", ". "));
        assert_eq!(document["choices"], json!([" down now", "up"]));
        assert_eq!((document["label"].clone(), document["ind"].clone()), (json!(1), json!(4)));
    }

    #[test]
    fn leaves_a_bracket_without_its_partner() {
        assert_eq!(without_markup("a [b"), "a [b");
        assert_eq!(without_markup("a [b\nc] d"), "a [b\nc] d");
    }

    #[test]
    fn puts_the_options_of_winogrande_into_the_blank() {
        let line = r#"{"qID":"w","sentence":"As _ won, he left.","option1":"Al","option2":"Bo","answer":"2"}"#;
        let expected = json!({"id": "w", "contexts": ["As Al", "As Bo"], "continuation": "won, he left.", "label": 1});
        assert_eq!(one("winogrande", line), expected);
    }

    #[test]
    fn splits_the_last_word_of_lambada_off() {
        let expected = json!({"id": "lambada-test-0", "context": "I see", "continuation": " signs"});
        assert_eq!(one("lambada_openai", r#"{"text":"I see signs"}"#), expected);
    }

    #[test]
    fn pairs_the_lines_of_piqa_with_their_labels() {
        let line = r#"{"goal":"Sit","sol1":"a ","sol2":"b"}"#;
        let text = convert("piqa", &format!("{line}\n{line}\n"), Some("1\n0\n")).unwrap();
        let labels: Vec<Value> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["label"].clone()).collect();
        assert_eq!(labels, [1, 0]);
        assert!(convert("piqa", line, None).unwrap_err().message.contains("file of their own"));
        assert!(convert("piqa", line, Some("0\n1\n")).unwrap_err().message.contains("1 labels are left over"));
        assert!(convert("piqa", line, Some("7")).unwrap_err().message.contains("expected 0 to 1"));
    }

    #[test]
    fn names_the_line_that_does_not_fit() {
        let problem = convert("lambada_openai", "{\"text\":\"a b\"}\n\n{}\n", None).unwrap_err();
        assert_eq!(problem.line, 3);
        assert!(problem.message.contains("missing field `text`"), "{problem}");
    }
}
