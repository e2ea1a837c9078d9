//! Orthogonal matrices, ready to be applied.
//!
//! Convention. `R` is `[size, size]` and acts on row vectors from the right: `v` becomes `v @ R`. With
//! `size = odd * 2^k`, index `i = a * 2^k + b`, `a < odd`, `b < 2^k`:
//!
//! - `hadamard`: `R[(a, b), (c, d)] = Q[a, c] * H[b, d] / sqrt(2^k)`, that is `Q (x) H`, with `H` the Sylvester-Hadamard
//!   matrix and `Q` a random orthogonal matrix `[odd, odd]` drawn from the seed (1 when `odd` is 1);
//! - `random-hadamard`: `diag(signs) @ R` of `hadamard`, signs drawn from the seed;
//! - `klt`: the calibration tensor `rotation.NAME`, as it is; [`klt`](super::klt) makes it.
//!
//! A weight `W` `[out, in]` rotated on its `In` side is `W @ R`, on its `Out` side `R^T @ W`, in blocks along the
//! diagonal when the dimension is a multiple of `size`. Hence `x @ W^T == (x @ R) @ (W @ R)^T`, and
//! `(x @ W^T) @ R == x @ (R^T @ W)^T`.

use super::convert;
use super::error::WeightError;
use super::hadamard;
use super::matmul::matmul;
use super::random::{SplitMix64, orthogonal};
use ir::weights::{FloatType, Rotation, RotationKind, TensorSource};
use multiversion::multiversion;
use std::sync::OnceLock;

/// An orthogonal matrix that can be multiplied with.
#[derive(Debug)]
pub struct Orthogonal {
    size: usize,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// `diag(signs) @ (mix (x) H) / sqrt(power)`.
    Kronecker { signs: Option<Vec<f32>>, mix: Option<Mix>, power: usize },
    /// Every entry, row-major.
    Dense { matrix: Vec<f32>, transposed: OnceLock<Vec<f32>> },
}

/// `Q` of size `odd`.
#[derive(Debug)]
struct Mix {
    odd: usize,
    matrix: Vec<f32>,
    transposed: Vec<f32>,
}

/// Below this power of two a Kronecker factor is no faster than the whole matrix.
const MIN_POWER: usize = 16;

/// Entries of a calibrated matrix are f32; products of its rows may be off by this much.
const ORTHOGONALITY_TOLERANCE: f32 = 1e-3;

impl Orthogonal {
    /// Draws or reads the matrix.
    ///
    /// # Errors
    /// When `rotation.NAME` is missing, of another shape, or not orthogonal; when the size is zero.
    pub fn new(rotation: &Rotation, source: &dyn TensorSource) -> Result<Self, WeightError> {
        let Rotation { name, kind, size, seed } = rotation;
        if *size == 0 {
            return Err(WeightError::invalid(name, "is a rotation of size 0"));
        }
        let random_signs = match kind {
            RotationKind::Klt => return Self::read(name, *size, source),
            RotationKind::Hadamard => false,
            RotationKind::RandomHadamard => true,
        };
        Ok(Self::kronecker(*size, *seed, random_signs))
    }

    fn kronecker(size: usize, seed: u64, random_signs: bool) -> Self {
        let power = 1 << size.trailing_zeros();
        let odd = size / power;
        let signs = random_signs.then(|| {
            let mut random = SplitMix64(seed);
            (0..size).map(|_| random.sign()).collect()
        });
        let mix = (odd > 1).then(|| {
            let matrix = orthogonal(odd, !seed);
            Mix { odd, transposed: transpose(&matrix, odd), matrix }
        });
        let slow = mix.is_some() && power < MIN_POWER;
        let kronecker = Orthogonal { size, form: Form::Kronecker { signs, mix, power } };
        if slow { kronecker.into_dense() } else { kronecker }
    }

    fn read(name: &str, size: usize, source: &dyn TensorSource) -> Result<Self, WeightError> {
        let tensor = format!("rotation.{name}");
        let shape = vec![size, size];
        let bytes = super::chain::tensor_bytes(source, name, &tensor, &shape, FloatType::F32)?;
        let mut matrix = vec![0.0; size * size];
        convert::to_f32(FloatType::F32, bytes, &mut matrix);
        check_orthogonal(&tensor, &matrix, size)?;
        Ok(Self::dense(matrix, size))
    }

    /// The matrix `[size, size]`, which must be orthogonal.
    pub(super) fn dense(matrix: Vec<f32>, size: usize) -> Self {
        Orthogonal { size, form: Form::Dense { matrix, transposed: OnceLock::new() } }
    }

    /// Rows and columns.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Every entry, row-major.
    pub fn to_matrix(&self) -> Vec<f32> {
        let mut identity = vec![0.0; self.size * self.size];
        identity.iter_mut().step_by(self.size + 1).for_each(|diagonal| *diagonal = 1.0);
        self.rotate_rows(&mut identity, false);
        identity
    }

    fn into_dense(self) -> Self {
        let matrix = self.to_matrix();
        Self::dense(matrix, self.size)
    }

    /// Each run of `size` elements `v` becomes `v @ R`, or `v @ R^T` if `inverse`.
    ///
    /// # Panics
    /// When `data` is not a whole number of runs.
    pub fn rotate_rows(&self, data: &mut [f32], inverse: bool) {
        assert_eq!(data.len() % self.size, 0, "no whole number of blocks");
        match &self.form {
            Form::Kronecker { .. } => {
                data.chunks_exact_mut(self.size).for_each(|v| self.kronecker_columns(v, 1, inverse))
            }
            Form::Dense { matrix, transposed } => {
                let right = if inverse { transposed.get_or_init(|| transpose(matrix, self.size)) } else { matrix };
                let input = data.to_vec();
                matmul(&input, right, self.size, self.size, data);
            }
        }
    }

    /// Each column `c` of `data`, row-major `[size, width]`, becomes `c^T @ R`, or `c^T @ R^T` if `inverse`.
    ///
    /// # Panics
    /// When `data` has another size.
    pub fn rotate_columns(&self, data: &mut [f32], width: usize, inverse: bool) {
        assert_eq!(data.len(), self.size * width, "no [size, width] matrix");
        match &self.form {
            Form::Kronecker { .. } => self.kronecker_columns(data, width, inverse),
            Form::Dense { matrix, transposed } => {
                let left = if inverse { matrix } else { transposed.get_or_init(|| transpose(matrix, self.size)) };
                let input = data.to_vec();
                matmul(left, &input, self.size, width, data);
            }
        }
    }

    fn kronecker_columns(&self, data: &mut [f32], width: usize, inverse: bool) {
        let Form::Kronecker { signs, mix, power } = &self.form else {
            unreachable!("only called for this form");
        };
        if let (Some(signs), false) = (signs, inverse) {
            scale_rows(data, width, signs);
        }
        data.chunks_exact_mut(power * width).for_each(|block| hadamard::transform(block, width));
        if let Some(mix) = mix {
            // out[c] = sum over a of Q[a, c] * in[a], or of Q[c, a] for the inverse.
            let rows = if inverse { &mix.matrix } else { &mix.transposed };
            mix_blocks(data, rows, mix.odd);
        }
        scale(data, 1.0 / (*power as f32).sqrt());
        if let (Some(signs), true) = (signs, inverse) {
            scale_rows(data, width, signs);
        }
    }
}

/// For rotations that are made of no tensors: all but `klt`.
pub struct NoTensors;

impl TensorSource for NoTensors {
    fn describe(&self, _name: &str) -> Option<(Vec<usize>, FloatType)> {
        None
    }

    fn bytes(&self, name: &str) -> Result<&[u8], Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("there is no tensor {name}").into())
    }
}

fn scale_rows(data: &mut [f32], width: usize, factors: &[f32]) {
    if width == 1 {
        return data.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
    }
    for (row, &factor) in data.chunks_exact_mut(width).zip(factors) {
        scale(row, factor);
    }
}

fn scale(data: &mut [f32], factor: f32) {
    data.iter_mut().for_each(|value| *value *= factor);
}

fn transpose(matrix: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * n];
    for (i, row) in matrix.chunks_exact(n).enumerate() {
        for (j, &value) in row.iter().enumerate() {
            out[j * n + i] = value;
        }
    }
    out
}

/// Elements of each block that are mixed together; small enough for the tile of all blocks to stay in cache.
const MIX_TILE: usize = 64;

/// `data` is `odd` blocks; block `c` becomes the sum of all blocks `a` times `rows[c * odd + a]`.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
fn mix_blocks(data: &mut [f32], rows: &[f32], odd: usize) {
    let block = data.len() / odd;
    let mut tile = vec![[0.0; MIX_TILE]; odd];
    for first in (0..block).step_by(MIX_TILE) {
        let width = MIX_TILE.min(block - first);
        for (tile, data) in tile.iter_mut().zip(data.chunks_exact(block)) {
            tile[..width].copy_from_slice(&data[first..first + width]);
        }
        for (data, row) in data.chunks_exact_mut(block).zip(rows.chunks_exact(odd)) {
            let mut sum = [0.0; MIX_TILE];
            for (tile, &factor) in tile.iter().zip(row) {
                for (sum, value) in sum.iter_mut().zip(tile) {
                    *sum += factor * value;
                }
            }
            data[first..first + width].copy_from_slice(&sum[..width]);
        }
    }
}

/// Checks the length of each row and its product with the next: enough to notice a matrix that is something else.
fn check_orthogonal(tensor: &str, matrix: &[f32], n: usize) -> Result<(), WeightError> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32;
    for (row, v) in matrix.chunks_exact(n).enumerate() {
        let next = &matrix[(row + 1) % n * n..][..n];
        let off = if n > 1 { dot(v, next).abs() } else { 0.0 };
        let error = (dot(v, v) - 1.0).abs() + off;
        if error.is_nan() || error > ORTHOGONALITY_TOLERANCE {
            return Err(WeightError::NotOrthogonal { tensor: tensor.into(), row, error });
        }
    }
    Ok(())
}
