//! Every kernel compiles for every target without spills. Needs NVRTC, no GPU; says so and passes where it is absent.

use codegen::instantiate::programs;
use codegen::nvrtc::{CompiledKernels, Compiler, NvrtcError};
use codegen::target::Target;
use runtime::cuda::entry;
use std::path::Path;
use std::sync::OnceLock;

/// Everything compiled once, and the cache that it left.
struct Compiled {
    kernels: Vec<CompiledKernels>,
    compiler: Compiler,
    cache: &'static Path,
}

fn compiled() -> Option<&'static Compiled> {
    static COMPILED: OnceLock<Option<Compiled>> = OnceLock::new();
    COMPILED.get_or_init(compile).as_ref()
}

fn compile() -> Option<Compiled> {
    // What is static is never dropped, and a temporary folder would stay: this one is cargo's, and the next run empties it.
    let cache = Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels"));
    if cache.exists() {
        std::fs::remove_dir_all(cache).expect("a folder of the run before");
    }
    let compiler = match Compiler::open(Some(cache)) {
        Ok(compiler) => compiler,
        Err(NvrtcError::NotFound) => {
            eprintln!("skipped: NVRTC is not installed");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let kernels = compiler.compile_all(&Target::ALL).unwrap_or_else(|error| panic!("{error}"));
    Some(Compiled { kernels, compiler, cache })
}

#[test]
fn every_kernel_compiles_for_every_target_and_none_spills() {
    let Some(Compiled { kernels, .. }) = compiled() else { return };
    assert_eq!(kernels.iter().map(|kernels| kernels.target).collect::<Vec<_>>(), Target::ALL);
    for kernels in kernels {
        let target = kernels.target;
        if target.is_ptx() {
            assert!(kernels.images.iter().all(|image| image.bytes.starts_with(b"//")));
            continue;
        }
        let usage = kernels.usage();
        assert_eq!(usage.len(), entry::ALL.len(), "{target}");
        for kernel in &usage {
            println!("{target} {kernel:?}");
        }
        for kernel in &usage {
            assert!(kernel.registers > 0, "{target}: {kernel:?}");
            assert_eq!(kernel.local_bytes, 0, "{target}: {kernel:?}");
        }
    }
}

#[test]
fn a_second_compilation_comes_from_the_cache() {
    let Some(Compiled { kernels, compiler, cache }) = compiled() else { return };
    let files: Vec<_> = std::fs::read_dir(cache).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), programs().len() * Target::ALL.len());
    for file in files {
        let mut image = std::fs::read(&file).unwrap();
        image.extend(b"from the cache");
        std::fs::write(&file, image).unwrap();
    }
    let first = kernels.iter().find(|kernels| kernels.target == Target::Sm89).unwrap();
    let second = compiler.compile(Target::Sm89).unwrap();
    assert_eq!(first.images.len(), second.images.len());
    for (first, second) in first.images.iter().zip(&second.images) {
        assert_eq!(first.name, second.name);
        assert_eq!([&first.bytes[..], b"from the cache"].concat(), second.bytes, "{}", first.name);
    }
}
