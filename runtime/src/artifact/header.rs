//! The safetensors header, read without trust.

use super::{ArtifactError, MAX_HEADER_BYTES};
use crate::plan::DType;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// A parsed and checked header.
#[derive(Debug)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, Entry>,
    /// Where tensor data begins.
    pub data_start: usize,
}

/// Where a tensor lies in the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub range: Range<usize>,
}

#[derive(Deserialize)]
struct RawHeader {
    #[serde(rename = "__metadata__", default)]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, RawEntry>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

pub(super) fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::Bf16 => "BF16",
        DType::I8 => "I8",
        DType::U8 => "U8",
        DType::I32 => "I32",
    }
}

fn parse_dtype(name: &str) -> Option<DType> {
    use DType::{Bf16, F16, F32, I8, I32, U8};
    [F32, F16, Bf16, I8, U8, I32].into_iter().find(|&dtype| dtype_name(dtype) == name)
}

/// Parses the header at the start of `file` and checks it against the length of the file.
pub(super) fn parse(file: &[u8]) -> Result<Header, ArtifactError> {
    let json = json_bytes(file)?;
    let data_start = 8 + json.len();
    let raw: RawHeader = serde_json::from_slice(json)
        .map_err(|error| ArtifactError::malformed(format!("its header is no safetensors header: {error}")))?;
    match raw.metadata.get("format").map(String::as_str) {
        Some("nemo") => {}
        Some(other) => {
            return Err(ArtifactError::not_an_artifact(format!("this is a safetensors file of format `{other}`")));
        }
        None => {
            return Err(ArtifactError::not_an_artifact("this is a safetensors file without nemo metadata"));
        }
    }
    let tensors = place(raw.tensors, data_start)?;
    Ok(Header { metadata: raw.metadata, tensors, data_start })
}

fn json_bytes(file: &[u8]) -> Result<&[u8], ArtifactError> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(ArtifactError::not_an_artifact(format!("the file has only {} bytes", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    let looks_right = rest.first() == Some(&b'{') && length <= MAX_HEADER_BYTES as u64;
    if !looks_right {
        return Err(ArtifactError::not_an_artifact("the file does not begin with a safetensors header"));
    }
    rest.get(..length as usize).ok_or(ArtifactError::Truncated { expected: 8 + length, found: file.len() as u64 })
}

fn place(raw: BTreeMap<String, RawEntry>, data_start: usize) -> Result<BTreeMap<String, Entry>, ArtifactError> {
    let mut tensors = BTreeMap::new();
    for (name, entry) in raw {
        let bad = |why: String| ArtifactError::malformed(format!("tensor `{name}` {why}"));
        let dtype =
            parse_dtype(&entry.dtype).ok_or_else(|| bad(format!("has the unknown element type {:?}", entry.dtype)))?;
        let (begin, end) = entry.data_offsets;
        let wanted = entry.shape.iter().try_fold(dtype.bytes(), |product, &dim| product.checked_mul(dim));
        if wanted.is_none() || end.checked_sub(begin) != wanted {
            return Err(bad(format!("of shape {:?} and type {dtype} claims the bytes {begin}..{end}", entry.shape)));
        }
        let (Some(begin), Some(end)) = (data_start.checked_add(begin), data_start.checked_add(end)) else {
            return Err(bad("lies beyond any file".into()));
        };
        if begin % dtype.bytes() != 0 {
            return Err(bad(format!("of type {dtype} begins at byte {begin}, which is not aligned")));
        }
        tensors.insert(name, Entry { dtype, shape: entry.shape, range: begin..end });
    }
    Ok(tensors)
}

impl Header {
    /// Checks that the tensors cover the rest of the file exactly once.
    pub(super) fn check_coverage(&self, file_bytes: usize) -> Result<(), ArtifactError> {
        let mut ranges: Vec<(&Range<usize>, &str)> =
            self.tensors.iter().map(|(name, entry)| (&entry.range, name.as_str())).collect();
        ranges.sort_by_key(|(range, _)| (range.start, range.end));
        let mut end = self.data_start;
        for (range, name) in ranges {
            if range.start != end {
                let what = if range.start < end { "overlaps" } else { "leaves a gap after" };
                return Err(ArtifactError::malformed(format!("tensor `{name}` {what} the tensor before it")));
            }
            end = range.end;
        }
        if file_bytes < end {
            return Err(ArtifactError::Truncated { expected: end as u64, found: file_bytes as u64 });
        }
        if file_bytes > end {
            return Err(ArtifactError::malformed(format!("{} bytes follow the last tensor", file_bytes - end)));
        }
        Ok(())
    }
}
