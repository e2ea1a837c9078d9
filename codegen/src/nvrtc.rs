//! Compiles the kernels with NVRTC, NVIDIA's run-time compiler: a library, no toolkit and no GPU needed.
//!
//! Every template file is a program of its own for every target, and they compile in parallel. Results are cached by content:
//! source, the headers that it includes, target, options and NVRTC version make the key.

mod library;
mod program;
mod usage;

pub use library::NvrtcError;
pub use usage::KernelUsage;

use crate::instantiate::{self, Program};
use crate::target::Target;
use rayon::iter::{ParallelBridge, ParallelIterator};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The kernels, compiled for one target.
#[derive(Clone, Debug)]
pub struct CompiledKernels {
    /// What for.
    pub target: Target,
    /// One a template file.
    pub images: Vec<KernelImage>,
}

/// The kernels of one template file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelImage {
    /// The name of the file, without its ending.
    pub name: &'static str,
    /// A cubin, or PTX text.
    pub bytes: Vec<u8>,
}

impl CompiledKernels {
    /// Names and contents of the files that hold the kernels, in an artifact or a folder.
    pub fn into_files(self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.images.into_iter().map(move |image| (format!("{}.{}", self.target, image.name), image.bytes))
    }

    /// Registers, shared memory and spills, by name; empty for PTX.
    pub fn usage(&self) -> Vec<KernelUsage> {
        let mut usage: Vec<KernelUsage> = self.images.iter().flat_map(|image| usage::parse(&image.bytes)).collect();
        usage.sort_by(|a, b| a.name.cmp(&b.name));
        usage
    }
}

impl runtime::cuda::KernelImages for CompiledKernels {
    fn images(&self, target: &str) -> Vec<&[u8]> {
        let wanted = if target == self.target.name() { &self.images[..] } else { &[] };
        wanted.iter().map(|image| &image.bytes[..]).collect()
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
        Ok(self.compile_all(&[target])?.swap_remove(0))
    }

    /// All kernels for each of the targets, compiled in parallel.
    pub fn compile_all(&self, targets: &[Target]) -> Result<Vec<CompiledKernels>, NvrtcError> {
        let params = runtime::cuda::params::header();
        let programs = instantiate::programs();
        let jobs = programs.iter().flat_map(|program| (0..targets.len()).map(move |target| (program, target)));
        // A bridge hands jobs out one by one in their order, the long ones first.
        let mut images = jobs
            .enumerate()
            .par_bridge()
            .map(|(number, (program, target))| {
                let bytes = self.image(program, &params, targets[target])?;
                Ok((number, target, KernelImage { name: program.name, bytes }))
            })
            .collect::<Result<Vec<_>, NvrtcError>>()?;
        images.sort_unstable_by_key(|(number, ..)| *number);
        let mut compiled: Vec<CompiledKernels> =
            targets.iter().map(|&target| CompiledKernels { target, images: Vec::new() }).collect();
        for (_, target, image) in images {
            compiled[target].images.push(image);
        }
        Ok(compiled)
    }

    fn image(&self, program: &Program, params: &str, target: Target) -> Result<Vec<u8>, NvrtcError> {
        let mut headers = vec![("params.cuh", params)];
        headers.extend(program.headers.iter().map(|file| (file.name, file.text)));
        let options = options(target);
        let key = self.key(&program.text, &headers, &options);
        if let Some(image) = self.cached(key) {
            return Ok(image);
        }
        let image = program::compile(&program.text, &headers, &options, target)?;
        self.store(key, &image);
        Ok(image)
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
