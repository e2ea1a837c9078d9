use super::chain::{Chain, Left};
use super::convert;
use ir::weights::{StorageFormat, TensorSource};
use rayon::prelude::*;
use std::ops::Range;

/// Columns that are rotated together: a strip of 8192 rows is 1 MiB and stays in the L2 cache.
const STRIP_COLS: usize = 32;

/// The rows of a chain, ready to be computed in any order.
pub(super) struct Rows<'a> {
    chain: &'a Chain<'a>,
    source: &'a dyn TensorSource,
    /// The bytes of `chain.read`.
    bytes: &'a [u8],
    /// Where rows are mixed: all row operations done, in strips of [`STRIP_COLS`] columns, each row-major.
    strips: Option<Vec<Vec<f32>>>,
}

impl<'a> Rows<'a> {
    /// Does the operations that mix rows, on all cores; otherwise nothing.
    pub(super) fn new(chain: &'a Chain<'a>, source: &'a dyn TensorSource) -> Self {
        let row_bytes = chain.row_bytes();
        let bytes = &chain.bytes[chain.read.start * row_bytes..chain.read.end * row_bytes];
        let mut rows = Rows { chain, source, bytes, strips: None };
        if chain.mixes_rows() {
            let starts: Vec<usize> = (0..chain.cols).step_by(STRIP_COLS).collect();
            rows.strips = Some(starts.into_par_iter().map(|start| rows.strip(start)).collect());
            rows.release(0..chain.read.len());
        }
        rows
    }

    /// Computes rows, all operations done.
    pub(super) fn fill(&self, rows: Range<usize>, out: &mut [f32]) {
        let cols = self.chain.cols;
        match &self.strips {
            Some(strips) => {
                for (strip, start) in strips.iter().zip((0..cols).step_by(STRIP_COLS)) {
                    let width = STRIP_COLS.min(cols - start);
                    let from = strip[rows.start * width..rows.end * width].chunks_exact(width);
                    for (from, to) in from.zip(out.chunks_exact_mut(cols)) {
                        to[start..start + width].copy_from_slice(from);
                    }
                }
            }
            None => {
                convert::to_f32(self.chain.dtype, self.bytes(rows.clone()), out);
                if let Some(Left::Scale(factors)) = self.chain.left.first() {
                    scale_rows(out, cols, &factors[rows]);
                }
            }
        }
        self.chain.finish_rows(out);
    }

    /// Whether [`Rows::bytes`] are what this format stores.
    pub(super) fn is_stored_as(&self, format: StorageFormat) -> bool {
        let unchanged = self.chain.left.is_empty() && self.chain.right.is_empty();
        unchanged && format == StorageFormat::Float { dtype: self.chain.dtype }
    }

    /// The bytes of rows in the checkpoint; those of the result, when nothing is done to them.
    pub(super) fn bytes(&self, rows: Range<usize>) -> &'a [u8] {
        let row_bytes = self.chain.row_bytes();
        &self.bytes[rows.start * row_bytes..rows.end * row_bytes]
    }

    /// Tells the source that these rows were read for the last time.
    pub(super) fn release(&self, rows: Range<usize>) {
        let start = self.chain.read.start;
        let row_bytes = self.chain.row_bytes();
        self.source.release(self.chain.tensor, (start + rows.start) * row_bytes..(start + rows.end) * row_bytes);
    }

    fn strip(&self, start: usize) -> Vec<f32> {
        let chain = self.chain;
        let width = STRIP_COLS.min(chain.cols - start);
        let element = chain.dtype.bytes();
        let mut data = vec![0.0; chain.read.len() * width];
        for (from, to) in self.bytes.chunks_exact(chain.row_bytes()).zip(data.chunks_exact_mut(width)) {
            convert::to_f32(chain.dtype, &from[start * element..(start + width) * element], to);
        }
        for op in &chain.left {
            match op {
                Left::Slice(rows) => {
                    data.truncate(rows.end * width);
                    data.drain(..rows.start * width);
                }
                Left::Scale(factors) => scale_rows(&mut data, width, factors),
                Left::Rotate { by, inverse } => {
                    data.chunks_exact_mut(by.size() * width).for_each(|block| by.rotate_columns(block, width, *inverse))
                }
            }
        }
        data
    }
}

fn scale_rows(data: &mut [f32], cols: usize, factors: &[f32]) {
    for (row, factor) in data.chunks_exact_mut(cols).zip(factors) {
        row.iter_mut().for_each(|value| *value *= factor);
    }
}
