//! Compiles the kernels with NVRTC, NVIDIA's run-time compiler: a library, no toolkit and no GPU needed.
//!
//! Results are cached by content: sources, headers, target, options and NVRTC version make the key.

mod library;
mod program;
mod usage;

pub use library::NvrtcError;
pub use usage::KernelUsage;

use crate::instantiate;
use crate::kernels::FILES;
use crate::target::Target;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The kernels, compiled for one target.
#[derive(Clone, Debug)]
pub struct CompiledKernels {
    /// What for.
    pub target: Target,
    /// A cubin, or PTX text.
    pub image: Vec<u8>,
    /// Registers, shared memory and spills; empty for PTX.
    pub usage: Vec<KernelUsage>,
}

impl runtime::cuda::KernelImages for CompiledKernels {
    fn image(&self, target: &str) -> Option<&[u8]> {
        (target == self.target.name()).then_some(&self.image)
    }
}

/// NVRTC, loaded.
#[derive(Debug)]
pub struct Compiler {
    version: (i32, i32),
    cache: Option<PathBuf>,
}

impl Compiler {
    /// Finds and loads NVRTC. `cache` is a folder for compiled kernels; it is made when needed.
    pub fn open(cache: Option<&Path>) -> Result<Compiler, NvrtcError> {
        Ok(Compiler { version: library::load()?, cache: cache.map(Path::to_owned) })
    }

    /// Major and minor version of NVRTC.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// All kernels for one target.
    pub fn compile(&self, target: Target) -> Result<CompiledKernels, NvrtcError> {
        let source = instantiate::program();
        let params = runtime::cuda::params::header();
        let mut headers = vec![("params.cuh", params.as_str())];
        headers.extend(FILES.iter().map(|file| (file.name, file.text)));
        let options = options(target);
        let key = self.key(&source, &headers, &options);
        if let Some(image) = self.cached(key) {
            let usage = usage::parse(&image);
            return Ok(CompiledKernels { target, image, usage });
        }
        let image = program::compile(&source, &headers, &options, target)?;
        self.store(key, &image);
        let usage = usage::parse(&image);
        Ok(CompiledKernels { target, image, usage })
    }

    fn key(&self, source: &str, headers: &[(&str, &str)], options: &[String]) -> u128 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(format!("{:?}", self.version).as_bytes());
        field(source.as_bytes());
        for (name, text) in headers {
            field(name.as_bytes());
            field(text.as_bytes());
        }
        for option in options {
            field(option.as_bytes());
        }
        hash.digest128()
    }

    fn cached(&self, key: u128) -> Option<Vec<u8>> {
        let image = std::fs::read(self.cache.as_ref()?.join(format!("{key:032x}"))).ok()?;
        (!image.is_empty()).then_some(image)
    }

    // A cache that cannot be written costs time, not correctness.
    fn store(&self, key: u128, image: &[u8]) {
        let Some(folder) = &self.cache else { return };
        let written = std::fs::create_dir_all(folder).and_then(|()| {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(image)?;
            file.persist(folder.join(format!("{key:032x}")))?;
            Ok(())
        });
        if let Err(error) = written {
            tracing::warn!("kernel cache {}: {error}", folder.display());
        }
    }
}

fn options(target: Target) -> Vec<String> {
    vec![
        format!("--gpu-architecture={}", target.name()),
        "--std=c++17".to_owned(),
        "--device-as-default-execution-space".to_owned(),
    ]
}

/// The user's cache folder for compiled kernels, if the system has one.
pub fn default_cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(base.join("nemoc").join("kernels"))
}
