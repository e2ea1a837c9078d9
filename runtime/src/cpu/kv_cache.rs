//! Keys and values of one sequence in one attention layer.

use super::storage::Storage;
use crate::device::DeviceError;
use crate::plan::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Rows of `width` elements, one a token, keys and values apart.
#[derive(Clone)]
pub(super) struct KvCache {
    dtype: DType,
    width: usize,
    keys: Storage,
    values: Storage,
}

/// Keys or values in their element type.
#[derive(Clone, Copy)]
pub(super) enum KvRows<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl KvRows<'_> {
    /// Elements `start..` as floats.
    pub(super) fn load(self, start: usize, to: &mut [f32]) {
        let range = start..start + to.len();
        match self {
            KvRows::F32(rows) => to.copy_from_slice(&rows[range]),
            KvRows::F16(rows) => rows[range].convert_to_f32_slice(to),
            KvRows::Bf16(rows) => rows[range].convert_to_f32_slice(to),
        }
    }
}

impl KvCache {
    pub(super) fn new(dtype: DType, width: usize) -> KvCache {
        KvCache { dtype, width, keys: Storage::default(), values: Storage::default() }
    }

    fn bytes(&self, tokens: usize) -> usize {
        tokens * self.width * self.dtype.bytes()
    }

    pub(super) fn grow(&mut self, tokens: usize) -> Result<(), DeviceError> {
        let bytes = self.bytes(tokens);
        self.keys.grow(bytes, "keys")?;
        self.values.grow(bytes, "values")
    }

    pub(super) fn copy_tokens(&mut self, from: &KvCache, tokens: usize) {
        let bytes = self.bytes(tokens);
        self.keys.view_mut::<u8>(bytes).copy_from_slice(from.keys.view(bytes));
        self.values.view_mut::<u8>(bytes).copy_from_slice(from.values.view(bytes));
    }

    /// Stores the rows of tokens `position..`.
    pub(super) fn append(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        let start = position * self.width;
        store(&mut self.keys, self.dtype, start, keys);
        store(&mut self.values, self.dtype, start, values);
    }

    /// Keys of the first `tokens` tokens.
    pub(super) fn keys(&self, tokens: usize) -> KvRows<'_> {
        rows(&self.keys, self.dtype, tokens * self.width)
    }

    /// Values of the first `tokens` tokens.
    pub(super) fn values(&self, tokens: usize) -> KvRows<'_> {
        rows(&self.values, self.dtype, tokens * self.width)
    }

    /// All keys, then all values.
    pub(super) fn read(&self, tokens: usize) -> Vec<u8> {
        let bytes = self.bytes(tokens);
        let keys: &[u8] = self.keys.view(bytes);
        [keys, self.values.view(bytes)].concat()
    }

    /// The reverse of [`KvCache::read`]; false if the length is wrong.
    pub(super) fn write(&mut self, tokens: usize, bytes: &[u8]) -> bool {
        let half = self.bytes(tokens);
        if bytes.len() != 2 * half {
            return false;
        }
        self.keys.view_mut(half).copy_from_slice(&bytes[..half]);
        self.values.view_mut(half).copy_from_slice(&bytes[half..]);
        true
    }
}

fn rows(storage: &Storage, dtype: DType, len: usize) -> KvRows<'_> {
    match dtype {
        DType::F16 => KvRows::F16(storage.view(len)),
        DType::Bf16 => KvRows::Bf16(storage.view(len)),
        _ => KvRows::F32(storage.view(len)),
    }
}

fn store(storage: &mut Storage, dtype: DType, start: usize, from: &[f32]) {
    let end = start + from.len();
    match dtype {
        DType::F16 => storage.view_mut::<f16>(end)[start..].convert_from_f32_slice(from),
        DType::Bf16 => storage.view_mut::<bf16>(end)[start..].convert_from_f32_slice(from),
        _ => storage.view_mut::<f32>(end)[start..].copy_from_slice(from),
    }
}
