//! Where a calibration runs.

use crate::failure::{Failure, warn};
use codegen::calibrate::{CalibrateError, Machine};
use codegen::nvrtc::{Compiler, default_cache};
use codegen::target::Target;
use runtime::cuda;
use runtime::generate::DeviceChoice;
use std::cell::Cell;

/// The choice of the user.
#[derive(clap::Args)]
pub struct PlaceArguments {
    /// Where calibration runs the model: auto, cpu, cuda or cuda:N; auto takes a GPU if there is one and NVRTC to compile
    /// kernels for it.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Calibrate on the GPU of this number, as the driver counts.
    #[arg(long, value_name = "N")]
    gpu: Option<u32>,
}

/// A GPU, or the CPU.
#[derive(Default)]
pub struct Place {
    gpu: Option<cuda::Machine>,
    /// Where the GPU has too little memory the CPU may take over.
    may_fall_back: bool,
    fell_back: Cell<bool>,
}

impl PlaceArguments {
    /// Opens the GPU, if that is where to calibrate. Says so when there is one that could not be used.
    pub fn open(&self) -> Result<Place, Failure> {
        match self.device.with_gpu(self.gpu)? {
            DeviceChoice::Cpu => Ok(Place::default()),
            DeviceChoice::Cuda(ordinal) => Ok(Place { gpu: Some(open(ordinal)?), ..Place::default() }),
            DeviceChoice::Auto if cuda::find_gpus().is_err() => Ok(Place::default()),
            DeviceChoice::Auto => match open(0) {
                Ok(gpu) => Ok(Place { gpu: Some(gpu), may_fall_back: true, fell_back: Cell::new(false) }),
                Err(Failure::Message(reason)) => {
                    stay_on_cpu(&reason);
                    Ok(Place::default())
                }
                Err(failure) => Err(failure),
            },
        }
    }
}

/// A GPU with kernels for it.
fn open(ordinal: u32) -> Result<cuda::Machine, Failure> {
    let target = Target::parse(cuda::kernel_target(ordinal)?)?;
    let kernels = Compiler::open(default_cache().as_deref())?.compile(target)?;
    Ok(cuda::Machine::open(ordinal, &kernels)?)
}

fn stay_on_cpu(reason: &str) {
    let reason = reason.lines().next().unwrap_or_default();
    warn(&format!("calibrating on the CPU: {reason}\nhelp: --device cuda makes this an error"));
}

impl Place {
    /// For people.
    pub fn description(&self) -> String {
        self.gpu().map_or_else(|| "the CPU".to_owned(), cuda::Machine::description)
    }

    /// Whether it is a GPU.
    pub fn is_gpu(&self) -> bool {
        self.gpu().is_some()
    }

    fn gpu(&self) -> Option<&cuda::Machine> {
        self.gpu.as_ref().filter(|_| !self.fell_back.get())
    }

    /// Calibrates; where `auto` took a GPU with too little memory, once more on the CPU.
    pub fn run<T>(&self, calibrate: impl Fn(Machine<'_>) -> Result<T, CalibrateError>) -> Result<T, Failure> {
        let Some(gpu) = self.gpu() else { return Ok(calibrate(Machine::Cpu)?) };
        match calibrate(Machine::Cuda(gpu)) {
            Err(error @ CalibrateError::OutOfMemory { .. }) if self.may_fall_back => {
                stay_on_cpu(&error.to_string());
                self.fell_back.set(true);
                Ok(calibrate(Machine::Cpu)?)
            }
            result => Ok(result?),
        }
    }
}
