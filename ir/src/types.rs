//! The types of the dialect as Rust values.
//!
//! IRDL gives `!nemo.*` types parameters but MLIR's C interface cannot read them back, so a type is read by parsing
//! its text, which IRDL has already checked. [`NemoType::parse`] and [`NemoType`]'s `Display` are inverses.

use crate::weights::FloatType;
use melior::{Context, ir::Type};
use std::fmt;

/// The basis of an activation that was never rotated.
pub const PLAIN: &str = "plain";

/// Groups of 4-bit weights are a multiple of this many columns: the nibbles of so many are packed together.
pub const GROUP_ALIGN: usize = 32;

/// How the elements of a value are stored, signedness included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Packed signed 4-bit integers.
    I4,
    /// Signed 8-bit integers.
    I8,
    /// Unsigned 8-bit integers.
    U8,
    /// 32-bit accumulators.
    I32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
}

/// Every storage with its MLIR spelling.
pub(crate) const STORAGES: [(Storage, &str); 7] = [
    (Storage::I4, "i4"),
    (Storage::I8, "i8"),
    (Storage::U8, "ui8"),
    (Storage::I32, "i32"),
    (Storage::F16, "f16"),
    (Storage::Bf16, "bf16"),
    (Storage::F32, "f32"),
];

impl Storage {
    /// Size of one element in bits.
    pub const fn bits(self) -> u64 {
        match self {
            Storage::I4 => 4,
            Storage::I8 | Storage::U8 => 8,
            Storage::F16 | Storage::Bf16 => 16,
            Storage::I32 | Storage::F32 => 32,
        }
    }

    /// Whether values are floating point, hence carry no scale.
    pub const fn is_float(self) -> bool {
        matches!(self, Storage::F16 | Storage::Bf16 | Storage::F32)
    }

    /// The element type of a checkpoint tensor, for float storages.
    pub const fn float_type(self) -> Option<FloatType> {
        match self {
            Storage::F32 => Some(FloatType::F32),
            Storage::F16 => Some(FloatType::F16),
            Storage::Bf16 => Some(FloatType::Bf16),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        STORAGES.iter().find(|(_, name)| *name == text).map(|(storage, _)| *storage)
    }
}

impl From<FloatType> for Storage {
    fn from(float: FloatType) -> Self {
        match float {
            FloatType::F32 => Storage::F32,
            FloatType::F16 => Storage::F16,
            FloatType::Bf16 => Storage::Bf16,
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = STORAGES.iter().find(|(storage, _)| storage == self).expect("every storage is listed");
        f.write_str(name)
    }
}

/// What shares one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// Floats: no scale.
    None,
    /// An activation scale per token.
    Token,
    /// Accumulators: the activation's scale per token times the weight's per channel.
    TokenChannel,
    /// A weight scale per output channel.
    Channel,
    /// An f16 weight scale per group of this many inputs.
    Group(usize),
    /// An f32 scale per output channel times an integer per group of this many inputs.
    TwoLevel(usize),
}

impl Granularity {
    fn parse(text: &str) -> Option<Self> {
        let sized = |prefix: &str| {
            let digits = text.strip_prefix(prefix)?;
            let canonical = digits.starts_with(|c: char| ('1'..='9').contains(&c));
            digits.parse().ok().filter(|_| canonical)
        };
        Some(match text {
            "none" => Granularity::None,
            "token" => Granularity::Token,
            "token_channel" => Granularity::TokenChannel,
            "channel" => Granularity::Channel,
            _ => match sized("group_") {
                Some(n) => Granularity::Group(n),
                None => Granularity::TwoLevel(sized("two_level_")?),
            },
        })
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Granularity::None => f.write_str("none"),
            Granularity::Token => f.write_str("token"),
            Granularity::TokenChannel => f.write_str("token_channel"),
            Granularity::Channel => f.write_str("channel"),
            Granularity::Group(n) => write!(f, "group_{n}"),
            Granularity::TwoLevel(n) => write!(f, "two_level_{n}"),
        }
    }
}

/// An activation `[tokens, cols]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Act {
    /// Columns.
    pub cols: usize,
    /// Element storage.
    pub storage: Storage,
    /// What shares a scale.
    pub granularity: Granularity,
    /// [`PLAIN`], or the name of the rotation it lives in.
    pub basis: String,
}

impl Act {
    /// A float activation in the plain basis.
    pub fn f32(cols: usize) -> Self {
        Self { cols, storage: Storage::F32, granularity: Granularity::None, basis: PLAIN.into() }
    }

    /// The same activation in another basis.
    pub fn in_basis(&self, basis: &str) -> Self {
        Self { basis: basis.into(), ..self.clone() }
    }

    /// The same activation stored otherwise.
    pub fn stored_as(&self, storage: Storage, granularity: Granularity) -> Self {
        Self { storage, granularity, ..self.clone() }
    }

    /// Whether it is stored in 8 bits with a scale per token.
    pub fn is_quantized(&self) -> bool {
        self.granularity == Granularity::Token
    }
}

/// A weight `[rows, cols]` = `[out_features, in_features]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Weight {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Element storage.
    pub storage: Storage,
    /// What shares a scale.
    pub granularity: Granularity,
    /// The basis its input must live in.
    pub basis_in: String,
    /// The basis its output lives in.
    pub basis_out: String,
}

/// A parameter vector: a norm weight, a bias, a per-head constant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vector {
    /// Elements.
    pub len: usize,
    /// Element storage.
    pub storage: Storage,
}

/// Memory that lives as long as a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StateType {
    /// `conv`, `ssm` or `kv`.
    pub kind: String,
    /// Elements of a sequence; of one token, keys or values, for `kv`.
    pub elements: usize,
    /// Element storage. In i8, the elements of a head (`kv`) or of a row of the state (`ssm`) share a scale.
    pub storage: Storage,
}

/// Memory of one step in a planned module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BufferType {
    /// Elements a row.
    pub cols: usize,
    /// Element storage.
    pub storage: Storage,
    /// `token` or `output`.
    pub rows: String,
}

/// A type of the nemo dialect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NemoType {
    /// `!nemo.tokens`: the token ids of a step, any number of sequences.
    Tokens,
    /// `!nemo.act<cols, storage, granularity, basis>`.
    Act(Act),
    /// `!nemo.matrix<rows, cols, storage, granularity, basis_in, basis_out>`.
    Weight(Weight),
    /// `!nemo.vector<len, storage>`.
    Vector(Vector),
    /// `!nemo.state<kind, elements, storage>`.
    State(StateType),
    /// `!nemo.buffer<cols, storage, rows>`.
    Buffer(BufferType),
}

impl NemoType {
    /// Reads a type back from MLIR; `None` for types of other dialects.
    pub fn of(r#type: Type<'_>) -> Option<Self> {
        Self::parse(&crate::border::type_text(r#type))
    }

    /// Parses the MLIR text of a type; `None` when it is no type of the dialect.
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text).ok()
    }

    /// Parses the MLIR text of a type, or says what is wrong with it.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let no_type = || format!("{text} is no type of the nemo dialect");
        let spelled = text.strip_prefix("!nemo.").ok_or_else(no_type)?;
        if spelled == "tokens" {
            return Ok(NemoType::Tokens);
        }
        let (mnemonic, rest) = spelled.split_once('<').ok_or_else(no_type)?;
        let mut parameters = Parameters(rest.strip_suffix('>').ok_or_else(no_type)?.split(','));
        let parsed = parameters.read(mnemonic).map_err(|problem| format!("{text}: {problem}"))?.ok_or_else(no_type)?;
        if parameters.0.next().is_some() { Err(format!("{text}: too many parameters")) } else { Ok(parsed) }
    }

    /// The MLIR type.
    ///
    /// # Panics
    /// When the dialect is not loaded into `context`: a bug in the compiler.
    pub fn to_mlir<'c>(&self, context: &'c Context) -> Type<'c> {
        Type::parse(context, &self.to_string()).unwrap_or_else(|| panic!("bug: MLIR refuses the type {self}"))
    }
}

/// The comma-separated parameters of a type, read left to right.
struct Parameters<'t>(std::str::Split<'t, char>);

impl Parameters<'_> {
    /// The type of this mnemonic; `None` for one that the dialect does not have.
    fn read(&mut self, mnemonic: &str) -> Result<Option<NemoType>, String> {
        Ok(Some(match mnemonic {
            "act" => NemoType::Act(Act {
                cols: self.size("cols")?,
                storage: self.storage()?,
                granularity: self.granularity()?,
                basis: self.string("basis")?,
            }),
            "matrix" => NemoType::Weight(Weight {
                rows: self.size("rows")?,
                cols: self.size("cols")?,
                storage: self.storage()?,
                granularity: self.granularity()?,
                basis_in: self.string("basis_in")?,
                basis_out: self.string("basis_out")?,
            }),
            "vector" => NemoType::Vector(Vector { len: self.size("len")?, storage: self.storage()? }),
            "state" => NemoType::State(StateType {
                kind: self.string("kind")?,
                elements: self.size("elements")?,
                storage: self.storage()?,
            }),
            "buffer" => NemoType::Buffer(BufferType {
                cols: self.size("cols")?,
                storage: self.storage()?,
                rows: self.string("rows")?,
            }),
            _ => return Ok(None),
        }))
    }

    fn next(&mut self, name: &str) -> Result<&str, String> {
        self.0.next().map(str::trim).ok_or_else(|| format!("{name} is missing"))
    }

    fn size(&mut self, name: &str) -> Result<usize, String> {
        let text = self.next(name)?;
        let number = text.strip_suffix(": i64").map(str::trim);
        number.and_then(|number| number.parse().ok()).ok_or_else(|| format!("{name} is {text}, expected a size"))
    }

    fn storage(&mut self) -> Result<Storage, String> {
        let text = self.next("storage")?;
        Storage::parse(text).ok_or_else(|| format!("storage is {text}"))
    }

    fn string(&mut self, name: &str) -> Result<String, String> {
        let text = self.next(name)?;
        let word = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).filter(|word| is_word(word));
        word.map(str::to_owned).ok_or_else(|| format!("{name} is {text}, expected a word of [A-Za-z0-9_.-]"))
    }

    fn granularity(&mut self) -> Result<Granularity, String> {
        let word = self.string("granularity")?;
        Granularity::parse(&word).ok_or_else(|| {
            format!("granularity is \"{word}\", expected none, token, token_channel, channel, group_N or two_level_N")
        })
    }
}

/// Whether text can stand in a type: it is not empty and has no character that the type's syntax gives a meaning.
pub(crate) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

impl fmt::Display for NemoType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NemoType::Tokens => f.write_str("!nemo.tokens"),
            NemoType::Act(a) => {
                write!(f, "!nemo.act<{} : i64, {}, \"{}\", \"{}\">", a.cols, a.storage, a.granularity, a.basis)
            }
            NemoType::Weight(w) => write!(
                f,
                "!nemo.matrix<{} : i64, {} : i64, {}, \"{}\", \"{}\", \"{}\">",
                w.rows, w.cols, w.storage, w.granularity, w.basis_in, w.basis_out
            ),
            NemoType::Vector(v) => write!(f, "!nemo.vector<{} : i64, {}>", v.len, v.storage),
            NemoType::State(s) => s.fmt(f),
            NemoType::Buffer(b) => write!(f, "!nemo.buffer<{} : i64, {}, \"{}\">", b.cols, b.storage, b.rows),
        }
    }
}

impl fmt::Display for StateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "!nemo.state<\"{}\", {} : i64, {}>", self.kind, self.elements, self.storage)
    }
}
