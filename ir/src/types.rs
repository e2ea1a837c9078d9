//! The types of the dialect as Rust values.
//!
//! IRDL gives `!nemo.*` types parameters but MLIR's C interface cannot read them back, so a type is read by parsing
//! its text, which IRDL has already checked. [`NemoType::parse`] and [`NemoType`]'s `Display` are inverses.

use crate::weights::FloatType;
use melior::{Context, ir::Type};
use std::fmt;

/// The basis of an activation that was never rotated.
pub const PLAIN: &str = "plain";

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
        let sized = |prefix: &str| text.strip_prefix(prefix).and_then(|n| n.parse().ok()).filter(|n| *n > 0);
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
    /// Element storage.
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

    /// Parses the MLIR text of a type.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("!nemo.")?;
        if text == "tokens" {
            return Some(NemoType::Tokens);
        }
        let (mnemonic, rest) = text.split_once('<')?;
        let mut parameters = Parameters(rest.strip_suffix('>')?.split(','));
        let parsed = match mnemonic {
            "act" => NemoType::Act(Act {
                cols: parameters.size()?,
                storage: parameters.storage()?,
                granularity: parameters.granularity()?,
                basis: parameters.string()?,
            }),
            "matrix" => NemoType::Weight(Weight {
                rows: parameters.size()?,
                cols: parameters.size()?,
                storage: parameters.storage()?,
                granularity: parameters.granularity()?,
                basis_in: parameters.string()?,
                basis_out: parameters.string()?,
            }),
            "vector" => NemoType::Vector(Vector { len: parameters.size()?, storage: parameters.storage()? }),
            "state" => NemoType::State(StateType {
                kind: parameters.string()?,
                elements: parameters.size()?,
                storage: parameters.storage()?,
            }),
            "buffer" => NemoType::Buffer(BufferType {
                cols: parameters.size()?,
                storage: parameters.storage()?,
                rows: parameters.string()?,
            }),
            _ => return None,
        };
        parameters.0.next().is_none().then_some(parsed)
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
    fn size(&mut self) -> Option<usize> {
        self.0.next()?.trim().strip_suffix(": i64")?.trim().parse().ok()
    }

    fn storage(&mut self) -> Option<Storage> {
        Storage::parse(self.0.next()?.trim())
    }

    fn string(&mut self) -> Option<String> {
        Some(self.0.next()?.trim().strip_prefix('"')?.strip_suffix('"')?.to_owned())
    }

    fn granularity(&mut self) -> Option<Granularity> {
        Granularity::parse(&self.string()?)
    }
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
            NemoType::State(s) => write!(f, "!nemo.state<\"{}\", {} : i64, {}>", s.kind, s.elements, s.storage),
            NemoType::Buffer(b) => write!(f, "!nemo.buffer<{} : i64, {}, \"{}\">", b.cols, b.storage, b.rows),
        }
    }
}
