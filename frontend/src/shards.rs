//! The safetensors files of a checkpoint: one file, or shards with an index. Files are mapped; only headers are read.

use crate::error::CheckpointError;
use crate::header::{Entry, Header};
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Component, Path};
use xxhash_rust::xxh3::Xxh3;

/// The file of a checkpoint that is not sharded.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The index of a sharded checkpoint.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 256 << 20;

/// The mapped files of a checkpoint and the tensors in them.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    files: Vec<Shard>,
    tensors: BTreeMap<String, (usize, Entry)>,
    unindexed: Vec<String>,
}

#[derive(Debug)]
struct Shard {
    name: String,
    map: Mmap,
    header: Range<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Maps the files of a checkpoint; `None` when the folder holds no weights at all.
    pub fn open(dir: &Path) -> Result<Option<Shards>, CheckpointError> {
        if dir.join(SINGLE).exists() {
            let mut shards = Shards::default();
            let header = shards.map(dir, SINGLE, "is the download complete?")?;
            let entries = header.tensors.into_iter();
            shards.tensors = entries.map(|(name, entry)| (name, (0, entry))).collect();
            return Ok(Some(shards));
        }
        if dir.join(INDEX).exists() {
            return Shards::open_index(dir).map(Some);
        }
        match lone_shard(dir) {
            Some(shard) => Err(CheckpointError::NoIndex { dir: dir.to_owned(), shard }),
            None => Ok(None),
        }
    }

    fn open_index(dir: &Path) -> Result<Shards, CheckpointError> {
        let index = read_index(dir)?;
        let mut shards = Shards::default();
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        for (shard, name) in names.into_iter().enumerate() {
            let help = "the index lists this shard; download it, or the whole checkpoint, again";
            let header = shards.map(dir, name, help)?;
            for (tensor, entry) in header.tensors {
                match index.weight_map.get(&tensor) {
                    Some(place) if place == name => {
                        shards.tensors.insert(tensor, (shard, entry));
                    }
                    Some(_) => {}
                    None => shards.unindexed.push(tensor),
                }
            }
        }
        match index.weight_map.iter().find(|(tensor, _)| !shards.tensors.contains_key(*tensor)) {
            Some((tensor, shard)) => Err(CheckpointError::NotInShard { shard: shard.clone(), tensor: tensor.clone() }),
            None => Ok(shards),
        }
    }

    /// Maps one file and reads its header.
    fn map(&mut self, dir: &Path, name: &str, help: &'static str) -> Result<Header, CheckpointError> {
        let path = dir.join(name);
        let io = |source| CheckpointError::Io { file: name.to_owned(), path: path.clone(), source, help };
        let file = File::open(&path).map_err(io)?;
        // SAFETY: the map is read-only. Another process that truncates or rewrites the file while it is mapped would
        // break the promise; every reader of memory-mapped weights lives with that, and no pointer is formed from the
        // contents.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let header = Header::parse(&map, name)?;
        self.files.push(Shard { name: name.to_owned(), map, header: header.json.clone() });
        Ok(header)
    }

    /// The place of a tensor.
    pub fn entry(&self, tensor: &str) -> Option<&Entry> {
        self.tensors.get(tensor).map(|(_, entry)| entry)
    }

    /// The name of the file that holds a tensor.
    pub fn file_of(&self, tensor: &str) -> Option<&str> {
        let (shard, _) = self.tensors.get(tensor)?;
        Some(&self.files[*shard].name)
    }

    /// The bytes of a tensor.
    pub fn bytes(&self, tensor: &str) -> Option<&[u8]> {
        let (shard, entry) = self.tensors.get(tensor)?;
        Some(&self.files[*shard].map[entry.range.clone()])
    }

    /// Lets the system drop the pages of a part of a tensor; they are read again when touched.
    #[cfg(unix)]
    pub fn release(&self, tensor: &str, bytes: Range<usize>) {
        let Some((shard, entry)) = self.tensors.get(tensor) else {
            return;
        };
        let start = entry.range.start.saturating_add(bytes.start).min(entry.range.end);
        let end = entry.range.start.saturating_add(bytes.end).min(entry.range.end);
        if start < end {
            // SAFETY: the map is a read-only map of a file, so dropped pages come back from the file with the same
            // bytes; slices into it stay valid.
            let advised =
                unsafe { self.files[*shard].map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
            // Only advice: memory stays a little fuller.
            let _ = advised;
        }
    }

    /// Every tensor that can be read.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }

    /// Tensors that stand in a shard but not in the index.
    pub fn unindexed(&self) -> &[String] {
        &self.unindexed
    }

    /// Names and sizes of the files.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.files.iter().map(|file| (file.name.as_str(), file.map.len() as u64))
    }

    /// The name of the file if there is one, of the index if there are shards.
    pub fn label(&self) -> &str {
        match self.files.as_slice() {
            [only] => &only.name,
            _ => INDEX,
        }
    }

    /// Adds names, sizes and headers to a digest, and a sample of every tensor.
    pub fn digest(&self, hash: &mut Xxh3) {
        for file in &self.files {
            hash.update(file.name.as_bytes());
            hash.update(&(file.map.len() as u64).to_le_bytes());
            hash.update(&file.map[file.header.clone()]);
        }
        for (shard, entry) in self.tensors.values() {
            let bytes = &self.files[*shard].map[entry.range.clone()];
            sample(bytes.len()).for_each(|part| hash.update(&bytes[part]));
        }
    }
}

/// The parts of a tensor of so many bytes that a digest looks at: all, or blocks from its first to its last byte.
fn sample(len: usize) -> impl Iterator<Item = Range<usize>> {
    const BLOCK: usize = 4096;
    const BLOCKS: usize = 16;
    let (count, size) = if len <= BLOCKS * BLOCK { (1, len) } else { (BLOCKS, BLOCK) };
    (0..count).map(move |block| {
        let start = (len - size) / (BLOCKS - 1) * block;
        let start = if block + 1 == BLOCKS { len - size } else { start };
        start..start + size
    })
}

/// Reads the index and checks that every shard name stays in the folder.
fn read_index(dir: &Path) -> Result<Index, CheckpointError> {
    let path = dir.join(INDEX);
    let io = |source| CheckpointError::Io {
        file: INDEX.to_owned(),
        path: path.clone(),
        source,
        help: "is the download complete?",
    };
    let invalid = |reason: String| CheckpointError::Index { file: INDEX.to_owned(), reason };
    let bytes = std::fs::metadata(&path).map_err(io)?.len();
    if bytes > MAX_INDEX_BYTES {
        return Err(invalid(format!("it has {bytes} bytes, more than any index")));
    }
    let text = std::fs::read(&path).map_err(io)?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    if index.weight_map.is_empty() {
        return Err(invalid("weight_map lists no tensor".into()));
    }
    match index.weight_map.iter().find(|(_, name)| !is_plain_file_name(name)) {
        Some((tensor, name)) => {
            Err(CheckpointError::UnsafePath { file: INDEX.to_owned(), tensor: tensor.clone(), name: name.clone() })
        }
        None => Ok(index),
    }
}

/// Whether a name stays in its folder on every platform.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let normal = matches!(
        (components.next(), components.next()),
        (Some(Component::Normal(only)), None) if only == name
    );
    normal && !name.contains(['/', '\\', ':', '\0'])
}

/// A `model-*.safetensors` in a folder without an index.
fn lone_shard(dir: &Path) -> Option<String> {
    let entries = std::fs::read_dir(dir).ok()?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".safetensors"))
        .min()
}

#[cfg(test)]
mod tests {
    use super::sample;

    #[test]
    fn samples_small_tensors_whole_and_large_ones_from_end_to_end() {
        let ends = |len: usize| sample(len).map(|part| (part.start, part.end)).collect::<Vec<_>>();
        assert_eq!(ends(0), [(0, 0)]);
        assert_eq!(ends(65_536), [(0, 65_536)]);
        for len in [65_537, 1 << 20, 176_160_769] {
            let parts: Vec<_> = sample(len).collect();
            assert_eq!((parts[0].start, parts[15].end, parts.len()), (0, len, 16));
            assert!(parts.windows(2).all(|pair| pair[0].end <= pair[1].start), "{len}: {parts:?}");
        }
    }
}
