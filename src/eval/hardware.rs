//! The machine that numbers were measured on.

use crate::report::data::Hardware;
use std::process::Command;

/// What is known without measuring.
pub fn detect(device: String) -> Hardware {
    let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory_info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes: u64 =
        value_of(&memory_info, "MemTotal").and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    Hardware {
        device,
        cpu: value_of(&cpu_info, "model name").unwrap_or("unknown").to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: kibibytes * 1024,
        gpus: gpus().into_iter().map(|gpu| gpu.name).collect(),
        read_bytes_per_second: None,
    }
}

fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// A GPU of this machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Gpu {
    pub name: String,
    pub bytes: u64,
    /// Its compute capability.
    pub capability: (u32, u32),
}

/// The GPUs that the driver's own tool reports; none where there is no driver.
pub fn gpus() -> Vec<Gpu> {
    let query = ["--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi").args(query).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else { return Vec::new() };
    parse_gpus(&String::from_utf8_lossy(&output.stdout))
}

fn parse_gpus(text: &str) -> Vec<Gpu> {
    let gpu = |line: &str| {
        let (rest, capability) = line.rsplit_once(',')?;
        let (name, mebibytes) = rest.rsplit_once(',')?;
        let (major, minor) = capability.trim().split_once('.')?;
        Some(Gpu {
            name: name.trim().to_owned(),
            bytes: mebibytes.trim().parse::<u64>().ok()? << 20,
            capability: (major.parse().ok()?, minor.parse().ok()?),
        })
    };
    text.lines().filter_map(gpu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_driver_reports() {
        let gpus = parse_gpus("NVIDIA GeForce RTX 4090, 24564, 8.9\nnonsense\n");
        let name = "NVIDIA GeForce RTX 4090".to_owned();
        assert_eq!(gpus, [Gpu { name, bytes: 24564 << 20, capability: (8, 9) }]);
    }
}
