//! `kv_cache` and `ssm_state`: what a sequence keeps from step to step.

use ir::types::Storage;
use serde::{Deserialize, Serialize};

/// Storage of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvCache {
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// 8 bits, with an f32 scale for each head of a token.
    Int8,
}

/// Storage of scan states between steps; all but f32 are rounded stochastically.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SsmState {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8 bits, with an f32 scale for each row of the state.
    Int8,
}

impl SsmState {
    /// The element type of the state.
    pub const fn storage(self) -> Storage {
        match self {
            SsmState::F32 => Storage::F32,
            SsmState::F16 => Storage::F16,
            SsmState::Bf16 => Storage::Bf16,
            SsmState::Int8 => Storage::I8,
        }
    }
}

impl KvCache {
    /// The element type of the state.
    pub const fn storage(self) -> Storage {
        match self {
            KvCache::Bf16 => Storage::Bf16,
            KvCache::F16 => Storage::F16,
            KvCache::F32 => Storage::F32,
            KvCache::Int8 => Storage::I8,
        }
    }
}
