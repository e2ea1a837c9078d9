//! Stored bytes back to f32, for tests, reports and tools. The runtime has kernels of its own.

use super::convert;
use super::quantize::{RowBytes, unpack_nibbles};
use half::f16;
use ir::weights::StorageFormat;
use runtime::plan::K_ALIGN;
use runtime::tensors::TensorStore;

/// The values `[n, k]` of a weight, row-major, from the bytes of its tensors (empty where its format has none).
/// `None` when the bytes are not those of such a weight.
pub fn dequantize(
    format: StorageFormat,
    n: usize,
    k: usize,
    weight: &[u8],
    group_scale: &[u8],
    scale: &[u8],
) -> Option<Vec<f32>> {
    if k == 0 || super::stored_tensors("", format, n, k).is_err() {
        return None;
    }
    let bytes = RowBytes::new(format, k);
    let fits = |tensor: &[u8], row: usize| row.checked_mul(n) == Some(tensor.len());
    if !fits(weight, bytes.weight) || !fits(group_scale, bytes.group_scale) || !fits(scale, bytes.scale) {
        return None;
    }
    let mut out = vec![0.0; n.checked_mul(k)?];
    for (row, values) in out.chunks_exact_mut(k).enumerate() {
        let weight = row_of(weight, row, bytes.weight);
        let group_scale = row_of(group_scale, row, bytes.group_scale);
        let scale = row_of(scale, row, bytes.scale);
        match format {
            StorageFormat::Float { dtype } => convert::to_f32(dtype, weight, values),
            StorageFormat::W8 => {
                let scale = f32_at(scale, 0);
                values.iter_mut().zip(weight).for_each(|(v, &q)| *v = f32::from(q as i8) * scale);
            }
            StorageFormat::W4TwoLevel { group_size } => {
                let scale = f32_at(scale, 0);
                nibbles(weight, values, |col| f32::from(group_scale[col / group_size]) * scale);
            }
            StorageFormat::W4Group { group_size } => nibbles(weight, values, |col| {
                let at = 2 * (col / group_size);
                f16::from_le_bytes([group_scale[at], group_scale[at + 1]]).to_f32()
            }),
        }
    }
    Some(out)
}

/// The values `[n, k]` of the weight of this name in an artifact.
/// `None` when it has no such weight, or one of another shape or format.
pub fn dequantize_stored(
    store: &dyn TensorStore,
    name: &str,
    format: StorageFormat,
    n: usize,
    k: usize,
) -> Option<Vec<f32>> {
    let specs = super::stored_tensors(name, format, n, k).ok()?;
    let mut parts: [&[u8]; 3] = [&[]; 3];
    for spec in &specs {
        let view = store.tensor(&spec.name)?;
        if (view.dtype, view.shape) != (spec.dtype, &spec.shape[..]) {
            return None;
        }
        let slot =
            ["weight", "group_scale", "scale"].iter().position(|suffix| spec.name == format!("{name}.{suffix}"))?;
        parts[slot] = view.bytes;
    }
    dequantize(format, n, k, parts[0], parts[1], parts[2])
}

fn row_of(tensor: &[u8], row: usize, row_bytes: usize) -> &[u8] {
    &tensor[row * row_bytes..][..row_bytes]
}

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn nibbles(weight: &[u8], values: &mut [f32], scale: impl Fn(usize) -> f32) {
    let (chunks, _) = weight.as_chunks::<{ K_ALIGN / 2 }>();
    for (chunk, (bytes, values)) in chunks.iter().zip(values.chunks_mut(K_ALIGN)).enumerate() {
        for (j, (value, q)) in values.iter_mut().zip(unpack_nibbles(bytes)).enumerate() {
            *value = f32::from(q) * scale(chunk * K_ALIGN + j);
        }
    }
}
