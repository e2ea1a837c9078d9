/// Why a plan cannot be executed.
///
/// `at` says where: `launch 3 (layers.0.mixer.in_proj)`, or the part of the plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Written by a newer compiler.
    #[error(
        "the plan has format version {found}, this build reads up to {newest}\nhelp: update nemoc, or compile the model again with this version"
    )]
    Version {
        /// Version of the plan.
        found: u32,
        /// Newest version known.
        newest: u32,
    },

    /// A buffer or state id that is not in the plan's tables.
    #[error("{at} uses {what} {id}, the plan has {count}\nhelp: {DAMAGED}")]
    UnknownId {
        /// Where.
        at: String,
        /// `buffer` or `state`.
        what: &'static str,
        /// The offending id.
        id: u32,
        /// Number of entries of the table.
        count: usize,
    },

    /// A buffer, state or tensor that is not what a kernel takes.
    #[error("{at}: {what} is {found}, expected {expected}\nhelp: {DAMAGED}")]
    Mismatch {
        /// Where.
        at: String,
        /// What, with its name.
        what: String,
        /// What the kernel takes.
        expected: String,
        /// What the plan or the artifact holds.
        found: String,
    },

    /// A tensor that the artifact does not hold.
    #[error("{at}: tensor {tensor} is missing\nhelp: {DAMAGED}")]
    MissingTensor {
        /// Where.
        at: String,
        /// Its name.
        tensor: String,
    },

    /// A buffer that is read before any launch wrote it.
    #[error("{at} reads buffer {buffer} before any launch has written it\nhelp: {DAMAGED}")]
    Uninitialized {
        /// Where.
        at: String,
        /// Name of the buffer.
        buffer: String,
    },

    /// A buffer or state used twice where that is not allowed.
    #[error("{at}: {what} is used twice\nhelp: {DAMAGED}")]
    Aliased {
        /// Where.
        at: String,
        /// What, with its name.
        what: String,
    },

    /// A number that makes no sense.
    #[error("{at}: {problem}\nhelp: {DAMAGED}")]
    Invalid {
        /// Where.
        at: String,
        /// What is wrong.
        problem: String,
    },
}

const DAMAGED: &str = "the artifact is damaged or was not written by nemoc; compile the model again";
