//! Checks every kernel on a GPU against its CPU twin, then verifies and measures the true 8B shape with random weights:
//! `gpu_check KERNELS [check [only=NAME]...] [verify | bench [decode] [prefill] [parts] [context]] [phase0] [phase1] [phase2] [phase3]
//! [states=TYPE]`. KERNELS
//! is the folder that `compile_kernels` wrote; NAME is a part of the names of cases; `parts` shows the kernels of a mixer one by one;
//! `context` measures decode after up to 131,072 tokens alone; `states=f32`, `f16`, `bf16` or `i8` keeps scan states in that type,
//! which the phase decides otherwise; `bench` leaves phase 0 out unless it is named.

mod attention;
mod bench;
mod check;
mod model_8b;
mod rings;
mod sums;
mod verify;

use runtime::cuda::{KernelImages, holds_kernels_for};
use std::collections::BTreeMap;
use std::error::Error;

/// Compiled kernels read from a folder.
struct Folder(BTreeMap<String, Vec<u8>>);

impl Folder {
    fn read(path: &str) -> std::io::Result<Folder> {
        let mut images = BTreeMap::new();
        for file in std::fs::read_dir(path)? {
            let file = file?;
            images.insert(file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path())?);
        }
        Ok(Folder(images))
    }
}

impl KernelImages for Folder {
    fn images(&self, target: &str) -> Vec<&[u8]> {
        self.0.iter().filter(|(name, _)| holds_kernels_for(name, target)).map(|(_, image)| &image[..]).collect()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, tasks) = arguments.split_first().ok_or("usage: gpu_check KERNELS [check] [verify] [bench]")?;
    let images = Folder::read(folder)?;
    let wants = |task: &str| tasks.is_empty() || tasks.iter().any(|wanted| wanted == task);
    let mut failed = 0;
    if wants("check") {
        let filters: Vec<&str> = tasks.iter().filter_map(|task| task.strip_prefix("only=")).collect();
        let chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
        failed = check::run(&images, chosen)?;
        failed += sums::run(&images, chosen)?;
    }
    if wants("verify") {
        failed += verify::run(&images, tasks)?;
    }
    if wants("bench") {
        bench::run(&images, tasks)?;
    }
    if failed > 0 {
        return Err(format!("{failed} checks failed").into());
    }
    Ok(())
}
