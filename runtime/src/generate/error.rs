use crate::device::DeviceError;

/// Why no text could be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The artifact was compiled from a checkpoint without `tokenizer.json`.
    #[error(
        "the artifact holds no tokenizer\nhelp: put tokenizer.json beside the checkpoint's config.json and compile again, or work with token ids (nemoc logits)"
    )]
    NoTokenizer,

    /// The tokenizer could not be read.
    #[error(
        "the tokenizer of the artifact cannot be read: {message}\nhelp: is the checkpoint's tokenizer.json complete? compile again"
    )]
    BadTokenizer {
        /// What the tokenizer library said.
        message: String,
    },

    /// The tokenizer failed on a text.
    #[error("the text cannot be tokenized: {message}\nhelp: check its encoding")]
    Encode {
        /// What the tokenizer library said.
        message: String,
    },

    /// A prompt without tokens.
    #[error("the prompt is empty\nhelp: give at least one word")]
    EmptyPrompt,

    /// A sampling parameter out of its range.
    #[error("{name} is {value}, expected {expected}\nhelp: --temperature 0 alone takes the likeliest token")]
    BadSampling {
        /// The parameter, as on the command line.
        name: &'static str,
        /// What was given.
        value: f64,
        /// Its range.
        expected: &'static str,
    },

    /// A text with fewer tokens than an evaluation needs.
    #[error("the text has {tokens} tokens, one window needs {window}\nhelp: use a longer text or a smaller window")]
    TextTooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a window.
        window: usize,
    },

    /// Two models that cannot be compared.
    #[error(
        "the reference knows {reference} token ids, the model {model}\nhelp: compare models of the same checkpoint"
    )]
    DifferentVocabularies {
        /// Ids of the reference.
        reference: usize,
        /// Ids of the model.
        model: usize,
    },

    /// A file could not be read or written.
    #[error("{path}: {source}\nhelp: check that the path exists and that you may access it")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },

    /// The device refused or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
