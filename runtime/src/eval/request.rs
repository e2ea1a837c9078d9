use super::document::Pair;
use crate::generate::{GenerateError, Tokenizer};

/// A pair as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Context and continuation.
    pub tokens: Vec<u32>,
    /// Where the continuation begins; at least 1.
    pub split: usize,
}

impl Request {
    /// The tokens that the model reads: all but the last.
    pub fn input(&self) -> &[u32] {
        &self.tokens[..self.tokens.len() - 1]
    }

    /// The tokens to predict.
    pub fn continuation(&self) -> &[u32] {
        &self.tokens[self.split..]
    }

    /// Cuts the context from the left until a model of this context length can read it. Returns the tokens cut.
    pub fn truncate(&mut self, max_length: usize) -> usize {
        let cut = self.tokens.len().saturating_sub(max_length + 1).min(self.split - 1);
        self.tokens.drain(..cut);
        self.split -= cut;
        cut
    }
}

/// Tokenizes as the harness does: white space at the end of the context moves to the continuation, the context is
/// tokenized alone, and the continuation is what both tokenized as one text have after as many tokens. The tokenizer
/// decides about special tokens in both.
///
/// Returns `None` when nothing is left of the continuation.
pub fn encode_pair(tokenizer: &Tokenizer, pair: &Pair) -> Result<Option<Request>, GenerateError> {
    let context = pair.context.trim_end_matches(is_space);
    let whole = tokenizer.encode(&format!("{}{}", pair.context, pair.continuation))?;
    let mut tokens = tokenizer.encode(context)?;
    let split = tokens.len();
    if split == 0 || split >= whole.len() {
        return Ok(None);
    }
    tokens.extend_from_slice(&whole[split..]);
    Ok(Some(Request { tokens, split }))
}

/// Python's `str.isspace`, which `rstrip` goes by: Unicode white space and four separators.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words with the space before them are one token each; `<s>` begins a text.
    fn words() -> Tokenizer {
        words_with("ba")
    }

    /// Also knows a word of two letters.
    fn words_with(word: &str) -> Tokenizer {
        let vocab = ["<s>", "a", "b", "Ġb", "Ġ", "Ġa", word];
        let vocab = vocab.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
        let merges = [["Ġ", "b"], ["Ġ", "a"], [&word[..1], &word[1..]]];
        Tokenizer::of_bytes(vocab, &merges)
    }

    fn encode(context: &str, continuation: &str) -> Option<Request> {
        let pair = Pair { context: context.into(), continuation: continuation.into() };
        encode_pair(&words(), &pair).unwrap()
    }

    #[test]
    fn a_continuation_follows_the_tokens_of_its_context() {
        let request = encode("a b", " b").unwrap();
        assert_eq!((request.tokens.as_slice(), request.split), (&[0, 1, 3, 3][..], 3));
    }

    #[test]
    fn space_at_the_end_of_a_context_belongs_to_the_continuation() {
        let request = encode("a ", "b").unwrap();
        assert_eq!((request.tokens.as_slice(), request.split), (&[0, 1, 3][..], 2));
        assert!(is_space('\u{1f}') && is_space('\u{a0}') && !is_space('\u{200b}'));
    }

    #[test]
    fn a_token_across_the_border_stays_out_of_the_context() {
        let mut pair = Pair { context: "a".into(), continuation: "b b".into() };
        let tokenizer = words_with("ab");
        let request = encode_pair(&tokenizer, &pair).unwrap().unwrap();
        assert_eq!((request.tokens.as_slice(), request.split), (&[0, 1, 3][..], 2));
        pair.continuation = "b".into();
        assert_eq!(encode_pair(&tokenizer, &pair).unwrap(), None);
    }

    #[test]
    fn a_continuation_without_tokens_cannot_be_scored() {
        assert_eq!(encode("a", ""), None);
    }

    #[test]
    fn truncation_keeps_the_end() {
        let mut request = Request { tokens: vec![9, 1, 2, 3, 4], split: 3 };
        assert_eq!(request.truncate(3), 1);
        assert_eq!((request.tokens.as_slice(), request.split), (&[1, 2, 3, 4][..], 2));
        assert_eq!(request.truncate(8), 0);
    }
}
