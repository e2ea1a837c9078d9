//! Compiles the kernels into files, for `tests/gpu/run`: `compile_kernels FOLDER [TARGET...]`.
//!
//! Templates that were compiled before come from the user's cache of kernels.

use codegen::nvrtc::{Compiler, default_cache};
use codegen::target::Target;
use runtime::cuda::holds_kernels_for;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: compile_kernels FOLDER [TARGET...]")?;
    let mut targets: Vec<Target> = arguments.map(|name| Target::parse(&name)).collect::<Result<_, _>>()?;
    if targets.is_empty() {
        targets = Target::ALL.to_vec();
    }
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    for kernels in Compiler::open(default_cache().as_deref())?.compile_all(&targets)? {
        let target = kernels.target;
        for kernel in kernels.usage() {
            println!(
                "{target:>8} {:<32} {:>3} registers {:>6} B shared {:>4} B local",
                kernel.name, kernel.registers, kernel.smem_bytes, kernel.local_bytes
            );
        }
        remove_kernels(folder, target)?;
        for (name, bytes) in kernels.into_files() {
            std::fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

/// Removes what was compiled before, from templates that are no more perhaps.
fn remove_kernels(folder: &Path, target: Target) -> std::io::Result<()> {
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        if holds_kernels_for(&file.file_name().to_string_lossy(), target.name()) {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}
