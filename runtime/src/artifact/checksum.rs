use super::ArtifactError;
use serde::Deserialize;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// XXH3-64 of every part of an artifact.
///
/// Stored as `{"header":"H","tensors":{"NAME":"H",...},"self":"H"}` with 16 hexadecimal digits for each `H`, so that
/// the length is known before any checksum is. `header` covers everything before the tensors; `self` covers the text
/// up to its own opening quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksums {
    /// Of everything before the tensors.
    pub header: u64,
    /// Of each tensor but this one.
    pub tensors: BTreeMap<String, u64>,
}

/// `H"}`: what follows the text that `self` covers.
const SELF_BYTES: usize = 18;

#[derive(Deserialize)]
struct Stored {
    header: String,
    tensors: BTreeMap<String, String>,
}

impl Checksums {
    /// The bytes to store.
    pub fn render(&self) -> Vec<u8> {
        let tensors: Vec<String> = self
            .tensors
            .iter()
            .map(|(name, sum)| format!("{}:\"{sum:016x}\"", serde_json::Value::from(name.as_str())))
            .collect();
        let mut text =
            format!("{{\"header\":\"{:016x}\",\"tensors\":{{{}}},\"self\":\"", self.header, tensors.join(","));
        let own = xxh3_64(text.as_bytes());
        text.push_str(&format!("{own:016x}\"}}"));
        text.into_bytes()
    }

    /// Of the whole artifact: XXH3-64 of this table, which covers every byte.
    pub fn digest(&self) -> u64 {
        xxh3_64(&self.render())
    }

    /// How many bytes [`Checksums::render`] gives for tensors of these names.
    pub fn rendered_len<'a>(names: impl Iterator<Item = &'a str>) -> usize {
        let tensors = names.map(|name| (name.to_owned(), 0)).collect();
        Checksums { header: 0, tensors }.render().len()
    }

    /// Reads the bytes back.
    ///
    /// # Errors
    /// When they are not such a table or do not match their own checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let bad = |why: &str| ArtifactError::malformed(format!("`nemo.checksums` {why}"));
        let (text, own) =
            bytes.len().checked_sub(SELF_BYTES).map(|at| bytes.split_at(at)).ok_or_else(|| bad("is too short"))?;
        let expected = own
            .strip_suffix(b"\"}")
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(parse_hex)
            .ok_or_else(|| bad("has no checksum of its own"))?;
        let found = xxh3_64(text);
        if expected != found {
            return Err(ArtifactError::Altered { what: "`nemo.checksums`".into(), expected, found });
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| bad(&format!("is no table: {error}")))?;
        let sum = |text: &str| parse_hex(text).ok_or_else(|| bad("holds something else than checksums"));
        Ok(Checksums {
            header: sum(&stored.header)?,
            tensors: stored
                .tensors
                .iter()
                .map(|(name, text)| Ok((name.clone(), sum(text)?)))
                .collect::<Result<_, ArtifactError>>()?,
        })
    }
}

fn parse_hex(text: &str) -> Option<u64> {
    let all_hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    all_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Checksums {
        Checksums { header: 7, tensors: [("a\"b".to_owned(), u64::MAX), ("ü".to_owned(), 1)].into() }
    }

    #[test]
    fn reads_back_what_it_rendered() {
        assert_eq!(Checksums::parse(&table().render()).unwrap(), table());
    }

    #[test]
    fn knows_its_length_before_its_checksums() {
        let names = table().tensors.into_keys().collect::<Vec<_>>();
        assert_eq!(Checksums::rendered_len(names.iter().map(String::as_str)), table().render().len());
    }

    #[test]
    fn refuses_every_changed_byte() {
        let bytes = table().render();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(Checksums::parse(&altered).is_err(), "byte {at}");
        }
    }
}
