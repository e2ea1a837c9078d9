//! The quantized model and its float counterpart, side by side.

use super::machine::{Machine, Step};
use super::prepare::Prepared;
use super::{CalibrateError, Run};
use super::{factor, gptq};
use crate::plan::Compiled;
use crate::weights::{PackedWeight, PackedWeights};
use ir::weights::{Rounding, StoredWeight, TensorSource};
use runtime::observe::{Compared, Residual, Sums};
use runtime::plan::{Activation, BufferId, Epilogue, Kernel, Plan, Segment};
use std::time::{Duration, Instant};

/// The two models, every value in the same basis.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// Nothing is quantized.
    pub reference: &'a Compiled,
    /// Its weights are to be rounded.
    pub quantized: &'a Compiled,
}

/// How weights are rounded.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much of the difference between the float model's outputs and the quantized model's each weight is fitted to
    /// take back before it is rounded; 0 is plain GPTQ, 1 fits the calibration text most and other texts less.
    pub refit: f64,
    /// Added to the diagonal of the Hessian, as a share of its mean; more where that is not enough.
    pub damping: f64,
    /// Inputs with the largest mean square are rounded first.
    pub act_order: bool,
    /// Scales of 4-bit groups are searched for, and may clip.
    pub clip: bool,
    /// How often every value is looked at again after GPTQ, once all others are known.
    pub sweeps: usize,
    /// The head is rounded for every this many tokens.
    pub output_stride: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { refit: 0.5, damping: 0.01, act_order: false, clip: true, sweeps: 3, output_stride: 4 }
    }
}

/// What calibration gives.
#[derive(Clone, Debug, Default)]
pub struct Rounded {
    /// The weights, as they are stored.
    pub packed: PackedWeights,
    /// Each of them, in the order of the plan.
    pub linears: Vec<LinearReport>,
    /// How long each launch of them took, in the order of the plan.
    pub times: Vec<Times>,
}

/// What the weights of a launch took.
#[derive(Clone, Debug)]
pub struct Times {
    /// The first of them.
    pub name: String,
    /// Running both models up to the launch.
    pub models: Duration,
    /// Sums over tokens.
    pub sums: Duration,
    /// The inverse of the Hessian, as a factor.
    pub factor: Duration,
    /// Making the weights' values, refitting and rounding them.
    pub rounding: Duration,
}

/// How a linear fared.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearReport {
    /// Its weight.
    pub name: String,
    /// Relative error of its input: what the layers before it have lost.
    pub input_error: f64,
    /// Relative error of the weight.
    pub weight_error: f64,
}

/// Rounds every weight whose rounding is GPTQ, in the order of the plan. `progress` is called with the launches done and
/// the launches there are.
///
/// # Errors
/// When a model cannot be run, activations are not finite, or the two plans do not belong together.
pub fn round_weights(
    machine: Machine<'_>,
    models: Models<'_>,
    source: &dyn TensorSource,
    sequences: &[&[u32]],
    settings: Settings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Rounded, CalibrateError> {
    let mut pending = models.quantized.weights.iter().filter(|weight| is_pending(weight)).count();
    if pending == 0 {
        return Ok(Rounded::default());
    }
    let total = models.reference.plan.launches.len() + models.quantized.plan.launches.len();
    let mut reference = Run::begin(machine, models.reference, source, sequences, settings.output_stride)?;
    let mut quantized = Run::begin(machine, models.quantized, source, sequences, settings.output_stride)?;
    let mut rounded = Rounded::default();
    let mut since = Instant::now();
    while let (true, Some(launch)) = (pending > 0, quantized.next()) {
        progress(reference.launches.next() + quantized.launches.next(), total);
        if let Kernel::Linear { x, in_features, segments } = &launch.kernel {
            let weights = pending_weights(&quantized, segments)?;
            if let [(first, _), ..] = weights[..] {
                advance_to(&mut reference, &first.weight)?;
                let linear = Linear { x: *x, k: *in_features, weights: &weights };
                let models = since.elapsed();
                let times = linear.round(&reference, &quantized, settings, &mut rounded)?;
                rounded.times.push(Times { models, ..times });
                since = Instant::now();
                pending -= weights.len();
            }
        }
        if pending > 0 {
            quantized.advance(&rounded.packed)?;
        }
    }
    progress(total, total);
    Ok(rounded)
}

fn is_pending(weight: &StoredWeight) -> bool {
    weight.rounding == Rounding::Gptq
}

type Pending<'a> = (&'a Segment, &'a StoredWeight);

fn pending_weights<'a>(run: &Run<'a>, segments: &'a [Segment]) -> Result<Vec<Pending<'a>>, CalibrateError> {
    let mut pending = Vec::new();
    for segment in segments {
        let weight = run.stored.weight(&segment.weight)?;
        if is_pending(weight) {
            pending.push((segment, weight));
        }
    }
    Ok(pending)
}

/// Runs the float model up to the launch that multiplies by a weight.
fn advance_to(run: &mut Run<'_>, weight: &str) -> Result<(), CalibrateError> {
    while let Some(launch) = run.next() {
        if float_input(&launch.kernel, weight).is_some() {
            return Ok(());
        }
        run.advance(&PackedWeights::new())?;
    }
    Err(CalibrateError::UnknownTensor { name: weight.to_owned() })
}

/// The float input and the output of a weight in this launch.
fn float_input(kernel: &Kernel, weight: &str) -> Option<(BufferId, BufferId)> {
    let Kernel::Linear { x: Activation::Float { data }, segments, .. } = kernel else { return None };
    let segment = segments.iter().find(|segment| segment.weight == weight)?;
    Some((*data, segment.out))
}

/// A launch of the quantized model, about to run.
struct Linear<'a> {
    x: Activation,
    k: usize,
    weights: &'a [Pending<'a>],
}

/// What the weights of a launch are rounded by.
struct Seen {
    sums: Sums,
    /// The residual stream's error is in the cross sums, and the weight is applied to the input's.
    is_writer: bool,
}

impl Linear<'_> {
    fn round(
        &self,
        reference: &Run<'_>,
        quantized: &Run<'_>,
        settings: Settings,
        rounded: &mut Rounded,
    ) -> Result<Times, CalibrateError> {
        let started = Instant::now();
        let first = self.weights[0].0;
        let not_finite = || CalibrateError::NotFinite { weight: first.weight.clone() };
        let mut exact = self.values(quantized, 0)?;
        let Seen { sums: Sums { hessian, cross, lost, whole }, is_writer } = self.look(reference, quantized, &exact)?;
        let input_error = (lost / whole.max(f64::MIN_POSITIVE)).sqrt();
        if !cross.iter().all(|value| value.is_finite()) {
            return Err(not_finite());
        }
        let sums = started.elapsed();
        let prepared = Prepared::new(hessian, self.k, settings).ok_or_else(not_finite)?;
        let factor = started.elapsed() - sums;
        for (at, (segment, weight)) in self.weights.iter().enumerate() {
            if at > 0 {
                exact = self.values(quantized, at)?;
            }
            let mut target = exact.clone();
            if settings.refit > 0.0 {
                let lacking = if is_writer { cross.clone() } else { factor::multiply(&exact, &cross, self.k) };
                prepared.factor.add_solution(&lacking, settings.refit, &mut target);
            }
            let packed = gptq::round(weight.format, target, &exact, &prepared.inputs());
            rounded.note(&segment.weight, packed, input_error);
        }
        let rounding = started.elapsed() - sums - factor;
        Ok(Times { name: first.weight.clone(), models: Duration::ZERO, sums, factor, rounding })
    }

    /// What a weight of the launch stands for.
    fn values(&self, quantized: &Run<'_>, at: usize) -> Result<Vec<f32>, CalibrateError> {
        let weight = self.weights[at].1;
        Ok(quantized.evaluator.values(&weight.name, &weight.expr)?)
    }

    /// Sums up the inputs, and what the outputs lack.
    fn look(&self, reference: &Run<'_>, quantized: &Run<'_>, exact: &[f32]) -> Result<Seen, CalibrateError> {
        let segment = self.weights[0].0;
        let launch = reference.next().and_then(|launch| float_input(&launch.kernel, &segment.weight));
        let (x, out) = launch.ok_or_else(|| CalibrateError::UnknownTensor { name: segment.weight.clone() })?;
        let (Activation::Float { data } | Activation::Quantized { data, .. }) = self.x;
        let [rows, _] = quantized.launches.shape(data);
        self.check_shape(&reference.launches, x, rows)?;
        let residual = match self.weights {
            [_] => residual(reference, out).zip(residual(quantized, segment.out)),
            _ => None,
        };
        let whole = [rows, segment.out_features];
        let residual = residual.filter(|(exact, found)| {
            reference.launches.shape(*exact) == whole && quantized.launches.shape(*found) == whole
        });
        let is_writer = residual.is_some();
        let residual = residual.map(|(from, found)| Residual {
            exact: from,
            found,
            weight: exact,
            out_features: segment.out_features,
        });
        let linear = Compared { x: self.x, exact: x, in_features: self.k, residual };
        let sums = quantized.launches.sums(&reference.launches, &linear)?;
        Ok(Seen { sums, is_writer })
    }

    fn check_shape(&self, reference: &Step<'_>, x: BufferId, rows: usize) -> Result<(), CalibrateError> {
        let (found, expected) = (reference.shape(x), [rows, self.k]);
        if found == expected {
            return Ok(());
        }
        let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
        Err(CalibrateError::Different { weight: self.weights[0].0.weight.clone(), expected, found })
    }
}

impl Rounded {
    fn note(&mut self, name: &str, packed: PackedWeight, input_error: f64) {
        let weight_error = packed.error.relative();
        self.linears.push(LinearReport { name: name.to_owned(), input_error, weight_error });
        self.packed.insert(name.to_owned(), packed);
    }
}

/// The buffer of the residual stream that the next launch adds to, given where it puts its result.
fn residual(run: &Run<'_>, out: BufferId) -> Option<BufferId> {
    let plan: &Plan = run.launches.plan();
    let mut launches = plan.launches[run.launches.next()..].iter();
    let Some(Kernel::Linear { segments, .. }) = launches.next().map(|launch| &launch.kernel) else { return None };
    if segments.iter().any(|segment| segment.out == out && segment.epilogue == Epilogue::Accumulate) {
        return Some(out);
    }
    let mut result = out;
    for launch in launches {
        match &launch.kernel {
            Kernel::Dequantize { acc, out, relu2: false, .. } if *acc == result => result = *out,
            Kernel::Add { a, b, .. } if *a == result => return Some(*b),
            Kernel::Add { a, b, .. } if *b == result => return Some(*a),
            Kernel::RmsNorm { x, delta: Some(delta), .. } if *delta == result => return Some(*x),
            _ => return None,
        }
    }
    None
}
