//! What a sequence keeps from step to step, and how it is rounded to what is kept.
//!
//! Arithmetic is f32 whatever a state is stored as: it is read into f32, and rounded when it is written back.
//!
//! - *Windows* of a convolution are f32.
//! - *Keys and values* are rounded once, as they are appended, to the nearest (half to even). In [`DType::I8`] the
//!   `head_dim` values of a head share an f32 `scale = absmax / 127`: `q = round_half_even(x * (127 / absmax))`, clamped to
//!   ±127, read back as `q * scale`. Zeros have scale 0. `127 / absmax` is computed once a head in f32.
//! - *Scan states* are rounded at the end of every step of the device, after its last token: in decode with every token, in
//!   prefill once a chunk. A state decays slowly and grows by little; rounding to nearest would lose what is added and never
//!   decay. So f16, bf16 and i8 round stochastically (Gupta et al. 2015, *Deep learning with limited numerical precision*),
//!   up with the probability of the distance from below: right in the mean. In i8 the `state_size` values of a row share a
//!   scale as above, `q = floor(x * (127 / absmax) + u)`.
//!
//! # Random bits
//!
//! They are a function of where they are used (Salmon et al. 2011, *Parallel random numbers: as easy as 1, 2, 3*), so that
//! devices agree and runs repeat. With `mix` a bijection of 32 bits that scatters them (*lowbias32*, Wellons 2018),
//! `key = mix(p ^ mix(s ^ 0x9e3779b9))` for the number p of tokens that the sequence has taken with this step and the state's id s.
//! Element i of the state gets the lower (i even) or upper 16 bits `r` of `mix(key ^ (i / 2))`.
//!
//! - bf16: `(bits + r) >> 16` of the magnitude's bits.
//! - f16: the 13 bits that are cut off take `r >> 3`; below 2^-14, where n > 13 bits are cut off, `r` is shifted to n bits. Values
//!   below 2^-32 become 0.
//! - i8: `u = r / 65536`.
//!
//! Finite values stay finite: what is too large becomes the largest number of the format.

use super::DType;
use serde::{Deserialize, Serialize};

/// Memory that lives as long as a sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// For people, for example `layers.0.ssm_state`.
    pub name: String,
    /// How it grows.
    pub kind: StateKind,
    /// Element type; [`DType::I8`] brings an f32 scale for each row of the last dimension.
    pub dtype: DType,
    /// Elements: of the whole state for [`StateKind::Conv`] and [`StateKind::Ssm`]; of one token for
    /// [`StateKind::Kv`], keys and values each.
    pub shape: Vec<usize>,
}

/// How a [`State`] is laid out and grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKind {
    /// The last `kernel - 1` inputs of a causal convolution: `[channels, kernel - 1]`, oldest first.
    Conv,
    /// The state of a selective scan: `[heads, head_dim, state_size]`; then, in i8, the scales `[heads, head_dim]`.
    Ssm,
    /// Keys of every token so far, `[kv_heads, head_dim]` a token, then, in i8, their scales `[kv_heads]` a token; then values
    /// in the same way.
    Kv,
}

impl State {
    /// Elements of the shape.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements that share a scale, where there are scales.
    pub fn row(&self) -> usize {
        self.shape.last().copied().unwrap_or(1).max(1)
    }

    /// Number of f32 scales.
    pub fn scales(&self) -> usize {
        if self.dtype == DType::I8 { self.elements() / self.row() } else { 0 }
    }

    /// Bytes of what the shape says, with scales: for [`StateKind::Kv`], the keys or the values of one token.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes() + self.scales() * DType::F32.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(kind: StateKind, dtype: DType, shape: &[usize]) -> State {
        State { name: String::new(), kind, dtype, shape: shape.to_vec() }
    }

    #[test]
    fn counts_scales_beside_8_bit_elements_alone() {
        assert_eq!(state(StateKind::Kv, DType::I8, &[8, 128]).bytes(), 8 * (128 + 4));
        assert_eq!(state(StateKind::Ssm, DType::I8, &[4, 16, 32]).bytes(), 4 * 16 * (32 + 4));
        assert_eq!(state(StateKind::Ssm, DType::F16, &[4, 16, 32]).bytes(), 4 * 16 * 32 * 2);
        assert_eq!(state(StateKind::Conv, DType::F32, &[7, 0]).bytes(), 0);
    }
}
