use super::StepArgs;
use crate::artifact::Artifact;
use crate::cuda::{self, KernelImages};
use crate::device::{Device, DeviceError};
use crate::{artifact, cpu};
use std::str::FromStr;

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU, when there is one and the artifact has kernels for GPUs; else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// GPU of this number, as the driver counts.
    Cuda(u32),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(DeviceChoice::Auto),
            ("cpu", _) => Ok(DeviceChoice::Cpu),
            ("cuda", _) => Ok(DeviceChoice::Cuda(0)),
            (_, Some(Ok(ordinal))) => Ok(DeviceChoice::Cuda(ordinal)),
            _ => Err("expected auto, cpu, cuda or cuda:N".to_owned()),
        }
    }
}

impl KernelImages for Artifact {
    fn image(&self, target: &str) -> Option<&[u8]> {
        self.file(&format!("{}{target}", artifact::KERNELS_PREFIX))
    }
}

/// Makes an artifact ready to run. [`Device::description`] of the result says where.
///
/// # Errors
/// When the plan does not fit the artifact or the device, or the GPU asked for cannot be used. A GPU that `Auto` finds and
/// that then fails is an error, too: nothing falls back silently.
pub fn open_device<'a>(
    choice: DeviceChoice,
    artifact: &'a Artifact,
    step: &StepArgs,
) -> Result<Box<dyn Device + 'a>, DeviceError> {
    let ordinal = match choice {
        DeviceChoice::Cpu => None,
        DeviceChoice::Cuda(ordinal) => Some(ordinal),
        DeviceChoice::Auto => (has_kernels(artifact) && cuda::gpu_count() > 0).then_some(0),
    };
    let limits = step.limits();
    Ok(match ordinal {
        None => Box::new(cpu::Device::new(artifact.plan(), artifact, &cpu::Options { threads: step.threads, limits })?),
        Some(ordinal) => {
            Box::new(cuda::Device::new(artifact.plan(), artifact, artifact, &cuda::Options { ordinal, limits })?)
        }
    })
}

fn has_kernels(artifact: &Artifact) -> bool {
    artifact.tensors().any(|(name, _)| name.starts_with(artifact::KERNELS_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::DeviceChoice;

    #[test]
    fn reads_devices() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
