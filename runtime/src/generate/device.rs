use super::StepArgs;
use crate::artifact::Artifact;
use crate::cuda::{self, KernelImages};
use crate::device::{Device, DeviceError, Limits};
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

impl DeviceChoice {
    /// This choice, with the number that `--gpu` gave.
    pub fn with_gpu(self, gpu: Option<u32>) -> Result<DeviceChoice, DeviceError> {
        match (self, gpu) {
            (choice, None) => Ok(choice),
            (DeviceChoice::Auto | DeviceChoice::Cuda(0), Some(ordinal)) => Ok(DeviceChoice::Cuda(ordinal)),
            (DeviceChoice::Cuda(named), Some(ordinal)) if named == ordinal => Ok(self),
            (_, Some(ordinal)) => Err(DeviceError::Backend {
                device: "choosing a device".to_owned(),
                message: format!("--gpu {ordinal} contradicts --device"),
                help: "leave one of them out".to_owned(),
            }),
        }
    }
}

impl KernelImages for Artifact {
    fn images(&self, target: &str) -> Vec<&[u8]> {
        let kernels =
            self.tensors().filter_map(|(name, view)| Some((name.strip_prefix(artifact::KERNELS_PREFIX)?, view)));
        kernels.filter(|(name, _)| cuda::holds_kernels_for(name, target)).map(|(_, view)| view.bytes).collect()
    }
}

/// A device, ready to run.
pub struct Opened<'a> {
    /// It.
    pub device: Box<dyn Device + 'a>,
    /// Why it is the CPU where a GPU would have been welcome.
    pub fallback: Option<Fallback>,
}

/// Why a GPU was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// For people, one line.
    pub reason: String,
    /// There is a GPU, and it could not be used.
    pub gpu_failed: bool,
}

impl Opened<'_> {
    /// The machine and the arithmetic that really run, and why not a GPU.
    pub fn description(&self) -> String {
        match &self.fallback {
            Some(fallback) => format!("{} (no GPU: {})", self.device.description(), fallback.reason),
            None => self.device.description(),
        }
    }
}

/// Makes an artifact ready to run.
///
/// # Errors
/// When the plan does not fit the artifact or the device, or the GPU asked for cannot be used. `Auto` takes the CPU then
/// and says why.
pub fn open_device<'a>(artifact: &'a Artifact, step: &StepArgs) -> Result<Opened<'a>, DeviceError> {
    let limits = step.limits();
    let on_cpu = |fallback| -> Result<Opened<'a>, DeviceError> {
        let device = open_cpu(artifact, step.threads, limits)?;
        Ok(Opened { device: Box::new(device), fallback })
    };
    match step.device.with_gpu(step.gpu)? {
        DeviceChoice::Cpu => on_cpu(None),
        DeviceChoice::Cuda(ordinal) => {
            Ok(Opened { device: Box::new(open_cuda(artifact, ordinal, limits)?), fallback: None })
        }
        DeviceChoice::Auto => match auto(cuda::find_gpus(), || open_cuda(artifact, 0, limits)) {
            Ok(device) => Ok(Opened { device: Box::new(device), fallback: None }),
            Err(fallback) => on_cpu(Some(fallback)),
        },
    }
}

/// The GPU, or why not.
fn auto<D>(gpus: Result<usize, String>, open: impl FnOnce() -> Result<D, DeviceError>) -> Result<D, Fallback> {
    match gpus {
        Err(reason) => Err(Fallback { reason, gpu_failed: false }),
        Ok(_) => open().map_err(|error| {
            let text = error.to_string();
            let reason = text.lines().next().unwrap_or_default().to_owned();
            Fallback { reason, gpu_failed: true }
        }),
    }
}

/// A CPU device for an artifact.
pub fn open_cpu(artifact: &Artifact, threads: Option<usize>, limits: Limits) -> Result<cpu::Device<'_>, DeviceError> {
    cpu::Device::new(artifact.plan(), artifact, &cpu::Options { threads, limits })
}

/// A GPU for an artifact.
pub fn open_cuda(artifact: &Artifact, ordinal: u32, limits: Limits) -> Result<cuda::Device<'_>, DeviceError> {
    if !artifact.tensors().any(|(name, _)| name.starts_with(artifact::KERNELS_PREFIX)) {
        return Err(DeviceError::Backend {
            device: "CUDA".to_owned(),
            message: "the artifact holds no kernels for GPUs".to_owned(),
            help:
                "compile the model again with --kernels all, which needs NVRTC (`pip install nvidia-cuda-nvrtc`); or \
                   run on the CPU (`--device cpu`)"
                    .to_owned(),
        });
    }
    cuda::Device::new(artifact.plan(), artifact, artifact, &cuda::Options { ordinal, limits })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_gpu_number_makes_the_device_a_gpu_or_contradicts_it() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cuda(0), DeviceChoice::Cuda(2)] {
            assert_eq!(choice.with_gpu(Some(2)).unwrap(), DeviceChoice::Cuda(2));
        }
        assert_eq!(DeviceChoice::Cpu.with_gpu(None).unwrap(), DeviceChoice::Cpu);
        assert!(DeviceChoice::Cpu.with_gpu(Some(0)).is_err());
        assert!(DeviceChoice::Cuda(1).with_gpu(Some(2)).is_err());
    }

    #[test]
    fn auto_says_why_it_takes_the_cpu() {
        let absent = auto(Err("no CUDA driver".to_owned()), || -> Result<(), DeviceError> { panic!("not opened") });
        assert_eq!(absent, Err(Fallback { reason: "no CUDA driver".to_owned(), gpu_failed: false }));
        let failed = auto(Ok(1), || -> Result<(), DeviceError> {
            Err(DeviceError::OutOfMemory { what: "the weights".to_owned(), bytes: 7 })
        });
        let fallback = failed.unwrap_err();
        assert_eq!(fallback.reason, "7 bytes for the weights could not be allocated");
        assert!(fallback.gpu_failed);
        assert_eq!(auto(Ok(1), || Ok(5)), Ok(5));
    }
}
