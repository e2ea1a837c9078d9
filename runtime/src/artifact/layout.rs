use super::{CHECKSUMS_TENSOR, Checksums, DATA_ALIGN, MAX_HEADER_BYTES};
use crate::plan::DType;
use std::collections::BTreeMap;
use std::ops::Range;

/// Name, element type and shape of a stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Unique in the artifact.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Size in bytes; `None` when it does not fit an address.
    pub fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.bytes(), |product, &dim| product.checked_mul(dim))
    }
}

/// A tensor and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The tensor.
    pub spec: TensorSpec,
    /// Its first byte, counted from the start of the file.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

impl Placed {
    /// Its bytes in the file.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes
    }
}

/// Why tensors cannot be laid out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Two tensors have one name.
    #[error("two tensors are called `{name}`\nhelp: names in an artifact are unique")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The name has a meaning of its own.
    #[error("the tensor name `{name}` is reserved\nhelp: choose another name")]
    Reserved {
        /// The name.
        name: String,
    },
    /// More bytes than a file can hold.
    #[error("tensor `{name}` of shape {shape:?} does not fit a file\nhelp: is the model's config right?")]
    TooLarge {
        /// The tensor that exceeded it.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Readers of safetensors refuse such a header.
    #[error(
        "the header has {bytes} bytes, safetensors readers accept {MAX_HEADER_BYTES}\n\
         help: the plan or the recipe is too large"
    )]
    HeaderTooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// The header of an artifact and the place of every tensor, known before any tensor is.
///
/// The format allows no gaps, so alignment comes from the order: tensors are sorted by the largest power of two
/// (up to 256) that divides their size, hence each begins at a multiple of that power.
#[derive(Clone, Debug)]
pub struct Layout {
    prefix: Vec<u8>,
    tensors: Vec<Placed>,
    file_bytes: u64,
}

impl Layout {
    /// Places tensors, and after them [`CHECKSUMS_TENSOR`].
    ///
    /// # Errors
    /// On duplicate or reserved names, and on sizes beyond what a file holds.
    pub fn new(
        metadata: &BTreeMap<String, String>,
        specs: impl IntoIterator<Item = TensorSpec>,
    ) -> Result<Self, LayoutError> {
        let mut specs: Vec<TensorSpec> = specs.into_iter().collect();
        check_names(&specs)?;
        let checksum_bytes = Checksums::rendered_len(specs.iter().map(|spec| spec.name.as_str()));
        specs.sort_by_key(|spec| std::cmp::Reverse(alignment(spec)));
        specs.push(TensorSpec { name: CHECKSUMS_TENSOR.into(), dtype: DType::U8, shape: vec![checksum_bytes] });
        let mut tensors = place(specs)?;
        let prefix = render_prefix(metadata, &tensors)?;
        let data_start = prefix.len() as u64;
        for tensor in &mut tensors {
            tensor.offset += data_start;
        }
        let file_bytes = tensors.last().map_or(data_start, |last| last.range().end);
        Ok(Layout { prefix, tensors, file_bytes })
    }

    /// Everything before the tensors.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The tensors in file order; the last is [`CHECKSUMS_TENSOR`].
    pub fn tensors(&self) -> &[Placed] {
        &self.tensors
    }

    /// Size of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

fn check_names(specs: &[TensorSpec]) -> Result<(), LayoutError> {
    let mut seen = std::collections::BTreeSet::new();
    for TensorSpec { name, .. } in specs {
        if name == CHECKSUMS_TENSOR || name == "__metadata__" {
            return Err(LayoutError::Reserved { name: name.clone() });
        }
        if !seen.insert(name) {
            return Err(LayoutError::Duplicate { name: name.clone() });
        }
    }
    Ok(())
}

fn alignment(spec: &TensorSpec) -> usize {
    let bytes = spec.bytes().unwrap_or(0);
    1 << (bytes | DATA_ALIGN).trailing_zeros()
}

/// Offsets from the first byte of tensor data.
fn place(specs: Vec<TensorSpec>) -> Result<Vec<Placed>, LayoutError> {
    /// Leaves room for the header below the largest file offset.
    const MAX_DATA_BYTES: u64 = i64::MAX as u64 - MAX_HEADER_BYTES as u64 * 2;
    let mut end = 0u64;
    let mut placed = Vec::with_capacity(specs.len());
    for spec in specs {
        let bytes = spec.bytes().map(|bytes| bytes as u64);
        let next = bytes.and_then(|bytes| end.checked_add(bytes)).filter(|&next| next <= MAX_DATA_BYTES);
        let Some(next) = next else {
            return Err(LayoutError::TooLarge { name: spec.name, shape: spec.shape });
        };
        placed.push(Placed { spec, offset: end, bytes: next - end });
        end = next;
    }
    Ok(placed)
}

fn render_prefix(metadata: &BTreeMap<String, String>, tensors: &[Placed]) -> Result<Vec<u8>, LayoutError> {
    let mut header = format!("{{\"__metadata__\":{}", serde_json::json!(metadata));
    for tensor in tensors {
        header.push_str(&format!(
            ",{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}",
            serde_json::json!(tensor.spec.name),
            super::header::dtype_name(tensor.spec.dtype),
            serde_json::json!(tensor.spec.shape),
            tensor.offset,
            tensor.offset + tensor.bytes,
        ));
    }
    header.push('}');
    let padded = (8 + header.len()).next_multiple_of(DATA_ALIGN) - 8;
    if padded > MAX_HEADER_BYTES {
        return Err(LayoutError::HeaderTooLarge { bytes: padded });
    }
    let mut prefix = Vec::with_capacity(8 + padded);
    prefix.extend_from_slice(&(padded as u64).to_le_bytes());
    prefix.extend_from_slice(header.as_bytes());
    prefix.resize(8 + padded, b' ');
    Ok(prefix)
}
