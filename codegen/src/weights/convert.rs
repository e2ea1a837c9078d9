//! Little-endian float bytes to f32 and back.

use half::f16;
use ir::weights::FloatType;
use multiversion::multiversion;

/// Converts `out.len()` elements from `bytes`.
///
/// # Panics
/// When `bytes` holds another number of elements.
pub fn to_f32(dtype: FloatType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * dtype.bytes(), "bytes and elements differ");
    match dtype {
        FloatType::F32 => f32_to_f32(bytes, out),
        FloatType::F16 => f16_to_f32(bytes, out),
        FloatType::Bf16 => bf16_to_f32(bytes, out),
    }
}

/// Converts `values` to `dtype`, round half to even.
///
/// # Panics
/// When `out` has room for another number of elements.
pub fn from_f32(dtype: FloatType, values: &[f32], out: &mut [u8]) {
    assert_eq!(out.len(), values.len() * dtype.bytes(), "bytes and elements differ");
    match dtype {
        FloatType::F32 => store(values, out, f32::to_le_bytes),
        FloatType::F16 => store(values, out, |v| f16::from_f32(v).to_le_bytes()),
        FloatType::Bf16 => f32_to_bf16(values, out),
    }
}

fn f32_to_f32(bytes: &[u8], out: &mut [f32]) {
    for (b, v) in bytes.chunks_exact(4).zip(out) {
        *v = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
}

fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    // Blocks, because `half` converts whole slices with the F16C instructions.
    let mut block = [f16::ZERO; 256];
    for (bytes, out) in bytes.chunks(512).zip(out.chunks_mut(256)) {
        for (b, h) in bytes.chunks_exact(2).zip(&mut block) {
            *h = f16::from_le_bytes([b[0], b[1]]);
        }
        half::slice::HalfFloatSliceExt::convert_to_f32_slice(&block[..out.len()], out);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2"))]
fn bf16_to_f32(bytes: &[u8], out: &mut [f32]) {
    for (b, v) in bytes.chunks_exact(2).zip(out) {
        *v = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2"))]
fn f32_to_bf16(values: &[f32], out: &mut [u8]) {
    for (v, b) in values.iter().zip(out.as_chunks_mut::<2>().0) {
        let bits = v.to_bits();
        // Half of the last place that stays, less one bit if that place is even. Rounding may turn a NaN into
        // infinity, but never into a number.
        let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1));
        *b = ((rounded >> 16) as u16).to_le_bytes();
    }
}

fn store<const N: usize>(values: &[f32], out: &mut [u8], convert: impl Fn(f32) -> [u8; N]) {
    for (v, b) in values.iter().zip(out.chunks_exact_mut(N)) {
        b.copy_from_slice(&convert(*v));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use proptest::prelude::*;

    #[test]
    fn converts_every_bf16_and_f16() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut out = vec![0.0; 1 << 16];
        to_f32(FloatType::Bf16, &all, &mut out);
        for (bits, value) in (0..=u16::MAX).zip(&out) {
            assert_eq!(value.to_bits(), bf16::from_bits(bits).to_bits_f32(), "{bits:#x}");
        }
        to_f32(FloatType::F16, &all, &mut out);
        for (bits, &value) in (0..=u16::MAX).zip(&out) {
            let expected = f16::from_bits(bits).to_f32();
            assert!(value == expected || (value.is_nan() && expected.is_nan()), "{bits:#x}");
        }
    }

    #[test]
    fn rounds_to_bf16_as_the_half_crate_does() {
        let tricky = [0x0000_7FFF, 0x0000_8000, 0x0001_8000, 0x3F80_8000, 0x3F81_8000, 0x3F80_8001, 0x7F7F_FFFF];
        let values: Vec<f32> =
            tricky.iter().flat_map(|&bits| [f32::from_bits(bits), f32::from_bits(bits | 1 << 31)]).collect();
        let mut bytes = vec![0; values.len() * 2];
        from_f32(FloatType::Bf16, &values, &mut bytes);
        for (value, bytes) in values.iter().zip(bytes.as_chunks::<2>().0) {
            assert_eq!(bf16::from_le_bytes(*bytes), bf16::from_f32(*value), "{value:e}");
        }
    }

    trait Bits {
        fn to_bits_f32(self) -> u32;
    }

    impl Bits for bf16 {
        fn to_bits_f32(self) -> u32 {
            u32::from(self.to_bits()) << 16
        }
    }

    proptest! {
        #[test]
        fn a_round_trip_loses_at_most_half_a_unit(values in prop::collection::vec(-1e4f32..1e4, 0..600)) {
            for (dtype, unit) in [(FloatType::F32, 0.0), (FloatType::F16, 2f32.powi(-11)), (FloatType::Bf16, 2f32.powi(-8))] {
                let mut bytes = vec![0; values.len() * dtype.bytes()];
                from_f32(dtype, &values, &mut bytes);
                let mut back = vec![0.0; values.len()];
                to_f32(dtype, &bytes, &mut back);
                for (v, b) in values.iter().zip(&back) {
                    prop_assert!((v - b).abs() <= v.abs() * unit + 1e-7, "{v} became {b} in {dtype:?}");
                }
            }
        }
    }
}
