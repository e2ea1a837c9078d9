//! The quantized model and its float counterpart, side by side.

use super::gram::{self, Gram};
use super::prepare::Prepared;
use super::{BLOCK_TOKENS, CalibrateError, Run};
use super::{factor, gptq};
use crate::plan::Compiled;
use crate::weights::{PackedWeight, PackedWeights};
use ir::weights::{Rounding, StoredWeight, TensorSource};
use rayon::prelude::*;
use runtime::cpu::Launches;
use runtime::plan::{Activation, BufferId, DType, Epilogue, Kernel, Plan, Segment};
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
    let mut reference = Run::begin(models.reference, source, sequences, settings.output_stride)?;
    let mut quantized = Run::begin(models.quantized, source, sequences, settings.output_stride)?;
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
    gram: Gram,
    /// The residual stream's error is in the cross sums, and the weight is applied to the input's.
    is_writer: bool,
    input_error: f64,
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
        let Seen { gram, is_writer, input_error } = self.look(reference, quantized, &exact)?;
        let (hessian, cross) = gram.finish();
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
        let (k, segment) = (self.k, self.weights[0].0);
        let launch = reference.next().and_then(|launch| float_input(&launch.kernel, &segment.weight));
        let (x, out) = launch.ok_or_else(|| CalibrateError::UnknownTensor { name: segment.weight.clone() })?;
        let expected = inputs_of(&quantized.launches, &self.x);
        let floats = reference.launches.floats(x);
        self.check_shape(&reference.launches, x, expected.rows)?;
        let residual = match self.weights {
            [_] => residual(reference, out).zip(residual(quantized, segment.out)),
            _ => None,
        };
        let residual = residual.map(|(a, b)| (reference.launches.floats(a), quantized.launches.floats(b)));
        let residual = residual.filter(|(a, b)| a.len() == b.len() && a.len() == expected.rows * segment.out_features);
        let is_writer = residual.is_some();
        let mut gram = Gram::new(k, if is_writer { segment.out_features } else { k });
        let (mut lost, mut whole) = (0.0, 0.0);
        for start in (0..expected.rows).step_by(BLOCK_TOKENS) {
            let tokens = start..expected.rows.min(start + BLOCK_TOKENS);
            let x = expected.floats(tokens.clone(), k);
            let floats = &floats[tokens.start * k..tokens.end * k];
            let missing: Vec<f32> = floats.iter().zip(&x).map(|(float, x)| float - x).collect();
            lost += squares(&missing);
            whole += squares(floats);
            match residual {
                None => gram.add(&x, &missing),
                Some((float, quantized)) => {
                    let n = segment.out_features;
                    let mut output = vec![0.0; tokens.len() * n];
                    gram::multiply(&missing, exact, k, &mut output);
                    let rows = tokens.start * n..tokens.end * n;
                    for ((out, float), quantized) in output.iter_mut().zip(&float[rows.clone()]).zip(&quantized[rows]) {
                        *out += float - quantized;
                    }
                    gram.add(&x, &output);
                }
            }
        }
        let input_error = (lost / whole.max(f64::MIN_POSITIVE)).sqrt();
        Ok(Seen { gram, is_writer, input_error })
    }

    fn check_shape(&self, reference: &Launches<'_>, x: BufferId, rows: usize) -> Result<(), CalibrateError> {
        let (found, expected) = ([reference.rows(x), reference.cols(x)], [rows, self.k]);
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

fn inputs_of<'b>(launches: &'b Launches<'_>, x: &Activation) -> QuantizedInput<'b> {
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
