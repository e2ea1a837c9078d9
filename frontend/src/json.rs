//! JSON as Python writes it, and typed access to its fields.

use crate::error::ConfigError;
use serde_json::{Map, Value};

/// The literals that Python's `json` writes for floats JSON has no words for.
const LITERALS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses an object of JSON in which `Infinity`, `-Infinity` and `NaN` may stand as numbers.
pub(crate) fn parse_object(text: &str, file: &str) -> Result<Map<String, Value>, ConfigError> {
    let syntax = |reason: String| ConfigError::Syntax { file: file.to_owned(), reason };
    match serde_json::from_str(&quote_literals(text)) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(syntax(format!("{}, expected an object", kind(&other)))),
        Err(error) => Err(syntax(error.to_string())),
    }
}

/// Puts quotes around the non-standard literals outside strings; number fields accept them as strings.
fn quote_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let len = if in_string && c == '\\' {
            c.len_utf8() + rest.chars().nth(1).map_or(0, char::len_utf8)
        } else if !in_string && let Some(literal) = LITERALS.iter().find(|l| rest.starts_with(**l)) {
            out.push('"');
            out.push_str(literal);
            out.push('"');
            rest = &rest[literal.len()..];
            continue;
        } else {
            in_string ^= c == '"';
            c.len_utf8()
        };
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out
}

/// What a value is, for messages.
pub(crate) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => format!("the string {:?}", s.chars().take(40).collect::<String>()),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}
