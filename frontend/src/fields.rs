//! Typed, checked access to the fields of a JSON configuration under all their spellings.

use crate::error::ConfigError;
use crate::json::kind;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// The fields of one configuration file.
pub(crate) struct Fields<'a> {
    pub map: &'a Map<String, Value>,
    pub file: &'a str,
}

impl<'a> Fields<'a> {
    /// The value under whichever spelling is there; null counts as absent, two spellings must agree.
    pub fn find(&self, spellings: &[&'static str]) -> Result<Option<(&'static str, &'a Value)>, ConfigError> {
        let mut present =
            spellings.iter().filter_map(|&name| Some((name, self.map.get(name).filter(|v| !v.is_null())?)));
        let Some(first) = present.next() else {
            return Ok(None);
        };
        match present.find(|other| other.1 != first.1) {
            Some(other) => Err(self.disagree(
                first.0,
                other.0,
                format!("{} and {}", kind(first.1), kind(other.1)),
                "they are two spellings of one field: remove one".into(),
            )),
            None => Ok(Some(first)),
        }
    }

    /// A required whole number within `range`.
    pub fn size(&self, spellings: &[&'static str], range: RangeInclusive<usize>) -> Result<usize, ConfigError> {
        match self.optional_size(spellings, range)? {
            Some(value) => Ok(value),
            None => Err(ConfigError::Missing {
                file: self.file.to_owned(),
                field: spellings[0],
                spellings: spellings.join(", "),
            }),
        }
    }

    /// A whole number within `range`, if it is there.
    pub fn optional_size(
        &self,
        spellings: &[&'static str],
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ConfigError> {
        self.find(spellings)?.map(|(field, value)| self.whole_number(field, value, range)).transpose()
    }

    /// `value` as a whole number within `range`.
    pub fn whole_number(&self, field: &str, value: &Value, range: RangeInclusive<usize>) -> Result<usize, ConfigError> {
        let Value::Number(number) = value else {
            return Err(self.wrong_type(field, value, "a whole number"));
        };
        let size = number.as_u64().and_then(|n| usize::try_from(n).ok());
        size.filter(|n| range.contains(n)).ok_or_else(|| {
            self.out_of_range(
                field,
                number.to_string(),
                format!("a whole number from {} to {}", range.start(), range.end()),
            )
        })
    }

    /// True or false.
    pub fn flag(&self, spellings: &[&'static str], default: bool) -> Result<bool, ConfigError> {
        match self.find(spellings)? {
            None => Ok(default),
            Some((_, Value::Bool(value))) => Ok(*value),
            Some((field, other)) => Err(self.wrong_type(field, other, "true or false")),
        }
    }

    /// A string.
    pub fn text(&self, spellings: &[&'static str]) -> Result<Option<(&'static str, &'a str)>, ConfigError> {
        match self.find(spellings)? {
            None => Ok(None),
            Some((field, Value::String(value))) => Ok(Some((field, value))),
            Some((field, other)) => Err(self.wrong_type(field, other, "a string")),
        }
    }

    /// `value` as a float; the literals that JSON lacks arrive as strings.
    pub fn float(&self, field: &str, value: &Value) -> Result<f64, ConfigError> {
        match value {
            Value::Number(number) => number.as_f64(),
            Value::String(s) => match s.as_str() {
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                "NaN" => Some(f64::NAN),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| self.wrong_type(field, value, "a number"))
    }

    pub fn wrong_type(&self, field: &str, found: &Value, expected: &'static str) -> ConfigError {
        ConfigError::WrongType { file: self.file.to_owned(), field: field.to_owned(), found: kind(found), expected }
    }

    pub fn out_of_range(&self, field: &str, found: String, expected: String) -> ConfigError {
        ConfigError::OutOfRange { file: self.file.to_owned(), field: field.to_owned(), found, expected }
    }

    pub fn disagree(&self, a: &str, b: &str, found: String, help: String) -> ConfigError {
        ConfigError::Disagree { file: self.file.to_owned(), a: a.to_owned(), b: b.to_owned(), found, help }
    }

    pub fn unsupported(&self, field: &str, what: String, help: &'static str) -> ConfigError {
        ConfigError::Unsupported { file: self.file.to_owned(), field: field.to_owned(), what, help }
    }
}
