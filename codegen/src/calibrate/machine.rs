//! Where the models run, and where products over tokens are summed up: the CPU, or a GPU.
//!
//! The CPU is the reference. A GPU gives the same sums but for the order in which f32 products are added.

use super::gram::{self, Gram};
use super::{BLOCK_TOKENS, CalibrateError};
use rayon::prelude::*;
use runtime::device::DeviceError;
use runtime::observe::{Channels, Compared, Sums};
use runtime::plan::{Activation, BufferId, DType, Plan};
use runtime::tensors::TensorStore;
use runtime::{cpu, cuda};
use std::borrow::Cow;

/// What calibration runs on.
#[derive(Clone, Copy)]
pub enum Machine<'m> {
    /// The threads of the caller's pool.
    Cpu,
    /// A GPU; weights are still made and rounded on the CPU.
    Cuda(&'m cuda::Machine),
}

impl Machine<'_> {
    /// The mean of `x x^T` over blocks of rows of `k` columns.
    pub(super) fn mean_products<'x>(
        self,
        blocks: impl Iterator<Item = Cow<'x, [f32]>>,
        k: usize,
    ) -> Result<Vec<f32>, CalibrateError> {
        match self {
            Machine::Cpu => {
                let mut gram = Gram::new(k, 0);
                blocks.for_each(|block| gram.add(&block, &[]));
                Ok(gram.finish().0)
            }
            Machine::Cuda(machine) => {
                let mut gram = cuda::Gram::new(machine, k, 0)?;
                for block in blocks {
                    gram.add(&block, &[])?;
                }
                Ok(gram.finish()?.0)
            }
        }
    }
}

/// A step of a plan whose tensors are given launch by launch.
pub(super) enum Step<'a> {
    Cpu(cpu::Launches<'a>),
    Cuda(cuda::Launches<'a>),
}

impl<'a> Step<'a> {
    /// Begins a step of whole sequences.
    pub(super) fn begin(
        machine: Machine<'a>,
        plan: &'a Plan,
        sequences: &[&[u32]],
        output_stride: usize,
    ) -> Result<Step<'a>, DeviceError> {
        Ok(match machine {
            Machine::Cpu => Step::Cpu(cpu::Launches::begin(plan, sequences, output_stride)?),
            Machine::Cuda(machine) => Step::Cuda(cuda::Launches::begin(machine, plan, sequences, output_stride)?),
        })
    }

    /// Begins the next step of the same sequences.
    pub(super) fn go_on(&mut self, sequences: &[&[u32]], output_stride: usize) -> Result<(), DeviceError> {
        match self {
            Step::Cpu(launches) => launches.go_on(sequences, output_stride),
            Step::Cuda(launches) => launches.go_on(sequences, output_stride),
        }
    }

    /// What it executes.
    pub(super) fn plan(&self) -> &'a Plan {
        match self {
            Step::Cpu(launches) => launches.plan(),
            Step::Cuda(launches) => launches.plan(),
        }
    }

    /// The launch that runs next.
    pub(super) fn next(&self) -> usize {
        match self {
            Step::Cpu(launches) => launches.next(),
            Step::Cuda(launches) => launches.next(),
        }
    }

    /// Runs it with its tensors.
    pub(super) fn run(&mut self, store: &dyn TensorStore) -> Result<(), DeviceError> {
        match self {
            Step::Cpu(launches) => launches.run(store),
            Step::Cuda(launches) => launches.run(store),
        }
    }

    /// Rows and columns of a buffer.
    pub(super) fn shape(&self, id: BufferId) -> [usize; 2] {
        match self {
            Step::Cpu(launches) => [launches.rows(id), launches.cols(id)],
            Step::Cuda(launches) => [launches.rows(id), launches.cols(id)],
        }
    }

    /// The rows of an f32 buffer.
    pub(super) fn floats(&self, id: BufferId) -> Result<Cow<'_, [f32]>, DeviceError> {
        match self {
            Step::Cpu(launches) => Ok(Cow::Borrowed(launches.floats(id))),
            Step::Cuda(launches) => Ok(Cow::Owned(launches.floats(id)?)),
        }
    }

    /// Adds how large the channels of an f32 buffer are.
    pub(super) fn measure(&self, id: BufferId, channels: &mut Channels) -> Result<(), DeviceError> {
        match self {
            Step::Cpu(launches) => {
                measure(launches.floats(id), channels);
                Ok(())
            }
            Step::Cuda(launches) => launches.measure(id, channels),
        }
    }

    /// Sums over the tokens of this step, of a quantized model, beside the same step of the float model.
    pub(super) fn sums(&self, float: &Step<'_>, linear: &Compared<'_>) -> Result<Sums, DeviceError> {
        match (self, float) {
            (Step::Cpu(quantized), Step::Cpu(float)) => Ok(sums(quantized, float, linear)),
            (Step::Cuda(quantized), Step::Cuda(float)) => quantized.sums(float, linear),
            _ => panic!("bug: the two models run on different machines"),
        }
    }
}

fn measure(values: &[f32], channels: &mut Channels) {
    for row in values.chunks_exact(channels.absmax.len()) {
        for ((absmax, square), value) in channels.absmax.iter_mut().zip(&mut channels.squares).zip(row) {
            *absmax = absmax.max(value.abs());
            *square += f64::from(value * value);
        }
    }
}

fn sums(quantized: &cpu::Launches<'_>, float: &cpu::Launches<'_>, linear: &Compared<'_>) -> Sums {
    let k = linear.in_features;
    let inputs = inputs_of(quantized, &linear.x);
    let exact = float.floats(linear.exact);
    let mut gram = Gram::new(k, linear.residual.map_or(k, |residual| residual.out_features));
    let (mut lost, mut whole) = (0.0, 0.0);
    for start in (0..inputs.rows).step_by(BLOCK_TOKENS) {
        let tokens = start..inputs.rows.min(start + BLOCK_TOKENS);
        let x = inputs.floats(tokens.clone(), k);
        let exact = &exact[tokens.start * k..tokens.end * k];
        let missing: Vec<f32> = exact.iter().zip(&x).map(|(exact, x)| exact - x).collect();
        lost += squares(&missing);
        whole += squares(exact);
        let Some(residual) = linear.residual else {
            gram.add(&x, &missing);
            continue;
        };
        let n = residual.out_features;
        let mut output = vec![0.0; tokens.len() * n];
        gram::multiply(&missing, residual.weight, k, &mut output);
        let rows = tokens.start * n..tokens.end * n;
        let (exact, found) = (&float.floats(residual.exact)[rows.clone()], &quantized.floats(residual.found)[rows]);
        for ((out, exact), found) in output.iter_mut().zip(exact).zip(found) {
            *out += exact - found;
        }
        gram.add(&x, &output);
    }
    let (hessian, cross) = gram.finish();
    Sums { hessian, cross, lost, whole }
}

pub(super) fn squares(values: &[f32]) -> f64 {
    let sums: Vec<f64> =
        values.par_chunks(1 << 16).map(|part| part.iter().map(|v| f64::from(*v).powi(2)).sum()).collect();
    sums.iter().sum()
}

/// The input of a linear as the quantized model has it.
struct QuantizedInput<'b> {
    rows: usize,
    cols: usize,
    signed: bool,
    data: &'b [u8],
    scale: Option<&'b [f32]>,
}

fn inputs_of<'b>(launches: &'b cpu::Launches<'_>, x: &Activation) -> QuantizedInput<'b> {
    let (data, scale) = match *x {
        Activation::Float { data } => (data, None),
        Activation::Quantized { data, scale } => (data, Some(launches.floats(scale))),
    };
    QuantizedInput {
        rows: launches.rows(data),
        cols: launches.cols(data),
        signed: launches.dtype(data) == DType::I8,
        data: launches.bytes(data),
        scale,
    }
}

impl QuantizedInput<'_> {
    /// Some rows, dequantized, without padding.
    fn floats(&self, rows: std::ops::Range<usize>, k: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows.len() * k];
        let first = rows.start;
        out.par_chunks_mut(k).enumerate().for_each(|(t, out)| match self.scale {
            None => {
                let row = &self.data[(first + t) * self.cols * 4..][..k * 4];
                out.copy_from_slice(bytemuck::cast_slice(row));
            }
            Some(scale) => {
                let (row, scale) = (&self.data[(first + t) * self.cols..][..k], scale[first + t]);
                let value = |q: u8| if self.signed { f32::from(q as i8) } else { f32::from(q) };
                out.iter_mut().zip(row).for_each(|(out, q)| *out = value(*q) * scale);
            }
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_every_channel_by_itself_however_tokens_are_cut() {
        let mut found = Channels::new(2);
        measure(&[1.0, -2.0], &mut found);
        measure(&[-3.0, 0.0], &mut found);
        assert_eq!(found, Channels { absmax: vec![3.0, 2.0], squares: vec![10.0, 4.0] });
    }

    #[test]
    fn a_square_that_is_not_finite_is_seen() {
        for value in [f32::NAN, f32::INFINITY, 1e30] {
            let mut found = Channels::new(1);
            measure(&[1.0, value], &mut found);
            assert!(!found.squares[0].is_finite(), "{value}");
        }
    }
}
