//! Weights as the kernels take them, and which kernel takes which.

use super::entry::{self, Entry};
use super::expansion::Expanded;
use super::params::{
    EMIT_I8, EmbedParams, Emit, ExpandParams, FORMAT_BF16, FORMAT_F16, FORMAT_F32, FORMAT_W4_GROUP,
    FORMAT_W4_TWO_LEVEL, FORMAT_W8, GATED_CLUSTER, GATED_TURNS, GatedStepParams, LinearParams, LinearSegment,
    MAX_SEGMENTS, NORM_MAX_COLUMNS, RmsNormParams, SKINNY_TILE_ROWS, STREAM_MAX_GROUPS, STREAM_WARPS,
};
use super::program::Resolver;
use super::resolve::epilogue;
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
    /// For many rows, where there are warpgroup instructions: the same segments, together and as W8.
    pub(super) wide: Option<WideOp>,
    /// Float weights and small groups, for any number of rows.
    pub(super) scalar: Vec<LinearParams>,
    /// What makes the input, in a launch before: one row is made by the linear itself.
    pub(super) before: Option<Before>,
}

/// The end of the launch before a linear, of which the linear's kernel is capable for one row.
#[derive(Clone, Copy)]
pub(super) enum Before {
    Norm(RmsNormParams),
    Gated(GatedStepParams),
}

impl LinearOp {
    /// Takes over what makes its input, if one kernel does both.
    pub(super) fn take(&mut self, before: Before) -> bool {
        let [linear] = &self.skinny[..] else { return false };
        let (emit, able) = match &before {
            Before::Norm(norm) => (&norm.emit, norm.delta == 0 && is_plain_norm(&norm.emit)),
            Before::Gated(GatedStepParams { norm, .. }) => {
                let whole = is_whole_row(&norm.emit, norm.group_size);
                (&norm.emit, whole)
            }
        };
        let same = emit.out == linear.x && emit.out_scale == linear.x_scale && emit.n_padded == linear.k_padded;
        let few = linear.segments.iter().all(|segment| segment.groups <= STREAM_MAX_GROUPS);
        self.before = (same && able && few && self.scalar.is_empty()).then_some(before);
        self.before.is_some()
    }
}

fn is_plain_norm(emit: &Emit) -> bool {
    let plain = emit.format == EMIT_I8 && emit.hadamard_block == 0;
    plain && emit.n.is_multiple_of(4) && emit.n_padded <= NORM_MAX_COLUMNS
}

/// Whether a cluster of blocks can make the gated row: equal parts of whole pieces of 256 columns, blocks of the rotation and
/// groups of the norm, that fit registers.
fn is_whole_row(emit: &Emit, group_size: u32) -> bool {
    let part = emit.n / GATED_CLUSTER;
    let pieces =
        emit.n == emit.n_padded && emit.n.is_multiple_of(GATED_CLUSTER * 256) && group_size.is_multiple_of(256);
    let rotated = emit.hadamard_block <= 1 || emit.hadamard_block >= 256 && part.is_multiple_of(emit.hadamard_block);
    let fits = part.is_multiple_of(group_size) && part <= GATED_TURNS * STREAM_WARPS * 256;
    pieces && rotated && fits && emit.format == EMIT_I8
}

/// A linear of W8 segments, some of which are made of W4 first.
pub(super) struct WideOp {
    pub(super) expand: Vec<ExpandParams>,
    /// Whether that may be done beside the scan in front of it.
    pub(super) ahead: bool,
    pub(super) linear: LinearParams,
}

impl WideOp {
    /// The same of other activations, and of W8 weights that are already there, row after row.
    pub(super) fn on(&self, x: u64, weights: u64) -> WideOp {
        let mut linear = LinearParams { x, ..self.linear };
        let mut weight = weights;
        for segment in &mut linear.segments[..self.linear.segment_count as usize] {
            segment.weight = weight;
            weight += u64::from(segment.out_features) * u64::from(segment.row_bytes);
        }
        WideOp { expand: Vec::new(), ahead: false, linear }
    }
}

/// Most bytes that W4 weights of one linear are expanded to.
const EXPANDED_BYTES: usize = 192 << 20;

/// Bytes that the W4 segments of a linear take as W8; 0 where the linear cannot be expanded.
pub(super) fn expanded_bytes(in_features: usize, segments: &[Segment]) -> usize {
    let row_bytes = in_features.next_multiple_of(K_ALIGN);
    let narrow = segments.iter().filter(|s| matches!(s.format, WeightFormat::W4TwoLevel { .. }));
    let rows: usize = narrow.filter(|s| takes_tensor_cores(s.format)).map(|s| s.out_features).sum();
    if rows * row_bytes > EXPANDED_BYTES { 0 } else { rows * row_bytes }
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

pub(super) fn linear(
    resolver: &Resolver<'_>,
    x: Activation,
    k: usize,
    segments: &[Segment],
    place: Option<Expanded>,
) -> LinearOp {
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
    let chosen = |wanted: bool| -> Vec<LinearSegment> {
        let of_kind = segments.iter().filter(|s| takes_tensor_cores(s.format) == wanted);
        of_kind.map(|s| segment(resolver, s, k)).collect()
    };
    let launches = |wanted: bool, most: usize| -> Vec<LinearParams> {
        chosen(wanted).chunks(most).map(|part| with_segments(common, part)).collect()
    };
    let streamed = |params| LinearParams { draws: resolver.counter(), ..params };
    LinearOp {
        rows: resolver.plan.buffer(data).rows,
        wide: widen(resolver, common, &chosen(true), place),
        skinny: launches(true, MAX_SEGMENTS as usize).into_iter().map(streamed).collect(),
        gemm: launches(true, 1),
        scalar: launches(false, 1),
        before: None,
    }
}

/// `None` where a segment can be no W8, or its W8 has no place.
fn widen(
    resolver: &Resolver<'_>,
    common: LinearParams,
    segments: &[LinearSegment],
    place: Option<Expanded>,
) -> Option<WideOp> {
    let mut free = resolver.scratch.expanded.address() + place.map_or(0, |place| place.offset as u64);
    let (mut wide, mut expand) = (Vec::new(), Vec::new());
    for segment in segments {
        match segment.format {
            FORMAT_W8 => wide.push(*segment),
            FORMAT_W4_TWO_LEVEL if place.is_some() => {
                let params = ExpandParams {
                    weight: segment.weight,
                    group_scale: segment.group_scale,
                    out: free,
                    rows: segment.out_features,
                    row_bytes: segment.row_bytes,
                    groups: segment.groups,
                    group_size: segment.group_size,
                };
                let row_bytes = segment.row_bytes * 2;
                wide.push(LinearSegment { weight: free, format: FORMAT_W8, row_bytes, groups: 0, ..*segment });
                expand.push(params);
                free += u64::from(segment.out_features) * u64::from(row_bytes);
            }
            _ => return None,
        }
    }
    let fits = !wide.is_empty() && wide.len() <= MAX_SEGMENTS as usize;
    let ahead = place.is_some_and(|place| place.ahead);
    fits.then(|| WideOp { expand, ahead, linear: with_segments(common, &wide) })
}

/// The same segments in tiles of so many rows.
pub(super) fn with_tiles(mut params: LinearParams, rows: u32) -> LinearParams {
    params.tiles = 0;
    for segment in &mut params.segments[..params.segment_count as usize] {
        segment.first_tile = params.tiles;
        params.tiles += segment.out_features.div_ceil(rows);
    }
    params
}

fn with_segments(mut params: LinearParams, segments: &[LinearSegment]) -> LinearParams {
    for (slot, segment) in params.segments.iter_mut().zip(segments) {
        *slot = LinearSegment { first_tile: params.tiles, ..*segment };
        params.tiles += segment.out_features.div_ceil(SKINNY_TILE_ROWS);
    }
    params.segment_count = segments.len() as u32;
    params.scale_bytes = segments.iter().map(scale_bytes).max().unwrap_or(0);
    params
}

/// Room for the group scales of a tile, which may start and end anywhere within 16 bytes.
fn scale_bytes(segment: &LinearSegment) -> u32 {
    let bytes = segment.groups * SKINNY_TILE_ROWS * if segment.format == FORMAT_W4_GROUP { 2 } else { 1 };
    if bytes == 0 { 0 } else { bytes.next_multiple_of(16) + 16 }
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
    FewRows { rows: 4, skinny: SKINNY_8, stream: [entry::COLUMNS_4_I8, entry::COLUMNS_4_U8] },
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
