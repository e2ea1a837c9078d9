//! From weight expressions to the tensors of an artifact: read, scale, rotate, round, pack, on all cores.
//!
//! Weights stream through: rows are computed in blocks that fit a cache and written in panels. Only a weight whose
//! output side is rotated is held whole, as f32. The result does not depend on the number of threads, nor on the
//! machine.

mod align;
mod calibrated;
mod chain;
mod convert;
mod dequantize;
mod error;
mod evaluate;
mod hadamard;
mod klt;
mod matmul;
mod quantize;
mod random;
mod rotation;
mod rows;
mod shape;
mod smooth;
mod stream;

#[cfg(test)]
mod tests;

pub use calibrated::Calibrated;
pub use convert::{from_f32, to_f32};
pub use dequantize::{dequantize, dequantize_stored};
pub use error::WeightError;
pub use evaluate::{Evaluator, PackedWeight, PackedWeights};
pub use quantize::{
    ErrorStats, NotFinite, PackedRows, QuantizeRows, RowBytes, pack_nibbles, quantizer, stored_tensors, unpack_nibbles,
};
pub(crate) use quantize::{Q_MAX, S_MAX};
pub(crate) use random::SplitMix64;
pub use rotation::{NoTensors, Orthogonal};
pub(crate) use shape::matrix;
pub use shape::shape;

use crate::writer::ArtifactWriter;
use chain::{Chain, Context, Rotations};
use ir::weights::{FloatType, Rounding, StorageFormat, StoredParameter, StoredWeight, TensorSource, WeightExpr};
use rayon::prelude::*;
use runtime::artifact::{Layout, Metadata, TensorSpec};
use runtime::plan::DType;
use smooth::ColumnMaxima;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stream::{Job, Progress};

/// Bytes that may be held at a time for weights in flight; a single larger weight is done alone.
const MEMORY_BUDGET: usize = 512 << 20;

/// A file to store beside the weights: tokenizer, generation config, compiled kernels.
#[derive(Clone, Debug)]
pub struct ExtraTensor {
    /// Its name, type and shape.
    pub spec: TensorSpec,
    /// Its contents.
    pub bytes: Vec<u8>,
}

impl ExtraTensor {
    /// A file, as a u8 vector.
    pub fn file(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        ExtraTensor { spec: TensorSpec { name: name.into(), dtype: DType::U8, shape: vec![bytes.len()] }, bytes }
    }
}

/// Everything that goes into an artifact.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Quantized or float matrices, stored as [`stored_tensors`] says.
    pub weights: &'a [StoredWeight],
    /// Stored as f32.
    pub parameters: &'a [StoredParameter],
    /// Stored as they are.
    pub extra: &'a [ExtraTensor],
    /// Plan, recipe, provenance.
    pub metadata: &'a Metadata,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The artifact.
    pub path: PathBuf,
    /// Its size.
    pub file_bytes: u64,
    /// Each of [`Contents::weights`], in order.
    pub weights: Vec<WeightSummary>,
}

/// How a weight came out.
#[derive(Clone, Debug)]
pub struct WeightSummary {
    /// Its name.
    pub name: String,
    /// Its format.
    pub format: StorageFormat,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Bytes of all its tensors.
    pub stored_bytes: usize,
    /// Difference between the stored values and the expression, in the basis they are stored in; all zeros for a weight
    /// that is copied.
    pub error: ErrorStats,
}

/// Where every tensor of the artifact will be, and its exact size, from shapes alone: no checkpoint is needed.
///
/// # Errors
/// When an expression, a format or a name is impossible.
pub fn layout(contents: &Contents<'_>) -> Result<Layout, WeightError> {
    let jobs = jobs(contents)?;
    let specs = jobs.into_iter().flat_map(|job| job.tensors);
    let extra = contents.extra.iter().map(|extra| extra.spec.clone());
    Ok(Layout::new(&contents.metadata.to_map()?, specs.chain(extra))?)
}

/// Writes the artifact. `progress` is called with the bytes done and the bytes there are, from any thread.
///
/// # Errors
/// On missing or wrong tensors, values that cannot be quantized, and when the file cannot be written. Then there is no
/// file at `path`, or still the earlier one.
pub fn materialize(
    contents: &Contents<'_>,
    source: &dyn TensorSource,
    path: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Summary, WeightError> {
    materialize_calibrated(contents, &PackedWeights::new(), source, path, progress)
}

/// [`materialize`] with weights that calibration has rounded.
///
/// # Errors
/// As [`materialize`]; also when a weight to be rounded by calibration is not among `packed`.
pub fn materialize_calibrated(
    contents: &Contents<'_>,
    packed: &PackedWeights,
    source: &dyn TensorSource,
    path: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Summary, WeightError> {
    let jobs = jobs(contents)?;
    check_packed(&jobs, packed)?;
    let rotations = rotations_of(jobs.iter().map(|job| job.expr), source)?;
    // Every tensor is looked up before a file is created.
    let maxima = maxima_of(jobs.iter().map(|job| (job.name, job.expr)), source, &rotations)?;
    let chains = jobs.iter().map(|job| prepare(job, source, &rotations, &maxima)).collect::<Result<Vec<_>, _>>()?;
    let writer = ArtifactWriter::create(path, layout(contents)?)?;
    for extra in contents.extra {
        stream::write_whole(&writer, &extra.spec.name, &extra.bytes)?;
    }
    let progress = Progress::new(progress, chains.iter().map(Prepared::input_bytes).sum());
    let mut errors = Vec::with_capacity(jobs.len());
    for wave in waves(&chains) {
        let work = jobs[wave.clone()].par_iter().zip(&chains[wave]);
        let done: Result<Vec<ErrorStats>, WeightError> = work
            .map(|(job, prepared)| match prepared {
                Prepared::Matrix(chain) => match packed.get(job.name) {
                    Some(packed) => stream::packed(job, packed, &writer, &progress, prepared.input_bytes()),
                    None => stream::matrix(job, chain, source, &writer, &progress),
                },
                Prepared::Vector(values) => stream::vector(job, values, &writer, &progress),
            })
            .collect();
        errors.extend(done?);
    }
    let file_bytes = writer.finish()?;
    let weights = contents.weights.iter().zip(&jobs).zip(errors);
    let weights = weights.map(|((weight, job), error)| summarize(weight, job, error)).collect::<Result<_, _>>()?;
    Ok(Summary { path: path.to_owned(), file_bytes, weights })
}

/// An expression whose tensors were found.
enum Prepared<'a> {
    Matrix(Chain<'a>),
    Vector(Vec<f32>),
}

impl Prepared<'_> {
    fn input_bytes(&self) -> u64 {
        match self {
            Prepared::Matrix(chain) => chain.rows as u64 * chain.row_bytes() as u64,
            Prepared::Vector(values) => 4 * values.len() as u64,
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Prepared::Matrix(chain) => stream::memory_bytes(chain),
            Prepared::Vector(values) => 4 * values.len(),
        }
    }
}

/// Weights first, then parameters.
fn jobs<'a>(contents: &Contents<'a>) -> Result<Vec<Job<'a>>, WeightError> {
    let weights = contents.weights.iter().map(|weight| {
        let [rows, cols] = shape::matrix(&weight.name, &weight.expr)?;
        let tensors = stored_tensors(&weight.name, weight.format, rows, cols)?;
        Ok(Job { name: &weight.name, expr: &weight.expr, format: weight.format, rounding: round_now(weight)?, tensors })
    });
    let parameters = contents.parameters.iter().map(|StoredParameter { name, expr }| {
        let format = StorageFormat::Float { dtype: FloatType::F32 };
        let rounding = quantizer(name, format, Rounding::Rtn)?;
        let spec = TensorSpec { name: name.clone(), dtype: DType::F32, shape: shape(name, expr)? };
        Ok(Job { name, expr, format, rounding: Some(rounding), tensors: vec![spec] })
    });
    weights.chain(parameters).collect()
}

fn prepare<'a>(
    job: &Job<'a>,
    source: &'a dyn TensorSource,
    rotations: &'a Rotations,
    maxima: &'a ColumnMaxima<'a>,
) -> Result<Prepared<'a>, WeightError> {
    let context = Context { weight: job.name, source, rotations, maxima };
    if shape(job.name, job.expr)?.len() == 1 {
        return Ok(Prepared::Vector(chain::vector(job.expr, context)?));
    }
    Ok(Prepared::Matrix(Chain::new(job.expr, context)?))
}

/// The rounding of a weight, unless it is the business of calibration.
fn round_now(weight: &StoredWeight) -> Result<Option<Box<dyn QuantizeRows>>, WeightError> {
    match (weight.rounding, weight.format) {
        (Rounding::Gptq, StorageFormat::W8 | StorageFormat::W4TwoLevel { .. } | StorageFormat::W4Group { .. }) => {
            Ok(None)
        }
        _ => Ok(Some(quantizer(&weight.name, weight.format, weight.rounding.to_nearest())?)),
    }
}

/// Before anything is written: is everything there that calibration was to give?
fn check_packed(jobs: &[Job<'_>], packed: &PackedWeights) -> Result<(), WeightError> {
    for job in jobs.iter().filter(|job| job.rounding.is_none()) {
        let [rows, cols] = shape::matrix(job.name, job.expr)?;
        let given = packed
            .get(job.name)
            .ok_or_else(|| WeightError::NeedsCalibration { weight: job.name.into(), rounding: "GPTQ" })?;
        if !given.fits(job.format, rows, cols) {
            return Err(WeightError::invalid(job.name, "was rounded to another format than it is stored in"));
        }
    }
    Ok(())
}

fn rotations_of<'e>(
    expressions: impl Iterator<Item = &'e WeightExpr>,
    source: &dyn TensorSource,
) -> Result<Rotations, WeightError> {
    let mut rotations = Rotations::new();
    let mut pending: Vec<&WeightExpr> = expressions.collect();
    while let Some(expr) = pending.pop() {
        match expr {
            WeightExpr::Tensor { .. } => {}
            WeightExpr::SliceRows { base, .. } => pending.push(base),
            WeightExpr::ScaleColumns { base, by, .. } | WeightExpr::ScaleRows { base, by, .. } => {
                pending.extend([&**base, by]);
            }
            WeightExpr::ColumnAbsmax { base, other } => pending.extend([&**base].into_iter().chain(other.as_deref())),
            WeightExpr::SmoothFactors { absmax, columns, .. } => pending.extend([&**absmax, columns]),
            WeightExpr::Rotate { base, rotation, .. } => {
                pending.push(base);
                if !rotations.contains_key(rotation) {
                    rotations.insert(rotation.clone(), Arc::new(Orthogonal::new(rotation, source)?));
                }
            }
        }
    }
    Ok(rotations)
}

/// Reads the weights on which factors depend; shapes were checked.
fn maxima_of<'a>(
    expressions: impl Iterator<Item = (&'a str, &'a WeightExpr)>,
    source: &dyn TensorSource,
    rotations: &Rotations,
) -> Result<ColumnMaxima<'a>, WeightError> {
    let (mut maxima, none) = (ColumnMaxima::default(), ColumnMaxima::default());
    for (name, expr) in expressions {
        let context = Context { weight: name, source, rotations, maxima: &none };
        for weight in measured(expr) {
            if maxima.find(weight).is_none() {
                maxima.insert(weight, smooth::column_maxima(weight, context)?);
            }
        }
    }
    Ok(maxima)
}

/// The weight of every [`WeightExpr::ColumnAbsmax`] in an expression.
fn measured(expr: &WeightExpr) -> Vec<&WeightExpr> {
    match expr {
        WeightExpr::Tensor { .. } => vec![],
        WeightExpr::SliceRows { base, .. } | WeightExpr::Rotate { base, .. } => measured(base),
        WeightExpr::ScaleColumns { base, by, .. } | WeightExpr::ScaleRows { base, by, .. } => {
            [measured(base), measured(by)].concat()
        }
        WeightExpr::ColumnAbsmax { base, other } => {
            [vec![&**base], other.as_deref().map(measured).unwrap_or_default()].concat()
        }
        WeightExpr::SmoothFactors { absmax, columns, .. } => [measured(absmax), measured(columns)].concat(),
    }
}

/// Consecutive jobs that fit the memory together.
fn waves(jobs: &[Prepared<'_>]) -> Vec<Range<usize>> {
    let mut waves: Vec<Range<usize>> = vec![];
    let mut held = 0;
    for (index, job) in jobs.iter().enumerate() {
        let bytes = job.memory_bytes();
        match waves.last_mut() {
            Some(wave) if held + bytes <= MEMORY_BUDGET => {
                wave.end = index + 1;
                held += bytes;
            }
            _ => {
                waves.push(index..index + 1);
                held = bytes;
            }
        }
    }
    waves
}

fn summarize(weight: &StoredWeight, job: &Job<'_>, error: ErrorStats) -> Result<WeightSummary, WeightError> {
    Ok(WeightSummary {
        name: weight.name.clone(),
        format: weight.format,
        shape: shape::matrix(&weight.name, &weight.expr)?,
        stored_bytes: job.tensors.iter().filter_map(TensorSpec::bytes).sum(),
        error,
    })
}
