use multiversion::multiversion;
use runtime::plan::K_ALIGN;

/// Packs 4-bit integers -7..=7: byte `j` of a chunk holds element `j` in its low and element `16 + j` in its high
/// nibble, as q + 8.
pub fn pack_nibbles(q: &[i8; K_ALIGN]) -> [u8; K_ALIGN / 2] {
    std::array::from_fn(|j| ((q[j] + 8) as u8 & 15) | (((q[j + 16] + 8) as u8 & 15) << 4))
}

/// The inverse of [`pack_nibbles`].
pub fn unpack_nibbles(bytes: &[u8; K_ALIGN / 2]) -> [i8; K_ALIGN] {
    std::array::from_fn(|j| {
        let nibble = if j < 16 { bytes[j] & 15 } else { bytes[j - 16] >> 4 };
        nibble as i8 - 8
    })
}

/// Rounds `values * inverse` to -7..=7 and packs it; the end of the last chunk becomes zeros.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn round_and_pack(values: &[f32], inverse: f32, out: &mut [u8]) {
    let (whole, rest) = values.as_chunks::<K_ALIGN>();
    let (out, _) = out.as_chunks_mut::<{ K_ALIGN / 2 }>();
    for (values, out) in whole.iter().zip(&mut *out) {
        *out = round_and_pack_chunk(values, inverse);
    }
    if let Some(out) = out.get_mut(whole.len()) {
        let mut padded = [0.0; K_ALIGN];
        padded[..rest.len()].copy_from_slice(rest);
        *out = round_and_pack_chunk(&padded, inverse);
    }
}

#[inline(always)]
fn round_and_pack_chunk(values: &[f32; K_ALIGN], inverse: f32) -> [u8; K_ALIGN / 2] {
    // The low bits of t + ROUND are the integer; those of t + ROUND + 8 are the nibble.
    let nibble = |v: f32| ((v * inverse).clamp(-7.0, 7.0) + (super::lanes::ROUND + 8.0)).to_bits() & 15;
    std::array::from_fn(|j| (nibble(values[j]) | (nibble(values[j + 16]) << 4)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn unpacking_gives_back_what_was_packed(q in prop::array::uniform32(-7i8..=7)) {
            prop_assert_eq!(unpack_nibbles(&pack_nibbles(&q)), q);
        }

        #[test]
        fn rounding_and_packing_equals_rounding_then_packing(
            values in prop::collection::vec(-9.0f32..9.0, 1..100),
        ) {
            let chunks = values.len().div_ceil(32);
            let mut out = vec![0; chunks * 16];
            round_and_pack(&values, 0.9, &mut out);
            let mut padded = values.clone();
            padded.resize(chunks * 32, 0.0);
            for (values, out) in padded.as_chunks::<32>().0.iter().zip(out.as_chunks::<16>().0) {
                let q = values.map(|v| (v * 0.9).round_ties_even().clamp(-7.0, 7.0) as i8);
                prop_assert_eq!(&pack_nibbles(&q), out);
            }
        }
    }
}
