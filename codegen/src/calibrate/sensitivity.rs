//! What the model would lose by each weight in each format.
//!
//! The float model runs on the calibration text. At each weight, the weight is rounded as it would be stored, and the
//! rest of the model runs once more from there, everything else exact: the divergence of its predictions from those of
//! the exact model is what this weight costs. That is measured for the first of the formats. Divergence grows as the
//! energy of an error does, so other formats count by the error that they leave in the weight's own outputs.
//!
//! That is done on the CPU. All runs go through the launches together, so that the tensors of a launch are made once for all of them.

use super::gram;
use super::prepare::Prepared;
use super::tensors::Tensors;
use super::{BLOCK_TOKENS, CalibrateError, Machine, Run, Settings};
use crate::plan::Compiled;
use crate::weights::{PackedWeight, PackedWeights, RowBytes, dequantize, from_f32, shape};
use ir::weights::{StorageFormat, StoredWeight, TensorSource};
use runtime::cpu::Launches;
use runtime::eval::mean_divergence;
use runtime::plan::{Activation, Kernel, Launch};

/// Memory of the runs that go through the launches together.
const MEMORY: u64 = 1 << 30;

/// A weight, and what it would be in each format.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    /// Its name.
    pub name: String,
    /// Of each format that was asked for, in order.
    pub costs: Vec<FormatCost>,
}

/// A weight in a format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FormatCost {
    /// Bytes of all its tensors.
    pub bytes: u64,
    /// Energy of the error of its outputs, relative to that of the outputs.
    pub output_error: f64,
    /// Mean divergence of the model's predictions when this weight alone is rounded, in nats.
    pub divergence: f64,
}

/// What sensitivity is measured on.
#[derive(Clone, Copy, Debug)]
pub struct Probing<'a> {
    /// Weights are rounded for these.
    pub sequences: &'a [&'a [u32]],
    /// The model is run once for each weight on so many of them.
    pub probes: usize,
    /// Predictions are compared for every this many tokens.
    pub output_stride: usize,
}

/// Measures every weight for which `formats` names formats; a float format is free of loss. The reference's weights are
/// floats, in the basis in which they are to be rounded. `progress` is called with the launches done and the launches
/// there are, over all runs.
///
/// # Errors
/// When the model cannot be run or its activations are not finite.
pub fn sensitivities(
    reference: &Compiled,
    source: &dyn TensorSource,
    probing: Probing<'_>,
    formats: &dyn Fn(&StoredWeight) -> Vec<StorageFormat>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Sensitivity>, CalibrateError> {
    let few = &probing.sequences[..probing.probes.clamp(1, probing.sequences.len().max(1))];
    let whole = Run::begin(Machine::Cpu, reference, source, probing.sequences, probing.output_stride)?;
    let exact = Launches::begin(&reference.plan, few, probing.output_stride)?;
    let mut session = Session { whole, exact, formats, expected: Vec::new(), forks: Vec::new(), found: Vec::new() };
    let mut counter = Counter { done: 0, total: session.count()?, report: progress };
    session.predict(&mut counter)?;
    for (index, launch) in reference.plan.launches.iter().enumerate() {
        let is_last = index + 1 == reference.plan.launches.len();
        session.step(launch, is_last, &mut counter)?;
    }
    session.finish(&mut counter)?;
    Ok(session.found)
}

/// Counts launches.
struct Counter<'p> {
    done: usize,
    total: usize,
    report: &'p mut dyn FnMut(usize, usize),
}

impl Counter<'_> {
    fn add(&mut self, launches: usize) {
        self.done += launches;
        (self.report)(self.done, self.total);
    }
}

/// A run that differs from the exact one by a weight.
struct Fork<'a> {
    launches: Launches<'a>,
    /// Its place in the result.
    index: usize,
}

struct Session<'a, 'f> {
    /// All sequences; also what makes tensors.
    whole: Run<'a>,
    /// A few of them, at the same launch.
    exact: Launches<'a>,
    formats: &'f dyn Fn(&StoredWeight) -> Vec<StorageFormat>,
    /// The logits of the exact model.
    expected: Vec<f32>,
    forks: Vec<Fork<'a>>,
    found: Vec<Sensitivity>,
}

/// A weight of a launch that is to be measured.
struct Subject<'a> {
    weight: &'a StoredWeight,
    formats: Vec<StorageFormat>,
}

/// A weight that was rounded, its divergence yet to come.
struct Measured {
    sensitivity: Sensitivity,
    /// Its values in the first format, as the reference stores them.
    replaced: PackedWeight,
}

impl<'a> Session<'a, '_> {
    /// Launches of all runs.
    fn count(&self) -> Result<usize, CalibrateError> {
        let launches = &self.whole.launches.plan().launches;
        let mut total = 2 * launches.len();
        for (index, launch) in launches.iter().enumerate() {
            total += self.subjects(&launch.kernel)?.len() * (launches.len() - index);
        }
        Ok(total)
    }

    fn subjects(&self, kernel: &Kernel) -> Result<Vec<Subject<'a>>, CalibrateError> {
        let names: Vec<&str> = match kernel {
            Kernel::Embed { table, .. } => vec![&table.weight],
            Kernel::Linear { segments, .. } => segments.iter().map(|segment| segment.weight.as_str()).collect(),
            _ => Vec::new(),
        };
        let mut subjects = Vec::new();
        for name in names {
            let weight = self.whole.stored.weight(name)?;
            let formats = (self.formats)(weight);
            if !formats.is_empty() {
                subjects.push(Subject { weight, formats });
            }
        }
        Ok(subjects)
    }

    /// Runs the exact model to its end.
    fn predict(&mut self, counter: &mut Counter<'_>) -> Result<(), CalibrateError> {
        let mut launches = self.exact.fork();
        for launch in &launches.plan().launches {
            launches.run(&self.tensors(launch, &PackedWeights::new())?)?;
            counter.add(1);
        }
        self.expected = launches.floats(launches.plan().logits).to_vec();
        Ok(())
    }

    fn tensors(&self, launch: &Launch, packed: &PackedWeights) -> Result<Tensors, CalibrateError> {
        self.whole.stored.tensors(&launch.kernel, packed, &self.whole.evaluator)
    }

    /// Everything moves on by one launch.
    fn step(&mut self, launch: &Launch, is_last: bool, counter: &mut Counter<'_>) -> Result<(), CalibrateError> {
        let tensors = self.tensors(launch, &PackedWeights::new())?;
        for fork in &mut self.forks {
            fork.launches.run(&tensors)?;
        }
        counter.add(self.forks.len() + 1);
        for Measured { sensitivity, replaced } in self.round(&launch.kernel)? {
            let packed = PackedWeights::from([(sensitivity.name.clone(), replaced)]);
            let mut launches = self.exact.fork();
            launches.run(&self.tensors(launch, &packed)?)?;
            self.forks.push(Fork { launches, index: self.found.len() });
            self.found.push(sensitivity);
            counter.add(1);
        }
        self.exact.run(&tensors)?;
        if !is_last {
            // Nobody asks for predictions on all sequences.
            self.whole.launches.run(&tensors)?;
        }
        if self.forks.len() as u64 * self.exact.memory_bytes() >= MEMORY {
            self.finish(counter)?;
        }
        Ok(())
    }

    /// Runs the forks to their ends and compares.
    fn finish(&mut self, counter: &mut Counter<'_>) -> Result<(), CalibrateError> {
        let mut forks = std::mem::take(&mut self.forks);
        let rest = &self.exact.plan().launches[self.exact.next()..];
        for launch in rest {
            let tensors = self.tensors(launch, &PackedWeights::new())?;
            for fork in &mut forks {
                fork.launches.run(&tensors)?;
            }
            counter.add(forks.len());
        }
        let plan = self.exact.plan();
        for Fork { launches, index } in forks {
            let divergence = mean_divergence(&self.expected, launches.floats(plan.logits), plan.model.vocab_size);
            let sensitivity = &mut self.found[index];
            if !divergence.is_finite() {
                return Err(CalibrateError::NotFinite { weight: sensitivity.name.clone() });
            }
            let coarsest = sensitivity.costs[0].output_error.max(f64::MIN_POSITIVE);
            sensitivity.costs.iter_mut().for_each(|cost| cost.divergence = divergence * cost.output_error / coarsest);
        }
        Ok(())
    }

    /// The weights of a launch, rounded.
    fn round(&self, kernel: &Kernel) -> Result<Vec<Measured>, CalibrateError> {
        let subjects = self.subjects(kernel)?;
        if subjects.is_empty() {
            return Ok(Vec::new());
        }
        let rounder = match kernel {
            Kernel::Linear { x: Activation::Float { data }, in_features, segments } => {
                let not_finite = || CalibrateError::NotFinite { weight: segments[0].weight.clone() };
                let inputs = (self.whole.launches.floats(*data)?, self.exact.floats(*data));
                Some(Rounder::new(&inputs.0, inputs.1, *in_features).ok_or_else(not_finite)?)
            }
            _ => None,
        };
        subjects.iter().map(|subject| self.measure(subject, rounder.as_ref())).collect()
    }

    fn measure(&self, subject: &Subject<'_>, rounder: Option<&Rounder<'_>>) -> Result<Measured, CalibrateError> {
        let Subject { weight, formats } = subject;
        let StorageFormat::Float { dtype } = weight.format else {
            panic!("bug: {} is quantized in the reference model", weight.name)
        };
        let [rows, cols] = <[usize; 2]>::try_from(shape(&weight.name, &weight.expr)?)
            .map_err(|_| CalibrateError::UnknownTensor { name: weight.name.clone() })?;
        let exact = self.whole.evaluator.values(&weight.name, &weight.expr)?;
        let mut costs = Vec::new();
        let mut first = None;
        for format in formats {
            let row = RowBytes::new(*format, cols);
            let bytes = (rows * (row.weight + row.group_scale + row.scale)) as u64;
            let mut cost = FormatCost { bytes, output_error: 0.0, divergence: 0.0 };
            if !matches!(format, StorageFormat::Float { .. }) {
                let packed = match rounder {
                    Some(rounder) => rounder.prepared.round(*format, &exact),
                    None => {
                        let stored = StoredWeight { format: *format, ..(*weight).clone() };
                        self.whole.evaluator.rounded_to_nearest(&stored)?
                    }
                };
                let values = dequantize(*format, rows, cols, &packed.weight, &packed.group_scale, &packed.scale)
                    .unwrap_or_else(|| panic!("bug: {} cannot be read back", weight.name));
                cost.output_error = match rounder {
                    Some(rounder) => rounder.output_error(&exact, &values),
                    None => packed.error.relative().powi(2),
                };
                first.get_or_insert(values);
            }
            costs.push(cost);
        }
        let values = first.unwrap_or(exact);
        let mut replaced = PackedWeight { weight: vec![0; values.len() * dtype.bytes()], ..PackedWeight::default() };
        from_f32(dtype, &values, &mut replaced.weight);
        Ok(Measured { sensitivity: Sensitivity { name: weight.name.clone(), costs }, replaced })
    }
}

/// What the weights of a launch are rounded by, and what their errors are measured on.
struct Rounder<'x> {
    k: usize,
    prepared: Prepared,
    few: &'x [f32],
}

impl<'x> Rounder<'x> {
    fn new(whole: &[f32], few: &'x [f32], k: usize) -> Option<Rounder<'x>> {
        Some(Rounder { k, prepared: Prepared::of(whole, k, Settings::default())?, few })
    }

    /// Energy of what the weight's outputs are off by, relative to theirs.
    fn output_error(&self, exact: &[f32], values: &[f32]) -> f64 {
        let off: Vec<f32> = exact.iter().zip(values).map(|(exact, value)| exact - value).collect();
        self.energy(&off) / self.energy(exact).max(f64::MIN_POSITIVE)
    }

    fn energy(&self, w: &[f32]) -> f64 {
        let (k, n) = (self.k, w.len() / self.k);
        let mut sum = 0.0;
        for x in self.few.chunks(BLOCK_TOKENS * k) {
            let mut out = vec![0.0; x.len() / k * n];
            gram::multiply(x, w, k, &mut out);
            sum += super::machine::squares(&out);
        }
        sum
    }
}
