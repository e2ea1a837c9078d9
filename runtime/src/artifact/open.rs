use super::header::{self, Entry, Header};
use super::metadata::{self, Metadata, Provenance};
use super::{ArtifactError, CHECKSUMS_TENSOR, Checksums, TOKENIZER_TENSOR};
use crate::plan::Plan;
use crate::tensors::{TensorStore, TensorView};
use memmap2::Mmap;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// How much of an artifact is compared with its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Every byte, on all cores.
    Full,
    /// The header and the table of checksums; tensors are not read.
    HeaderOnly,
}

/// An open artifact. Tensors are mapped, not read.
#[derive(Debug)]
pub struct Artifact {
    bytes: Backing,
    metadata: Metadata,
    tensors: BTreeMap<String, Entry>,
    checksums: Checksums,
}

#[derive(Debug)]
enum Backing {
    Mapped(Mmap),
    /// 16-byte words, so that tensors are as aligned as in a mapping.
    Owned {
        words: Vec<u128>,
        len: usize,
    },
}

impl Backing {
    fn as_slice(&self) -> &[u8] {
        match self {
            Backing::Mapped(map) => map,
            Backing::Owned { words, len } => &bytemuck::cast_slice(words)[..*len],
        }
    }
}

impl Artifact {
    /// Maps a file and checks it.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a complete, unaltered artifact that this build understands.
    pub fn open(path: impl AsRef<Path>, verify: Verify) -> Result<Self, ArtifactError> {
        let path = path.as_ref();
        let io = |source| ArtifactError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            return Err(ArtifactError::not_an_artifact("the file is empty"));
        }
        // SAFETY: The mapping is private and read-only. Artifacts are replaced by rename, never written in place; a
        // process that truncates one under us makes a later read fault, as with any mapped file.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Self::from_backing(Backing::Mapped(map), verify)
    }

    /// Checks an artifact that is in memory.
    ///
    /// # Errors
    /// As [`Artifact::open`].
    pub fn from_bytes(bytes: &[u8], verify: Verify) -> Result<Self, ArtifactError> {
        let mut words = vec![0u128; bytes.len().div_ceil(16)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        let len = bytes.len();
        Self::from_backing(Backing::Owned { words, len }, verify)
    }

    fn from_backing(bytes: Backing, verify: Verify) -> Result<Self, ArtifactError> {
        let file = bytes.as_slice();
        let header = header::parse(file)?;
        metadata::check_version(&header.metadata)?;
        header.check_coverage(file.len())?;
        let checksums = read_checksums(file, &header)?;
        check("the header", checksums.header, &file[..header.data_start])?;
        check_table(&header.tensors, &checksums)?;
        if verify == Verify::Full {
            check_tensors(file, &header.tensors, &checksums)?;
        }
        let Header { metadata, tensors, .. } = header;
        let metadata = Metadata::from_map(metadata)?;
        let artifact = Artifact { bytes, metadata, tensors, checksums };
        artifact.plan().validate(&artifact)?;
        Ok(artifact)
    }

    /// What to run.
    pub fn plan(&self) -> &Plan {
        &self.metadata.plan
    }

    /// What the user asked the compiler for.
    pub fn recipe(&self) -> &str {
        &self.metadata.recipe
    }

    /// Where the artifact came from.
    pub fn provenance(&self) -> &Provenance {
        &self.metadata.provenance
    }

    /// All metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The bytes of `tokenizer.json`, if the artifact has one.
    pub fn tokenizer(&self) -> Option<&[u8]> {
        self.file(TOKENIZER_TENSOR)
    }

    /// The bytes of a stored file, for example `generation_config.json` or `kernels.sm_89.embed`.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.tensor(name).map(|view| view.bytes)
    }

    /// Every tensor but the checksums, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.tensors
            .iter()
            .filter(|(name, _)| *name != CHECKSUMS_TENSOR)
            .map(|(name, entry)| (name.as_str(), self.view(entry)))
    }

    /// The recorded checksums.
    pub fn checksums(&self) -> &Checksums {
        &self.checksums
    }

    /// Size of the whole artifact.
    pub fn file_bytes(&self) -> usize {
        self.bytes.as_slice().len()
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> TensorView<'a> {
        TensorView { dtype: entry.dtype, shape: &entry.shape, bytes: &self.bytes.as_slice()[entry.range.clone()] }
    }
}

impl TensorStore for Artifact {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get(name).map(|entry| self.view(entry))
    }
}

fn read_checksums(file: &[u8], header: &Header) -> Result<Checksums, ArtifactError> {
    let entry = header
        .tensors
        .get(CHECKSUMS_TENSOR)
        .ok_or_else(|| ArtifactError::Missing { what: format!("tensor `{CHECKSUMS_TENSOR}`") })?;
    Checksums::parse(&file[entry.range.clone()])
}

fn check(what: &str, expected: u64, bytes: &[u8]) -> Result<(), ArtifactError> {
    let found = xxh3_64(bytes);
    if found == expected {
        return Ok(());
    }
    Err(ArtifactError::Altered { what: what.to_owned(), expected, found })
}

/// Header and table must speak of the same tensors.
fn check_table(tensors: &BTreeMap<String, Entry>, checksums: &Checksums) -> Result<(), ArtifactError> {
    let stored = tensors.keys().filter(|name| *name != CHECKSUMS_TENSOR);
    if stored.eq(checksums.tensors.keys()) {
        return Ok(());
    }
    Err(ArtifactError::malformed("its header and `nemo.checksums` list different tensors"))
}

fn check_tensors(file: &[u8], tensors: &BTreeMap<String, Entry>, checksums: &Checksums) -> Result<(), ArtifactError> {
    let results: Vec<Result<(), ArtifactError>> = checksums
        .tensors
        .par_iter()
        .map(|(name, &expected)| {
            let bytes = &file[tensors[name].range.clone()];
            check(&format!("tensor `{name}`"), expected, bytes)
        })
        .collect();
    results.into_iter().collect()
}
