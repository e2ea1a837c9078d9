//! Kernels for GPUs, compiled by NVRTC where it is installed.

use crate::failure::Failure;
use codegen::nvrtc::{CompiledKernels, Compiler, NvrtcError, default_cache};
use codegen::target::Target;
use codegen::weights::ExtraTensor;
use runtime::artifact::KERNELS_PREFIX;

/// What the user asked for.
enum Wanted {
    /// Every target, if there is a compiler for them.
    WhateverIsPossible,
    These(Vec<Target>),
}

/// Compiles the kernels for these targets; `all`, `none`, or nothing said.
pub fn compile(names: &[String]) -> Result<Vec<CompiledKernels>, Failure> {
    let (targets, required) = match wanted(names)? {
        Wanted::WhateverIsPossible => (Target::ALL.to_vec(), false),
        Wanted::These(targets) => (targets, true),
    };
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let compiler = match Compiler::open(default_cache().as_deref()) {
        Err(NvrtcError::NotFound) if !required => return Ok(Vec::new()),
        compiler => compiler?,
    };
    Ok(compiler.compile_all(&targets)?)
}

fn wanted(names: &[String]) -> Result<Wanted, Failure> {
    let names: Vec<&str> = names.iter().map(|name| name.trim()).collect();
    Ok(match names[..] {
        [] => Wanted::WhateverIsPossible,
        ["all"] => Wanted::These(Target::ALL.to_vec()),
        ["none"] => Wanted::These(Vec::new()),
        _ => Wanted::These(names.iter().map(|name| Target::parse(name)).collect::<Result<_, _>>()?),
    })
}

/// As tensors of the artifact.
pub fn tensors(kernels: CompiledKernels) -> impl Iterator<Item = ExtraTensor> {
    kernels.into_files().map(|(name, bytes)| ExtraTensor::file(format!("{KERNELS_PREFIX}{name}"), bytes))
}

/// For people.
pub fn describe(kernels: &[CompiledKernels]) -> String {
    if kernels.is_empty() {
        return "kernels: none, the artifact runs on CPUs (GPUs need NVRTC: `pip install nvidia-cuda-nvrtc`)\n"
            .to_owned();
    }
    let names: Vec<String> = kernels.iter().map(|kernels| kernels.target.to_string()).collect();
    format!("kernels for {}\n", names.join(", "))
}
