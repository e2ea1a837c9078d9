//! Sums of products over tokens: what GPTQ and rotations are made of.

use super::driver::Memory;
use super::entry;
use super::kernels::Grid;
use super::launches::Launches;
use super::machine::Machine;
use super::params::{
    EMIT_FLOAT, EMIT_I8, EMIT_U8, EPILOGUE_STORE, FLOAT_TILE, FORMAT_F32, GramParams, LackParams, LinearParams,
    LinearSegment, ObserveParams,
};
use crate::device::DeviceError;
use crate::observe::{Compared, Residual, Sums};
use crate::plan::{Activation, DType};
use bytemuck::Zeroable;
use rayon::prelude::*;

/// Tokens of a launch, whose products are one sum.
const BLOCK: usize = 4096;
/// Tokens are filled up to a multiple of this by zeros.
const STEP: usize = 16;

/// Columns in memory of rows that are read in whole tiles.
fn pitch(columns: usize) -> usize {
    columns.next_multiple_of(FLOAT_TILE as usize)
}

/// Rows of floats on the GPU, padded by zeros.
struct Padded {
    memory: Memory,
    columns: usize,
}

impl Padded {
    fn new(columns: usize) -> Result<Padded, DeviceError> {
        Ok(Padded { memory: Memory::allocate(BLOCK * pitch(columns) * 4, "rows of activations")?, columns })
    }

    fn address(&self) -> u64 {
        self.memory.address()
    }
}

/// `sum x x^T` and `sum y x^T` over tokens, on a GPU.
pub struct Gram<'m> {
    machine: &'m Machine,
    /// Width of x.
    k: usize,
    /// Width of y.
    m: usize,
    tokens: usize,
    h: Memory,
    c: Memory,
}

impl<'m> Gram<'m> {
    /// Of no tokens yet.
    pub fn new(machine: &'m Machine, k: usize, m: usize) -> Result<Gram<'m>, DeviceError> {
        machine.gpu.make_current()?;
        let sum = |rows: usize| Memory::zeroed(rows * k * 4, "sums of products", &machine.stream);
        Ok(Gram { machine, k, m, tokens: 0, h: sum(k)?, c: sum(m)? })
    }

    /// Adds tokens of the host: `x` is `[tokens, k]`, `y` `[tokens, m]`.
    pub fn add(&mut self, x: &[f32], y: &[f32]) -> Result<(), DeviceError> {
        self.machine.gpu.make_current()?;
        let held = (Padded::new(self.k)?, Padded::new(self.m)?);
        let tokens = x.len() / self.k;
        for first in (0..tokens).step_by(BLOCK) {
            let rows = (tokens - first).min(BLOCK);
            for (padded, values) in [(&held.0, x), (&held.1, y)] {
                let (from, to) = (first * padded.columns, (first + rows) * padded.columns);
                let bytes = fill_up(&values[from..to], rows, padded.columns);
                self.machine.stream.upload(padded.address(), bytemuck::cast_slice(&bytes))?;
                self.machine.stream.synchronize()?;
            }
            self.add_rows(&held.0, &held.1, rows)?;
        }
        Ok(())
    }

    fn add_rows(&mut self, x: &Padded, y: &Padded, rows: usize) -> Result<(), DeviceError> {
        self.product(x, x, &self.h, rows)?;
        if self.m > 0 {
            self.product(y, x, &self.c, rows)?;
        }
        self.tokens += rows;
        Ok(())
    }

    fn product(&self, a: &Padded, b: &Padded, out: &Memory, rows: usize) -> Result<(), DeviceError> {
        let params = GramParams {
            a: a.address(),
            b: b.address(),
            out: out.address(),
            tokens: rows.next_multiple_of(STEP) as u32,
            m: a.columns as u32,
            n: b.columns as u32,
            a_pitch: pitch(a.columns) as u32,
            b_pitch: pitch(b.columns) as u32,
            symmetric: u32::from(a.address() == b.address()),
        };
        let tiles = |columns: usize| columns.div_ceil(FLOAT_TILE as usize);
        self.machine.launch(entry::GRAM, Grid::new(tiles(b.columns), tiles(a.columns), 1), &params)
    }

    /// The means of `x x^T`, `[k, k]`, and of `y x^T`, `[m, k]`.
    pub fn finish(self) -> Result<(Vec<f32>, Vec<f32>), DeviceError> {
        self.machine.gpu.make_current()?;
        let scale = 1.0 / self.tokens.max(1) as f32;
        let mean = |sum: &Memory, rows: usize| -> Result<Vec<f32>, DeviceError> {
            let mut values: Vec<f32> = self.machine.download(sum.address(), rows * self.k)?;
            values.par_iter_mut().for_each(|value| *value *= scale);
            Ok(values)
        };
        Ok((mean(&self.h, self.k)?, mean(&self.c, self.m)?))
    }
}

/// Rows and columns of zeros up to whole steps and tiles.
fn fill_up(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let pitch = pitch(columns);
    let mut out = vec![0.0; rows.next_multiple_of(STEP) * pitch];
    if columns > 0 {
        let padded = out.chunks_exact_mut(pitch);
        padded.zip(values.chunks_exact(columns)).for_each(|(out, row)| out[..columns].copy_from_slice(row));
    }
    out
}

/// What stays on the GPU while the blocks of a linear are summed up.
struct Work<'a> {
    quantized: &'a Launches<'a>,
    float: &'a Launches<'a>,
    linear: &'a Compared<'a>,
    values: Padded,
    missing: Padded,
    squares: Memory,
    writer: Option<Writer<'a>>,
}

/// For a linear that writes to the residual stream.
struct Writer<'a> {
    residual: Residual<'a>,
    weight: Memory,
    outputs: Memory,
    lacking: Padded,
}

impl Launches<'_> {
    /// Sums over the tokens of this step, of a quantized model, beside the same step of the float model.
    pub fn sums(&self, float: &Launches<'_>, linear: &Compared<'_>) -> Result<Sums, DeviceError> {
        self.machine.gpu.make_current()?;
        let (Activation::Float { data } | Activation::Quantized { data, .. }) = linear.x;
        let (k, tokens) = (linear.in_features, self.rows(data));
        let m = linear.residual.map_or(k, |residual| residual.out_features);
        let mut gram = Gram::new(self.machine, k, m)?;
        let work = Work {
            quantized: self,
            float,
            linear,
            values: Padded::new(k)?,
            missing: Padded::new(k)?,
            squares: Memory::allocate(BLOCK * 16, "sums of squares")?,
            writer: linear.residual.map(|residual| Writer::new(self.machine, residual)).transpose()?,
        };
        let (mut lost, mut whole) = (0.0, 0.0);
        for first in (0..tokens).step_by(BLOCK) {
            let rows = (tokens - first).min(BLOCK);
            work.observe(first, rows)?;
            gram.add_rows(&work.values, work.lacking(first, rows)?, rows)?;
            for row in self.machine.download::<[f64; 2]>(work.squares.address(), rows)? {
                lost += row[0];
                whole += row[1];
            }
        }
        let (hessian, cross) = gram.finish()?;
        Ok(Sums { hessian, cross, lost, whole })
    }
}

impl Work<'_> {
    /// The inputs of a block of rows as floats, and what they lack.
    fn observe(&self, first: usize, rows: usize) -> Result<(), DeviceError> {
        let (quantized, k) = (self.quantized, self.linear.in_features);
        let (data, scale) = match self.linear.x {
            Activation::Float { data } => (data, None),
            Activation::Quantized { data, scale } => (data, Some(scale)),
        };
        let (dtype, x_pitch) = (quantized.dtype(data), quantized.cols(data));
        let format = match (scale, dtype) {
            (None, _) => EMIT_FLOAT,
            (Some(_), DType::I8) => EMIT_I8,
            (Some(_), _) => EMIT_U8,
        };
        let params = ObserveParams {
            x: quantized.address(data) + (first * x_pitch * dtype.bytes()) as u64,
            x_scale: scale.map_or(0, |scale| quantized.address(scale) + first as u64 * 4),
            exact: self.float.address(self.linear.exact) + (first * k * 4) as u64,
            values: self.values.address(),
            missing: self.missing.address(),
            squares: self.squares.address(),
            rows: rows as u32,
            n: k as u32,
            x_pitch: x_pitch as u32,
            pitch: pitch(k) as u32,
            format,
            padding: 0,
        };
        let grid = Grid::new(rows.next_multiple_of(STEP), 1, 1);
        quantized.machine.launch(entry::OBSERVE_ROWS, grid, &params)
    }

    /// What is missing of the block that was observed: inputs, or outputs with the residual stream.
    fn lacking(&self, first: usize, rows: usize) -> Result<&Padded, DeviceError> {
        let Some(writer) = &self.writer else { return Ok(&self.missing) };
        let n = writer.residual.out_features;
        let mut multiply = LinearParams {
            x: self.missing.address(),
            k: self.linear.in_features as u32,
            k_padded: pitch(self.linear.in_features) as u32,
            rows: rows as u32,
            segment_count: 1,
            ..LinearParams::zeroed()
        };
        multiply.segments[0] = LinearSegment {
            weight: writer.weight.address(),
            out: writer.outputs.address(),
            out_features: n as u32,
            row_bytes: self.linear.in_features as u32 * 4,
            format: FORMAT_F32,
            epilogue: EPILOGUE_STORE,
            ..LinearSegment::zeroed()
        };
        let machine = self.quantized.machine;
        machine.queue(Default::default()).float(&multiply)?;
        let at = (first * n * 4) as u64;
        let params = LackParams {
            outputs: writer.outputs.address(),
            exact: self.float.address(writer.residual.exact) + at,
            found: self.quantized.address(writer.residual.found) + at,
            out: writer.lacking.address(),
            rows: rows as u32,
            n: n as u32,
            pitch: pitch(n) as u32,
            padding: 0,
        };
        machine.launch(entry::OBSERVE_RESIDUAL, Grid::new(rows.next_multiple_of(STEP), 1, 1), &params)?;
        Ok(&writer.lacking)
    }
}

impl<'a> Writer<'a> {
    fn new(machine: &Machine, residual: Residual<'a>) -> Result<Writer<'a>, DeviceError> {
        let bytes: &[u8] = bytemuck::cast_slice(residual.weight);
        let weight = Memory::allocate(bytes.len(), "the weight")?;
        machine.stream.upload(weight.address(), bytes)?;
        machine.stream.synchronize()?;
        let outputs = Memory::allocate(BLOCK * residual.out_features * 4, "rows of outputs")?;
        Ok(Writer { residual, weight, outputs, lacking: Padded::new(residual.out_features)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up_by_zeros_to_whole_tiles() {
        let filled = fill_up(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3);
        assert_eq!(filled.len(), 16 * 128);
        assert_eq!((&filled[..4], &filled[128..132]), (&[1.0, 2.0, 3.0, 0.0][..], &[4.0, 5.0, 6.0, 0.0][..]));
        assert_eq!(filled.iter().sum::<f32>(), 21.0);
        assert!(fill_up(&[], 2, 0).is_empty());
    }
}
