//! The header of a safetensors file, checked more strictly than the `safetensors` crate does.
//!
//! A file is an 8-byte little-endian length N, N bytes of JSON, then the data. The crate's `TensorInfo` and `Dtype` do
//! the parsing of one entry; here every offset is checked against the file, and messages name the tensor, so that a
//! damaged file is told from a truncated one.

use crate::error::{CheckpointError, Place};
use safetensors::tensor::TensorInfo;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of the length field.
const LENGTH_BYTES: usize = 8;
/// As in the `safetensors` crate: no honest header is larger.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The checked header of one file.
#[derive(Clone, Debug)]
pub struct Header {
    /// Where the JSON is in the file.
    pub json: Range<usize>,
    /// What is in the file.
    pub tensors: BTreeMap<String, Entry>,
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Element type.
    pub dtype: safetensors::Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Where its bytes are in the file.
    pub range: Range<usize>,
}

impl Header {
    /// Parses and checks the header of a file; `bytes` is the whole file (only the header is read), `file` its name in
    /// messages.
    ///
    /// # Errors
    /// When the header is not one, or a tensor's place in the file makes no sense.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Header, CheckpointError> {
        let json = json_range(bytes, file)?;
        let Infos(infos) = serde_json::from_slice(&bytes[json.clone()]).map_err(|error| CheckpointError::Header {
            file: file.to_owned(),
            reason: error.to_string(),
            help: "download the file again",
        })?;
        let mut tensors = BTreeMap::new();
        for (name, info) in infos {
            let range = data_range(&info, json.end, bytes.len())
                .map_err(|reason| CheckpointError::Layout { place: Place::new(file, name.as_str()), reason })?;
            let entry = Entry { dtype: info.dtype, shape: info.shape, range };
            tensors.insert(name, entry);
        }
        check_contiguous(&tensors, json.end, bytes.len(), file)?;
        Ok(Header { json, tensors })
    }
}

/// Where the JSON of the header is.
fn json_range(bytes: &[u8], file: &str) -> Result<Range<usize>, CheckpointError> {
    let header = |reason: String, help| CheckpointError::Header { file: file.to_owned(), reason, help };
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(header(
            format!("the file has {} bytes, too few for a header", bytes.len()),
            "the file is truncated; download it again",
        ));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(header(
            format!("it claims {length} bytes, more than the {MAX_HEADER_BYTES} allowed"),
            "is this a safetensors file? a Git LFS pointer or a PyTorch file is not one",
        ));
    }
    if length > rest.len() as u64 {
        return Err(header(
            format!("it claims {length} bytes, but only {} follow", rest.len()),
            "the file is truncated; download it again",
        ));
    }
    // Fits: it is at most the length of a slice.
    Ok(LENGTH_BYTES..LENGTH_BYTES + length as usize)
}

/// The place of a tensor in the file, checked against its shape and the file's end.
fn data_range(info: &TensorInfo, data: usize, file_bytes: usize) -> Result<Range<usize>, String> {
    let (start, end) = info.data_offsets;
    if start > end {
        return Err(format!("data offsets [{start}, {end}] run backwards"));
    }
    let bits = info
        .shape
        .iter()
        .try_fold(info.dtype.bitsize(), |bits, &n| bits.checked_mul(n))
        .ok_or_else(|| format!("shape {:?} overflows", info.shape))?;
    if bits != (end - start).saturating_mul(8) {
        return Err(format!(
            "shape {:?} of {} needs {} bytes, but data offsets [{start}, {end}] give {}",
            info.shape,
            info.dtype,
            bits.div_ceil(8),
            end - start
        ));
    }
    match data.checked_add(end) {
        Some(absolute) if absolute <= file_bytes => Ok(data + start..absolute),
        _ => Err(format!(
            "data offsets [{start}, {end}] reach beyond the end of the file, which holds {} bytes of data",
            file_bytes - data
        )),
    }
}

/// Tensors must cover the data without overlap, gap or rest.
fn check_contiguous(
    tensors: &BTreeMap<String, Entry>,
    data: usize,
    file_bytes: usize,
    file: &str,
) -> Result<(), CheckpointError> {
    let mut by_place: Vec<(&String, &Range<usize>)> =
        tensors.iter().map(|(name, entry)| (name, &entry.range)).collect();
    by_place.sort_by_key(|(_, range)| (range.start, range.end));
    let (mut end, mut last) = (data, "the header");
    for (name, range) in by_place {
        let layout = |reason: String| CheckpointError::Layout { place: Place::new(file, name.as_str()), reason };
        if range.start < end {
            let reason = format!("the tensor overlaps {last} by {} bytes", end - range.start);
            return Err(layout(reason));
        }
        if range.start > end {
            let reason = format!("a gap of {} bytes lies between {last} and the tensor", range.start - end);
            return Err(layout(reason));
        }
        (end, last) = (range.end, name.as_str());
    }
    if end != file_bytes {
        return Err(CheckpointError::Header {
            file: file.to_owned(),
            reason: format!("{} bytes after {last} belong to no tensor", file_bytes - end),
            help: "the file is damaged; download it again",
        });
    }
    Ok(())
}

/// The entries of a header; a name that occurs twice is an error, `__metadata__` is skipped.
struct Infos(BTreeMap<String, TensorInfo>);

impl<'de> serde::Deserialize<'de> for Infos {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Infos, D::Error> {
        deserializer.deserialize_map(InfosVisitor)
    }
}

struct InfosVisitor;

impl<'de> Visitor<'de> for InfosVisitor {
    type Value = Infos;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with one entry a tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Infos, A::Error> {
        let mut infos = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let info = map.next_value()?;
            if infos.insert(name.clone(), info).is_some() {
                return Err(A::Error::custom(format!("the tensor {name:?} is listed twice")));
            }
        }
        Ok(Infos(infos))
    }
}
