//! Writes an artifact whose tensors arrive in any order, from many threads.
//!
//! The file has no name until it is complete: on Linux it is an unnamed temporary file (`O_TMPFILE`), which the system
//! removes however the process ends, `kill -9` included. File systems without such files get a hidden
//! `.NAME.*.partial` beside the target, removed on errors and panics, and by
//! [`remove_partial`]. Then the complete, synced file is renamed over
//! the target. A reader sees the old artifact or the new one, never half of one.

use runtime::artifact::{CHECKSUMS_TENSOR, Checksums, Layout, Placed};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::TempPath;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Why an artifact could not be written. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The output cannot be created there.
    #[error("cannot create {}: {source}\nhelp: {}", path.display(), create_help(path, source))]
    Create {
        /// The output.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No room for the artifact.
    #[error(
        "the disk of {} is full: the artifact needs {needed} bytes, {available} are free\n\
         help: free some space, or choose another place with -o",
        path.display()
    )]
    DiskFull {
        /// The output.
        path: PathBuf,
        /// Size of the artifact.
        needed: u64,
        /// Free bytes on that disk; 0 when unknown.
        available: u64,
    },
    /// Writing failed.
    #[error("cannot write {}: {source}\nhelp: nothing was written; the disk may be failing or limited", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The caller disagrees with the layout: a bug in the compiler.
    #[error("tensor `{tensor}` {problem}\nhelp: this is a bug in nemoc, please report it")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// In what way.
        problem: String,
    },
}

fn create_help(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("the folder {} does not exist; create it first", folder(path).display()),
        io::ErrorKind::IsADirectory => "give the name of a file".into(),
        _ => format!("is {} writable?", folder(path).display()),
    }
}

/// Ends the name of a file that is not complete.
const PARTIAL_SUFFIX: &str = ".partial";

/// An artifact being written.
#[derive(Debug)]
pub struct ArtifactWriter {
    file: File,
    /// `None` for an unnamed file.
    partial: Option<TempPath>,
    path: PathBuf,
    layout: Layout,
    sums: Mutex<BTreeMap<String, u64>>,
}

impl ArtifactWriter {
    /// Reserves the space on disk and writes the header.
    ///
    /// # Errors
    /// When the file cannot be created or does not fit the disk.
    pub fn create(path: impl Into<PathBuf>, layout: Layout) -> Result<Self, WriteError> {
        let path = path.into();
        let fail = |source| WriteError::Create { path: path.clone(), source };
        if path.is_dir() {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        if path.file_name().is_none() {
            return Err(fail(io::ErrorKind::InvalidFilename.into()));
        }
        let (file, partial) = open_partial(&path).map_err(fail)?;
        let writer = ArtifactWriter { file, partial, path, layout, sums: Mutex::default() };
        writer.reserve()?;
        writer.write_at(writer.layout.prefix(), 0)?;
        Ok(writer)
    }

    /// Begins a tensor, whose bytes must then come in order. Different tensors may be written at the same time.
    ///
    /// # Errors
    /// When the layout has no such tensor.
    pub fn tensor(&self, name: &str) -> Result<TensorWriter<'_>, WriteError> {
        let place = self.layout.tensors().iter().find(|place| place.spec.name == name && name != CHECKSUMS_TENSOR);
        let place =
            place.ok_or_else(|| WriteError::Tensor { tensor: name.into(), problem: "is not in the layout".into() })?;
        Ok(TensorWriter { artifact: self, place, written: 0, hasher: Box::new(Xxh3::new()) })
    }

    /// Writes the checksums and gives the file its name. Returns its size.
    ///
    /// # Errors
    /// When a tensor is missing, or the disk fails.
    pub fn finish(mut self) -> Result<u64, WriteError> {
        let sums = std::mem::take(&mut self.sums).into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some((table, tensors)) = self.layout.tensors().split_last() else {
            unreachable!("a layout always ends with the checksums");
        };
        if let Some(missing) = tensors.iter().find(|place| !sums.contains_key(&place.spec.name)) {
            let tensor = missing.spec.name.clone();
            return Err(WriteError::Tensor { tensor, problem: "was not written".into() });
        }
        let checksums = Checksums { header: xxh3_64(self.layout.prefix()), tensors: sums };
        self.write_at(&checksums.render(), table.offset)?;
        self.publish().map_err(|source| WriteError::Write { path: self.path.clone(), source })?;
        Ok(self.layout.file_bytes())
    }

    fn reserve(&self) -> Result<(), WriteError> {
        let needed = self.layout.file_bytes();
        // Asked first: some file systems fill the disk before they say that the rest does not fit.
        let available = self.available();
        if available.is_some_and(|available| available < needed) {
            return Err(WriteError::DiskFull { path: self.path.clone(), needed, available: available.unwrap_or(0) });
        }
        let reserved = match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, needed) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(needed),
            other => other.map_err(io::Error::from),
        };
        reserved.map_err(|source| self.failed(source))
    }

    /// Free bytes on the disk of the output.
    fn available(&self) -> Option<u64> {
        let disk = rustix::fs::fstatvfs(&self.file).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
        self.file.write_all_at(bytes, offset).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> WriteError {
        let path = self.path.clone();
        if source.kind() != io::ErrorKind::StorageFull {
            return WriteError::Write { path, source };
        }
        WriteError::DiskFull { path, needed: self.layout.file_bytes(), available: self.available().unwrap_or(0) }
    }

    fn publish(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let partial = match self.partial.take() {
            Some(partial) => partial,
            None => link_unnamed(&self.file, &self.path)?,
        };
        partial.persist(&self.path).map_err(|error| error.error)?;
        // The rename itself must survive a power failure, too.
        File::open(folder(&self.path))?.sync_all()
    }
}

/// One tensor being written; its bytes come in order.
pub struct TensorWriter<'a> {
    artifact: &'a ArtifactWriter,
    place: &'a Placed,
    written: u64,
    hasher: Box<Xxh3>,
}

impl TensorWriter<'_> {
    /// Appends bytes.
    ///
    /// # Errors
    /// When they exceed the tensor, or the disk fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let end = self.written + bytes.len() as u64;
        if end > self.place.bytes {
            return Err(self.wrong_size(end));
        }
        self.artifact.write_at(bytes, self.place.offset + self.written)?;
        self.hasher.update(bytes);
        self.written = end;
        Ok(())
    }

    /// Records the checksum.
    ///
    /// # Errors
    /// When bytes are missing, or the tensor was written twice.
    pub fn finish(self) -> Result<(), WriteError> {
        if self.written != self.place.bytes {
            return Err(self.wrong_size(self.written));
        }
        let name = self.place.spec.name.clone();
        let mut sums = self.artifact.sums.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if sums.insert(name.clone(), self.hasher.digest()).is_some() {
            return Err(WriteError::Tensor { tensor: name, problem: "was written twice".into() });
        }
        Ok(())
    }

    fn wrong_size(&self, found: u64) -> WriteError {
        WriteError::Tensor {
            tensor: self.place.spec.name.clone(),
            problem: format!("has {} bytes in the layout, {found} were written", self.place.bytes),
        }
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn open_partial(path: &Path) -> io::Result<(File, Option<TempPath>)> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::open(folder(path), flags, Mode::from_raw_mode(0o666)) {
        let file = File::from(fd);
        // Without /proc there is no way to name the file later.
        if proc_path(&file).exists() {
            return Ok((file, None));
        }
    }
    let prefix = partial_prefix(path);
    let named = partial_name(&prefix).permissions(Permissions::from_mode(0o666)).tempfile_in(folder(path))?;
    let (file, partial) = named.into_parts();
    Ok((file, Some(partial)))
}

fn partial_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.{}.", std::process::id())
}

/// Removes what this process has begun to write for `path`: for the handler of Ctrl-C, after which nothing is dropped.
pub fn remove_partial(path: &Path) {
    let prefix = partial_prefix(path);
    let Ok(entries) = std::fs::read_dir(folder(path)) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&prefix) && name.ends_with(PARTIAL_SUFFIX) {
            // The process ends right after this and has nobody to tell.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn partial_name(prefix: &str) -> tempfile::Builder<'_, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(PARTIAL_SUFFIX);
    builder
}

fn proc_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn link_unnamed(file: &File, path: &Path) -> io::Result<TempPath> {
    let prefix = partial_prefix(path);
    let linked = partial_name(&prefix).make_in(folder(path), |partial| {
        rustix::fs::linkat(CWD, proc_path(file), CWD, partial, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
    })?;
    Ok(linked.into_temp_path())
}
