//! Keys and values of one sequence in one attention layer, rounded as [`crate::plan::StateKind`] says.

use super::emit::quantize_i8;
use super::scan_state::dequantize;
use super::storage::Storage;
use crate::device::DeviceError;
use crate::plan::{DType, State};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Rows of `width` elements, one a token, keys and values apart.
#[derive(Clone)]
pub(super) struct KvCache {
    layout: Layout,
    keys: Half,
    values: Half,
}

/// How a token is stored.
#[derive(Clone, Copy)]
struct Layout {
    dtype: DType,
    /// Elements of a token.
    width: usize,
    /// Elements that share a scale.
    head_dim: usize,
    /// Scales of a token.
    scales: usize,
}

/// Keys, or values.
#[derive(Clone, Default)]
struct Half {
    data: Storage,
    scales: Storage,
}

/// Keys or values in their element type.
#[derive(Clone, Copy)]
pub(super) enum KvRows<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    I8 { q: &'a [i8], scales: &'a [f32], head_dim: usize },
}

impl KvRows<'_> {
    /// Elements `start..` as floats; of one head, where there are scales.
    pub(super) fn load(self, start: usize, to: &mut [f32]) {
        let range = start..start + to.len();
        match self {
            KvRows::F32(rows) => to.copy_from_slice(&rows[range]),
            KvRows::F16(rows) => rows[range].convert_to_f32_slice(to),
            KvRows::Bf16(rows) => rows[range].convert_to_f32_slice(to),
            KvRows::I8 { q, scales, head_dim } => dequantize(&q[range], scales[start / head_dim], to),
        }
    }
}

impl KvCache {
    pub(super) fn new(state: &State) -> KvCache {
        let layout =
            Layout { dtype: state.dtype, width: state.elements(), head_dim: state.row(), scales: state.scales() };
        KvCache { layout, keys: Half::default(), values: Half::default() }
    }

    pub(super) fn grow(&mut self, tokens: usize) -> Result<(), DeviceError> {
        self.keys.grow(self.layout, tokens, "keys")?;
        self.values.grow(self.layout, tokens, "values")
    }

    pub(super) fn copy_tokens(&mut self, from: &KvCache, tokens: usize) {
        self.write(tokens, &from.read(tokens));
    }

    /// Stores the rows of tokens `position..`.
    pub(super) fn append(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        self.keys.store(self.layout, position, keys);
        self.values.store(self.layout, position, values);
    }

    /// Keys of the first `tokens` tokens.
    pub(super) fn keys(&self, tokens: usize) -> KvRows<'_> {
        self.keys.rows(self.layout, tokens)
    }

    /// Values of the first `tokens` tokens.
    pub(super) fn values(&self, tokens: usize) -> KvRows<'_> {
        self.values.rows(self.layout, tokens)
    }

    /// All keys and their scales, then all values and theirs.
    pub(super) fn read(&self, tokens: usize) -> Vec<u8> {
        let [data, scales] = self.layout.bytes(tokens);
        let half = |half: &'_ Half| [half.data.view::<u8>(data), half.scales.view(scales)].concat();
        [half(&self.keys), half(&self.values)].concat()
    }

    /// The reverse of [`KvCache::read`]; false if the length is wrong.
    pub(super) fn write(&mut self, tokens: usize, bytes: &[u8]) -> bool {
        let [data, scales] = self.layout.bytes(tokens);
        if bytes.len() != 2 * (data + scales) {
            return false;
        }
        let (keys, values) = bytes.split_at(data + scales);
        for (half, bytes) in [(&mut self.keys, keys), (&mut self.values, values)] {
            half.data.view_mut(data).copy_from_slice(&bytes[..data]);
            half.scales.view_mut(scales).copy_from_slice(&bytes[data..]);
        }
        true
    }
}

impl Layout {
    /// Of elements and of scales.
    fn bytes(self, tokens: usize) -> [usize; 2] {
        [tokens * self.width * self.dtype.bytes(), tokens * self.scales * size_of::<f32>()]
    }
}

impl Half {
    fn grow(&mut self, layout: Layout, tokens: usize, what: &str) -> Result<(), DeviceError> {
        let [data, scales] = layout.bytes(tokens);
        self.data.grow(data, what)?;
        self.scales.grow(scales, what)
    }

    fn rows(&self, layout: Layout, tokens: usize) -> KvRows<'_> {
        let len = tokens * layout.width;
        match layout.dtype {
            DType::F16 => KvRows::F16(self.data.view(len)),
            DType::Bf16 => KvRows::Bf16(self.data.view(len)),
            DType::I8 => {
                let scales = self.scales.view(tokens * layout.scales);
                KvRows::I8 { q: self.data.view(len), scales, head_dim: layout.head_dim }
            }
            _ => KvRows::F32(self.data.view(len)),
        }
    }

    fn store(&mut self, layout: Layout, position: usize, from: &[f32]) {
        let start = position * layout.width;
        let end = start + from.len();
        match layout.dtype {
            DType::F16 => self.data.view_mut::<f16>(end)[start..].convert_from_f32_slice(from),
            DType::Bf16 => self.data.view_mut::<bf16>(end)[start..].convert_from_f32_slice(from),
            DType::I8 => {
                let (dim, first) = (layout.head_dim, start / layout.head_dim);
                let heads = self.data.view_mut::<i8>(end)[start..].chunks_exact_mut(dim).zip(from.chunks_exact(dim));
                let scales = &mut self.scales.view_mut::<f32>(end / dim)[first..];
                heads.zip(scales).for_each(|((q, from), scale)| *scale = quantize_i8(from, q));
            }
            _ => self.data.view_mut::<f32>(end)[start..].copy_from_slice(from),
        }
    }
}
