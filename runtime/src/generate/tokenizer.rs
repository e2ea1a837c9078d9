use super::GenerateError;

/// Text to token ids and back. The file's own post-processor decides which special tokens a text gets.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Tokenizer, GenerateError> {
        let inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| GenerateError::BadTokenizer { message: error.to_string() })?;
        Ok(Tokenizer { inner })
    }

    /// The ids of a text, special tokens added as the tokenizer says.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        self.encode_with(text, true)
    }

    /// The ids of a piece of text, without the special tokens that begin or end a text.
    pub fn encode_piece(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, GenerateError> {
        let encoding = self.inner.encode_fast(text, add_special_tokens);
        let encoding = encoding.map_err(|error| GenerateError::Encode { message: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of some ids, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String, GenerateError> {
        self.inner.decode(ids, true).map_err(|error| GenerateError::Encode { message: error.to_string() })
    }

    /// Turns ids into text as they arrive.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, ids: Vec::new(), printed: 0 }
    }
}

/// Text of ids that arrive one by one; a character that several ids share is held back until it is complete.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The ids of the last piece of text and those since: some decoders join words by what came before.
    ids: Vec<u32>,
    /// How many of them belong to text that was returned.
    printed: usize,
}

impl TextStream<'_> {
    /// Adds an id; returns the text that became complete with it, possibly none.
    pub fn push(&mut self, id: u32) -> Result<String, GenerateError> {
        self.ids.push(id);
        let text = self.pending()?;
        if text.is_empty() || text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.ids.drain(..self.printed);
        self.printed = self.ids.len();
        Ok(text)
    }

    /// Whatever is still held back, incomplete characters replaced.
    pub fn finish(self) -> Result<String, GenerateError> {
        self.pending()
    }

    fn pending(&self) -> Result<String, GenerateError> {
        let before = self.tokenizer.decode(&self.ids[..self.printed])?;
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(text.strip_prefix(&before).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
impl Tokenizer {
    /// Of a byte-level vocabulary; `<s>`, id 0, before every text.
    pub(crate) fn of_bytes(vocab: serde_json::Map<String, serde_json::Value>, merges: &[[&str; 2]]) -> Tokenizer {
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            "model": {"type": "BPE", "vocab": vocab, "merges": merges}
        });
        Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte-level tokenizer with one token a byte, and id 0 as `<s>` before every text.
    fn bytes_tokenizer() -> Tokenizer {
        let printable = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let mut shifted = 0..;
        let alphabet = (0..256u32).map(|byte| {
            let code = if printable(byte) { byte } else { 256 + shifted.next().unwrap_or(0) };
            char::from_u32(code).unwrap_or_default().to_string()
        });
        let vocab = alphabet.enumerate().map(|(id, token)| (token, serde_json::json!(id + 1))).collect();
        Tokenizer::of_bytes(vocab, &[])
    }

    #[test]
    fn the_post_processor_decides_about_bos() {
        let tokenizer = bytes_tokenizer();
        assert_eq!(tokenizer.encode("a").unwrap(), [0, 98]);
        assert_eq!(tokenizer.encode_piece("a").unwrap(), [98]);
        assert_eq!(tokenizer.decode(&[0, 98]).unwrap(), "a");
    }

    #[test]
    fn a_stream_never_splits_a_character() {
        let tokenizer = bytes_tokenizer();
        let text = "naïve 日本 🦀!";
        let mut stream = tokenizer.stream();
        let pieces: Vec<String> =
            tokenizer.encode(text).unwrap().into_iter().map(|id| stream.push(id).unwrap()).collect();
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| piece.chars().count() <= 1));
        assert_eq!(stream.finish().unwrap(), "");
    }

    #[test]
    fn an_unfinished_character_is_replaced_at_the_end() {
        let tokenizer = bytes_tokenizer();
        let mut stream = tokenizer.stream();
        for id in &tokenizer.encode_piece("é").unwrap()[..1] {
            assert_eq!(stream.push(*id).unwrap(), "");
        }
        assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
    }

    #[test]
    fn refuses_a_damaged_tokenizer() {
        let error = Tokenizer::from_bytes(b"{\"version\": ").err().unwrap();
        assert!(error.to_string().contains("cannot be read"), "{error}");
    }
}
