//! One weight, from its expression to its tensors in the file.

use super::chain::Chain;
use super::error::WeightError;
use super::evaluate::PackedWeight;
use super::quantize::{ErrorStats, PackedRows, QuantizeRows, RowBytes};
use super::rows::Rows;
use crate::writer::{ArtifactWriter, TensorWriter, WriteError};
use ir::weights::{StorageFormat, TensorSource, WeightExpr};
use rayon::prelude::*;
use runtime::artifact::TensorSpec;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Elements that one thread rounds at a time: half a MiB of f32, which fits the L2 cache.
const BLOCK_ELEMENTS: usize = 1 << 17;
/// Elements between two writes.
const PANEL_ELEMENTS: usize = 1 << 22;

/// A weight or parameter to store.
pub(super) struct Job<'a> {
    pub name: &'a str,
    pub expr: &'a WeightExpr,
    pub format: StorageFormat,
    /// `None` when calibration has rounded it.
    pub rounding: Option<Box<dyn QuantizeRows>>,
    pub tensors: Vec<TensorSpec>,
}

/// Counts input bytes.
pub(super) struct Progress<'a> {
    report: &'a (dyn Fn(u64, u64) + Sync),
    done: AtomicU64,
    total: u64,
}

impl<'a> Progress<'a> {
    pub(super) fn new(report: &'a (dyn Fn(u64, u64) + Sync), total: u64) -> Self {
        Progress { report, done: AtomicU64::new(0), total }
    }

    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.report)(done, self.total);
    }
}

/// What [`matrix`] allocates at most.
pub(super) fn memory_bytes(chain: &Chain<'_>) -> usize {
    let whole = if chain.mixes_rows() { 4 * chain.read.len() * chain.cols } else { 0 };
    let panel = panel_rows(chain.cols).min(chain.rows) * chain.cols;
    // At most 4 bytes an element come out, and the panel was read from a mapping.
    whole + panel * (4 + chain.dtype.bytes())
}

fn panel_rows(cols: usize) -> usize {
    (PANEL_ELEMENTS / cols).max(1)
}

/// Writes bytes that are already what the artifact holds.
pub(super) fn write_whole(writer: &ArtifactWriter, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
    let mut tensor = writer.tensor(name)?;
    tensor.write(bytes)?;
    tensor.finish()
}

/// Writes a vector as f32.
pub(super) fn vector(
    job: &Job<'_>,
    values: &[f32],
    writer: &ArtifactWriter,
    progress: &Progress<'_>,
) -> Result<ErrorStats, WeightError> {
    if let Some(row) = values.iter().position(|value| !value.is_finite()) {
        return Err(WeightError::NotFinite { weight: job.name.into(), row });
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    write_whole(writer, &job.tensors[0].name, &bytes)?;
    progress.add(bytes.len() as u64);
    Ok(ErrorStats::default())
}

/// Evaluates a matrix, rounds it, and writes its tensors.
pub(super) fn matrix(
    job: &Job<'_>,
    chain: &Chain<'_>,
    source: &dyn TensorSource,
    writer: &ArtifactWriter,
    progress: &Progress<'_>,
) -> Result<ErrorStats, WeightError> {
    let rows = Rows::new(chain, source);
    if rows.is_stored_as(job.format) {
        return copy(job, chain, &rows, writer, progress);
    }
    let mut tensors = open_tensors(job, writer)?;
    let mut stats = ErrorStats::default();
    let step = panel_rows(chain.cols);
    for start in (0..chain.rows).step_by(step) {
        let range = start..chain.rows.min(start + step);
        let mut panel = Panel::new(RowBytes::new(job.format, chain.cols), range.len());
        stats.add(fill_panel(job, chain, &rows, range.clone(), &mut panel)?);
        for (tensor, bytes) in tensors.iter_mut().zip(&panel.bytes) {
            if let Some(tensor) = tensor {
                tensor.write(bytes)?;
            }
        }
        rows.release(range.clone());
        progress.add((range.len() * chain.row_bytes()) as u64);
    }
    for tensor in tensors.into_iter().flatten() {
        tensor.finish()?;
    }
    Ok(stats)
}

/// Writes what calibration has rounded.
pub(super) fn packed(
    job: &Job<'_>,
    packed: &PackedWeight,
    writer: &ArtifactWriter,
    progress: &Progress<'_>,
    input_bytes: u64,
) -> Result<ErrorStats, WeightError> {
    for (tensor, bytes) in open_tensors(job, writer)?.into_iter().zip(packed.parts()) {
        if let Some(mut tensor) = tensor {
            tensor.write(bytes)?;
            tensor.finish()?;
        }
    }
    progress.add(input_bytes);
    Ok(packed.error)
}

/// Evaluates a matrix and rounds it; nothing is written.
pub(super) fn in_memory(
    job: &Job<'_>,
    chain: &Chain<'_>,
    source: &dyn TensorSource,
) -> Result<PackedWeight, WeightError> {
    let rows = Rows::new(chain, source);
    if rows.is_stored_as(job.format) {
        return Ok(PackedWeight { weight: rows.bytes(0..chain.rows).to_vec(), ..PackedWeight::default() });
    }
    let mut panel = Panel::new(RowBytes::new(job.format, chain.cols), chain.rows);
    let error = fill_panel(job, chain, &rows, 0..chain.rows, &mut panel)?;
    let [weight, group_scale, scale] = panel.bytes;
    Ok(PackedWeight { weight, group_scale, scale, error })
}

/// Rows that are in the checkpoint what they are in the artifact.
fn copy(
    job: &Job<'_>,
    chain: &Chain<'_>,
    rows: &Rows<'_>,
    writer: &ArtifactWriter,
    progress: &Progress<'_>,
) -> Result<ErrorStats, WeightError> {
    let mut tensor = writer.tensor(&job.tensors[0].name)?;
    let step = panel_rows(chain.cols);
    for start in (0..chain.rows).step_by(step) {
        let range = start..chain.rows.min(start + step);
        let bytes = rows.bytes(range.clone());
        tensor.write(bytes)?;
        rows.release(range);
        progress.add(bytes.len() as u64);
    }
    tensor.finish()?;
    Ok(ErrorStats::default())
}

/// The tensors of a job in the order of [`Panel::bytes`].
fn open_tensors<'w>(job: &Job<'_>, writer: &'w ArtifactWriter) -> Result<[Option<TensorWriter<'w>>; 3], WriteError> {
    let mut open = [None, None, None];
    // A parameter has one tensor, whose name is its own.
    open[0] = Some(writer.tensor(&job.tensors[0].name)?);
    for spec in &job.tensors[1..] {
        let slot = if spec.name.ends_with(".group_scale") { 1 } else { 2 };
        open[slot] = Some(writer.tensor(&spec.name)?);
    }
    Ok(open)
}

/// Output rows: weight, group scale, scale.
struct Panel {
    row_bytes: [usize; 3],
    bytes: [Vec<u8>; 3],
}

impl Panel {
    fn new(row_bytes: RowBytes, rows: usize) -> Self {
        let row_bytes = [row_bytes.weight, row_bytes.group_scale, row_bytes.scale];
        Panel { row_bytes, bytes: row_bytes.map(|bytes| vec![0; bytes * rows]) }
    }

    /// Splits the panel into blocks of rows.
    fn blocks(&mut self, rows: Range<usize>, block_rows: usize) -> Vec<(Range<usize>, PackedRows<'_>)> {
        let [mut weight, mut group_scale, mut scale] = self.bytes.each_mut().map(Vec::as_mut_slice);
        let mut blocks = vec![];
        for start in rows.clone().step_by(block_rows) {
            let block = start..rows.end.min(start + block_rows);
            let take = |slot: usize| self.row_bytes[slot] * block.len();
            let packed = PackedRows {
                weight: split(&mut weight, take(0)),
                group_scale: split(&mut group_scale, take(1)),
                scale: split(&mut scale, take(2)),
            };
            blocks.push((block, packed));
        }
        blocks
    }
}

fn split<'a>(rest: &mut &'a mut [u8], bytes: usize) -> &'a mut [u8] {
    let (first, second) = std::mem::take(rest).split_at_mut(bytes);
    *rest = second;
    first
}

fn fill_panel(
    job: &Job<'_>,
    chain: &Chain<'_>,
    rows: &Rows<'_>,
    range: Range<usize>,
    panel: &mut Panel,
) -> Result<ErrorStats, WeightError> {
    let Some(rounding) = &job.rounding else {
        return Err(WeightError::NeedsCalibration { weight: job.name.into(), rounding: "GPTQ" });
    };
    // The same blocks whatever the number of threads, so that sums of errors are the same, too.
    let block_rows = (BLOCK_ELEMENTS / chain.cols).clamp(1, 256);
    let results: Vec<_> = panel
        .blocks(range, block_rows)
        .into_par_iter()
        .map_init(Vec::new, |values, (block, packed)| {
            values.resize(block.len() * chain.cols, 0.0);
            rows.fill(block.clone(), values);
            let quantized = rounding.quantize(values, chain.cols, packed);
            quantized.map_err(|bad| WeightError::NotFinite { weight: job.name.into(), row: block.start + bad.row })
        })
        .collect();
    let mut stats = ErrorStats::default();
    for result in results {
        stats.add(result?);
    }
    Ok(stats)
}
