//! Compiles the kernels into files, for `tests/gpu/run`: `compile_kernels FOLDER [TARGET...]`.

use codegen::nvrtc::Compiler;
use codegen::target::Target;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: compile_kernels FOLDER [TARGET...]")?;
    let mut targets: Vec<Target> = arguments.map(|name| Target::parse(&name)).collect::<Result<_, _>>()?;
    if targets.is_empty() {
        targets = Target::ALL.to_vec();
    }
    let compiler = Compiler::open(None)?;
    std::fs::create_dir_all(&folder)?;
    for target in targets {
        let kernels = compiler.compile(target)?;
        std::fs::write(Path::new(&folder).join(target.name()), &kernels.image)?;
        for kernel in &kernels.usage {
            println!(
                "{target:>8} {:<32} {:>3} registers {:>6} B shared {:>4} B local",
                kernel.name, kernel.registers, kernel.smem_bytes, kernel.local_bytes
            );
        }
    }
    Ok(())
}
