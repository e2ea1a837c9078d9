//! Calibration: what a model does on a text decides how its weights are rounded.
//!
//! [`collect_statistics`] runs a model and records how large the inputs of its linears are. [`round_weights`] runs a
//! quantized plan and its float counterpart side by side, launch by launch, over the whole text: at each linear it sees
//! the inputs that the quantized model really has there, rounds the weight by GPTQ so that the *outputs* come out right,
//! and goes on with what was stored. Errors made upstream are seen, and partly repaired, downstream. [`sensitivities`]
//! measures what each weight alone would cost in each format, to choose among formats.
//!
//! The models, and what is summed up over their tokens, run on a [`Machine`]: the CPU, or a GPU, which then holds the buffers of
//! both models, the two sums and 4096 rows of what is summed. Weights are made, factorized and rounded on the CPU.
//!
//! Rounding holds one step with all tokens of the text in it: the plan's buffers, for both models. Statistics go through the
//! text in steps of [`STEP_TOKENS`], states carried from one to the next. For a linear with `k` inputs and `m` outputs,
//! rounding further holds the Hessian (`4 k^2` bytes), the sums of what the outputs lack (`4 k^2`, `4 m k` for a writer of the
//! residual stream) and, while the Hessian is factorized, `16 k^2`; then `12 k^2` and three copies of the weight. At
//! down_proj of the 8B model (4096 x 21504) that is 1.85 GB, 0.35 GB and 7.4 GB: 9.6 GB at most. Results do not
//! depend on the number of threads; they may differ in the last bits between processors.

mod blocked;
mod covariance;
mod descend;
mod error;
mod factor;
mod gptq;
mod gram;
mod lockstep;
mod machine;
mod prepare;
mod scales;
mod sensitivity;
mod sequences;
mod statistics;
mod tensors;

pub use covariance::collect_covariances;
pub use error::CalibrateError;
pub use lockstep::{LinearReport, Models, Rounded, Settings, Times, round_weights};
pub use machine::Machine;
pub use prepare::Prepared;
pub use sensitivity::{FormatCost, Probing, Sensitivity, sensitivities};
pub use sequences::{sequences, text_digest};
pub use statistics::{STEP_TOKENS, collect_statistics};

use crate::plan::Compiled;
use crate::weights::{Evaluator, PackedWeights};
use ir::weights::TensorSource;
use machine::Step;
use runtime::plan::Launch;
use tensors::Stored;

/// Tokens whose activations are looked at together.
const BLOCK_TOKENS: usize = 4096;

/// A plan being executed, its tensors made launch by launch.
struct Run<'a> {
    launches: Step<'a>,
    stored: Stored<'a>,
    evaluator: Evaluator<'a>,
}

impl<'a> Run<'a> {
    fn begin(
        machine: Machine<'a>,
        compiled: &'a Compiled,
        source: &'a dyn TensorSource,
        sequences: &[&[u32]],
        output_stride: usize,
    ) -> Result<Run<'a>, CalibrateError> {
        Ok(Run {
            launches: Step::begin(machine, &compiled.plan, sequences, output_stride)?,
            stored: Stored::new(compiled),
            evaluator: Evaluator::new(&compiled.weights, &compiled.parameters, source)?,
        })
    }

    /// The launch that runs next.
    fn next(&self) -> Option<&'a Launch> {
        self.launches.plan().launches.get(self.launches.next())
    }

    /// Runs it.
    fn advance(&mut self, packed: &PackedWeights) -> Result<(), CalibrateError> {
        if let Some(launch) = self.next() {
            let tensors = self.stored.tensors(&launch.kernel, packed, &self.evaluator)?;
            self.launches.run(&tensors)?;
        }
        Ok(())
    }
}
