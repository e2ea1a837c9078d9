//! Every kernel compiles for every target without spills. Needs NVRTC, no GPU; says so and passes where it is absent.

use codegen::nvrtc::{Compiler, NvrtcError};
use codegen::target::Target;
use runtime::cuda::entry;

fn compiler() -> Option<Compiler> {
    let cache = tempfile::tempdir().expect("a temporary folder");
    match Compiler::open(Some(cache.path())) {
        Ok(compiler) => Some(compiler),
        Err(NvrtcError::NotFound) => {
            eprintln!("skipped: NVRTC is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_kernel_compiles_for_every_target_and_none_spills() {
    let Some(compiler) = compiler() else { return };
    for target in Target::ALL {
        let kernels = compiler.compile(target).unwrap_or_else(|error| panic!("{error}"));
        if target.is_ptx() {
            assert!(kernels.image.starts_with(b"//"));
            continue;
        }
        assert_eq!(kernels.usage.len(), entry::ALL.len(), "{target}");
        for kernel in &kernels.usage {
            println!("{target} {kernel:?}");
        }
        for kernel in &kernels.usage {
            assert!(kernel.registers > 0, "{target}: {kernel:?}");
            assert_eq!(kernel.local_bytes, 0, "{target}: {kernel:?}");
        }
    }
}

#[test]
fn a_second_compilation_comes_from_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let Ok(compiler) = Compiler::open(Some(cache.path())) else {
        eprintln!("skipped: NVRTC is not installed");
        return;
    };
    let first = compiler.compile(Target::Sm89).unwrap();
    let files: Vec<_> = std::fs::read_dir(cache.path()).unwrap().collect();
    assert_eq!(files.len(), 1);
    std::fs::write(files[0].as_ref().unwrap().path(), b"from the cache").unwrap();
    let second = compiler.compile(Target::Sm89).unwrap();
    assert_ne!(first.image, second.image);
    assert_eq!(second.image, b"from the cache");
}
