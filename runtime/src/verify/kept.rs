//! A scan state in fewer than 32 bits, as numbers that two devices can be compared by.

use crate::plan::{DType, State};
use half::{bf16, f16};

/// The values of a state, and what they were rounded to.
pub(super) struct Kept {
    pub(super) values: Vec<f64>,
    /// As stored.
    bits: Vec<u16>,
    dtype: DType,
    /// Of the rows of an i8 state.
    scales: Vec<f64>,
    row: usize,
}

impl Kept {
    /// From the bytes of [`crate::plan::StateKind::Ssm`].
    pub(super) fn of(state: &State, bytes: &[u8]) -> Kept {
        let (elements, scales) = bytes.split_at(state.elements() * state.dtype.bytes());
        let scales: Vec<f64> = scales.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        let bits: Vec<u16> = match state.dtype {
            DType::I8 => elements.iter().map(|byte| u16::from(*byte)).collect(),
            _ => elements.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)).collect(),
        };
        let row = state.row();
        let value = |(index, bits): (usize, &u16)| match state.dtype {
            DType::I8 => f64::from(*bits as u8 as i8) * scales[index / row],
            DType::F16 => f16::from_bits(*bits).to_f64(),
            _ => bf16::from_bits(*bits).to_f64(),
        };
        let values = bits.iter().enumerate().map(value).collect();
        Kept { values, bits, dtype: state.dtype, scales, row }
    }

    /// What is stored of a value, apart from its scale.
    pub(super) fn steps_of(&self, index: usize) -> u16 {
        self.bits[index]
    }

    /// How far the neighbors of a value are.
    pub(super) fn step(&self, index: usize) -> f64 {
        let value = self.values[index].abs();
        let exponent = |least: i32, bits: i32| {
            let exponent = if value > 0.0 { value.log2().floor() as i32 } else { least };
            2f64.powi(exponent.max(least) - bits)
        };
        match self.dtype {
            DType::I8 => self.scales[index / self.row],
            DType::F16 => exponent(-14, 10),
            _ => exponent(-126, 7),
        }
    }
}

/// The neighbor of an f16 or bf16, in its bytes: away from zero, but not to infinity, or towards it.
pub(super) fn step_half(bytes: &mut [u8], dtype: DType, away: bool) {
    let infinity = if dtype == DType::F16 { f16::INFINITY.to_bits() } else { bf16::INFINITY.to_bits() };
    let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
    let (sign, magnitude) = (bits & 0x8000, bits & 0x7fff);
    let moved = match away {
        true if magnitude + 1 < infinity => magnitude + 1,
        _ => magnitude.saturating_sub(1),
    };
    bytes.copy_from_slice(&(sign | moved).to_le_bytes());
}
