//! Weights as the kernels take them, and which kernel takes which.

use super::entry::{self, Entry};
use super::params::{
    EmbedParams, FORMAT_BF16, FORMAT_F16, FORMAT_F32, FORMAT_W4_GROUP, FORMAT_W4_TWO_LEVEL, FORMAT_W8, LinearParams,
    LinearSegment, MAX_SEGMENTS, SKINNY_TILE_ROWS,
};
use super::program::{Resolver, epilogue};
use super::tensors::Tensors;
use crate::plan::{Activation, DType, Embedding, K_ALIGN, Rows, Segment, WeightFormat};
use bytemuck::Zeroable;

/// A linear, cut into launches: the skinny kernel takes several segments, the others one.
pub(super) struct LinearOp {
    pub(super) rows: Rows,
    /// For few rows: segments that the integer tensor cores take, together.
    pub(super) skinny: Vec<LinearParams>,
    /// For many rows: the same segments, one by one.
    pub(super) gemm: Vec<LinearParams>,
    /// Float weights and small groups, for any number of rows.
    pub(super) scalar: Vec<LinearParams>,
}

/// Groups that the tensor-core kernels take are a multiple of this.
const TENSOR_CORE_GROUP: usize = 128;

fn takes_tensor_cores(format: WeightFormat) -> bool {
    match format {
        WeightFormat::Float { .. } => false,
        WeightFormat::W8 => true,
        WeightFormat::W4TwoLevel { group_size } | WeightFormat::W4Group { group_size } => {
            group_size % TENSOR_CORE_GROUP == 0
        }
    }
}

/// How rows of `k` elements are stored.
struct Stored {
    format: u32,
    row_bytes: usize,
    group_size: usize,
    has_scale: bool,
}

fn stored(format: WeightFormat, k: usize) -> Stored {
    let padded = k.next_multiple_of(K_ALIGN);
    match format {
        WeightFormat::Float { dtype } => {
            let code = match dtype {
                DType::F16 => FORMAT_F16,
                DType::Bf16 => FORMAT_BF16,
                _ => FORMAT_F32,
            };
            Stored { format: code, row_bytes: k * dtype.bytes(), group_size: 0, has_scale: false }
        }
        WeightFormat::W8 => Stored { format: FORMAT_W8, row_bytes: padded, group_size: 0, has_scale: true },
        WeightFormat::W4TwoLevel { group_size } => {
            Stored { format: FORMAT_W4_TWO_LEVEL, row_bytes: padded / 2, group_size, has_scale: true }
        }
        WeightFormat::W4Group { group_size } => {
            Stored { format: FORMAT_W4_GROUP, row_bytes: padded / 2, group_size, has_scale: false }
        }
    }
}

impl Stored {
    fn groups(&self, k: usize) -> usize {
        if self.group_size == 0 { 0 } else { k.div_ceil(self.group_size) }
    }

    fn scale(&self, weight: &str, tensors: &Tensors) -> u64 {
        if self.has_scale { tensors.get(&format!("{weight}.scale")) } else { 0 }
    }

    fn group_scale(&self, weight: &str, tensors: &Tensors) -> u64 {
        if self.group_size == 0 { 0 } else { tensors.get(&format!("{weight}.group_scale")) }
    }
}

/// An embedding table; the caller fills in tokens and result.
pub(super) fn embedding(table: &Embedding, tensors: &Tensors) -> EmbedParams {
    let stored = stored(table.format, table.hidden_size);
    EmbedParams {
        tokens: 0,
        table: tensors.get(&format!("{}.weight", table.weight)),
        scale: stored.scale(&table.weight, tensors),
        group_scale: stored.group_scale(&table.weight, tensors),
        out: 0,
        n: table.hidden_size as u32,
        row_bytes: stored.row_bytes as u32,
        format: stored.format,
        groups: stored.groups(table.hidden_size) as u32,
        group_size: stored.group_size as u32,
        padding: 0,
    }
}

fn segment(resolver: &Resolver<'_>, segment: &Segment, k: usize) -> LinearSegment {
    let stored = stored(segment.format, k);
    LinearSegment {
        weight: resolver.tensors.get(&format!("{}.weight", segment.weight)),
        scale: stored.scale(&segment.weight, resolver.tensors),
        group_scale: stored.group_scale(&segment.weight, resolver.tensors),
        out: resolver.address(segment.out),
        out_features: segment.out_features as u32,
        row_bytes: stored.row_bytes as u32,
        format: stored.format,
        groups: stored.groups(k) as u32,
        group_size: stored.group_size as u32,
        epilogue: epilogue(segment.epilogue),
        first_tile: 0,
        padding: 0,
    }
}

pub(super) fn linear(resolver: &Resolver<'_>, x: Activation, k: usize, segments: &[Segment]) -> LinearOp {
    let (data, scale) = match x {
        Activation::Float { data } => (data, 0),
        Activation::Quantized { data, scale } => (data, resolver.address(scale)),
    };
    let common = LinearParams {
        x: resolver.address(data),
        x_scale: scale,
        k: k as u32,
        k_padded: resolver.plan.buffer(data).cols as u32,
        x_unsigned: u32::from(resolver.plan.buffer(data).dtype == DType::U8),
        ..LinearParams::zeroed()
    };
    let launches = |wanted: bool, most: usize| -> Vec<LinearParams> {
        let chosen: Vec<LinearSegment> = segments
            .iter()
            .filter(|s| takes_tensor_cores(s.format) == wanted)
            .map(|s| segment(resolver, s, k))
            .collect();
        chosen.chunks(most).map(|part| with_segments(common, part)).collect()
    };
    LinearOp {
        rows: resolver.plan.buffer(data).rows,
        skinny: launches(true, MAX_SEGMENTS as usize),
        gemm: launches(true, 1),
        scalar: launches(false, 1),
    }
}

fn with_segments(mut params: LinearParams, segments: &[LinearSegment]) -> LinearParams {
    for (slot, segment) in params.segments.iter_mut().zip(segments) {
        *slot = LinearSegment { first_tile: params.tiles, ..*segment };
        params.tiles += segment.out_features.div_ceil(SKINNY_TILE_ROWS);
    }
    params.segment_count = segments.len() as u32;
    params
}

/// Kernels for few rows, each with one for signed and one for unsigned activations.
pub(super) struct FewRows {
    /// The most they take.
    pub(super) rows: u32,
    /// For every GPU.
    pub(super) skinny: [Entry; 2],
    /// For those with bulk copies.
    pub(super) stream: [Entry; 2],
}

const SKINNY_8: [Entry; 2] = [entry::SKINNY_8_I8, entry::SKINNY_8_U8];

/// By the rows they take.
pub(super) const FEW_ROWS: [FewRows; 7] = [
    FewRows { rows: 1, skinny: SKINNY_8, stream: [entry::DOT_1_I8, entry::DOT_1_U8] },
    FewRows { rows: 2, skinny: SKINNY_8, stream: [entry::DOT_2_I8, entry::DOT_2_U8] },
    FewRows { rows: 4, skinny: SKINNY_8, stream: [entry::DOT_4_I8, entry::DOT_4_U8] },
    FewRows { rows: 8, skinny: SKINNY_8, stream: [entry::STREAM_8_I8, entry::STREAM_8_U8] },
    FewRows {
        rows: 16,
        skinny: [entry::SKINNY_16_I8, entry::SKINNY_16_U8],
        stream: [entry::STREAM_16_I8, entry::STREAM_16_U8],
    },
    FewRows {
        rows: 32,
        skinny: [entry::SKINNY_32_I8, entry::SKINNY_32_U8],
        stream: [entry::STREAM_32_I8, entry::STREAM_32_U8],
    },
    FewRows {
        rows: 64,
        skinny: [entry::SKINNY_64_I8, entry::SKINNY_64_U8],
        stream: [entry::STREAM_64_I8, entry::STREAM_64_U8],
    },
];

/// A GEMM of many rows.
pub(super) struct Gemm {
    pub(super) entry: Entry,
    pub(super) block_n: u32,
    pub(super) smem_bytes: u32,
}

/// The GEMM for a segment on a GPU that lends a block this much shared memory.
pub(super) fn gemm(params: &LinearParams, smem_per_block: u32) -> Gemm {
    let wide_bytes = entry::gemm_smem_bytes(false, 256, 4);
    let format = params.segments[0].format;
    let (block_n, smem_bytes, signed, unsigned) = match format {
        FORMAT_W8 if smem_per_block >= wide_bytes => (256, wide_bytes, entry::GEMM_W8_WIDE_I8, entry::GEMM_W8_WIDE_U8),
        FORMAT_W8 => (128, entry::gemm_smem_bytes(false, 128, 3), entry::GEMM_W8_I8, entry::GEMM_W8_U8),
        FORMAT_W4_TWO_LEVEL => (128, entry::gemm_smem_bytes(true, 128, 4), entry::GEMM_W4_I8, entry::GEMM_W4_U8),
        _ => (128, entry::gemm_smem_bytes(true, 128, 4), entry::GEMM_W4_GROUP_I8, entry::GEMM_W4_GROUP_U8),
    };
    let entry = if params.x_unsigned == 1 { unsigned } else { signed };
    Gemm { entry, block_n, smem_bytes }
}
