//! The arguments of linears.

use super::Address;

device_structs! {
    /// `plan::Segment`.
    struct LinearSegment {
        /// Rows as stored.
        weight: Address = "const void *weight",
        /// Row scales, or 0.
        scale: Address = "const float *scale",
        /// Group scales, or 0.
        group_scale: Address = "const void *group_scale",
        /// Result.
        out: Address = "void *out",
        /// Rows of the weight.
        out_features: u32 = "unsigned int out_features",
        /// Bytes of a row.
        row_bytes: u32 = "unsigned int row_bytes",
        /// `FORMAT_*`.
        format: u32 = "unsigned int format",
        /// Groups of a row.
        groups: u32 = "unsigned int groups",
        /// Columns of a group.
        group_size: u32 = "unsigned int group_size",
        /// `EPILOGUE_*`.
        epilogue: u32 = "unsigned int epilogue",
        /// Number of tiles of the segments before.
        first_tile: u32 = "unsigned int first_tile",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }

    /// `Kernel::Linear`.
    struct LinearParams {
        /// Activations, 8-bit or f32.
        x: Address = "const void *x",
        /// Scale of every row, or 0.
        x_scale: Address = "const float *x_scale",
        /// Tiles drawn by the blocks of the streaming linear; 0 between launches.
        draws: Address = "unsigned int *draws",
        /// Weights of a launch behind this one, to be brought into L2.
        next: Address = "const void *next",
        /// Columns of x.
        k: u32 = "unsigned int k",
        /// Columns of 8-bit x in memory.
        k_padded: u32 = "unsigned int k_padded",
        /// Rows of x.
        rows: u32 = "unsigned int rows",
        /// 1 for u8 activations.
        x_unsigned: u32 = "unsigned int x_unsigned",
        /// Segments in use.
        segment_count: u32 = "unsigned int segment_count",
        /// Tiles of all segments.
        tiles: u32 = "unsigned int tiles",
        /// Shared memory for the group scales of a tile of the streaming linear.
        scale_bytes: u32 = "unsigned int scale_bytes",
        /// Bytes of `next`.
        next_bytes: u32 = "unsigned int next_bytes",
        /// The weights.
        segments: [LinearSegment; 4] = "LinearSegment segments[4]",
    }

    /// How the copy engine finds tiles of a matrix.
    struct TensorMap {
        /// As the driver encoded it.
        opaque: [u64; 16] = "alignas(64) unsigned long long opaque[16]",
    }

    /// `Kernel::Linear` by warpgroup instructions: all segments W8.
    struct WarpgroupParams {
        /// Tiles of x.
        x: TensorMap = "TensorMap x",
        /// Tiles of the weights.
        weights: [TensorMap; 4] = "TensorMap weights[4]",
        /// Boxes of the results, of the segments whose bit is in `engine_stores`.
        out: [TensorMap; 4] = "TensorMap out[4]",
        /// The linear; its tiles are those of the kernel.
        linear: LinearParams = "LinearParams linear",
        /// A bit for each segment whose results the copy engine stores.
        engine_stores: u32 = "unsigned int engine_stores",
        /// 1 where blocks of a cluster have the same weight rows, 0 where they have the same tokens.
        shares_weights: u32 = "unsigned int shares_weights",
        /// Tiles of tokens of a cluster that all of them are.
        columns: u32 = "unsigned int columns",
        /// Pairs of tiles that every cluster computes.
        rounds: u32 = "unsigned int rounds",
        /// Clusters that compute one more, or half of one.
        extra: u32 = "unsigned int extra",
        /// 1 where that is half of one.
        halved: u32 = "unsigned int halved",
        /// Unused.
        padding: [u32; 10] = "unsigned int padding[10]",
    }

    /// `Kernel::Linear` by pairs of blocks: all segments W8 or W4 two-level.
    struct PairParams {
        /// Boxes of x.
        x: TensorMap = "TensorMap x",
        /// Boxes of the weights.
        weights: [TensorMap; 4] = "TensorMap weights[4]",
        /// The linear.
        linear: LinearParams = "LinearParams linear",
        /// Rows of its tiles, in groups of 16.
        row_groups: u32 = "unsigned int row_groups",
        /// Stages of the ring.
        stages: u32 = "unsigned int stages",
        /// Bytes of a stage.
        stage_bytes: u32 = "unsigned int stage_bytes",
        /// Room for the group scales of a tile.
        scale_bytes: u32 = "unsigned int scale_bytes",
        /// Unused.
        padding: [u32; 12] = "unsigned int padding[12]",
    }

    /// W4 two-level weights to W8.
    struct ExpandParams {
        /// Rows as stored.
        weight: Address = "const void *weight",
        /// Group scales.
        group_scale: Address = "const void *group_scale",
        /// Rows of W8.
        out: Address = "void *out",
        /// Rows.
        rows: u32 = "unsigned int rows",
        /// Bytes of a stored row.
        row_bytes: u32 = "unsigned int row_bytes",
        /// Groups of a row.
        groups: u32 = "unsigned int groups",
        /// Columns of a group.
        group_size: u32 = "unsigned int group_size",
    }
}

impl LinearParams {
    /// Those in use.
    pub(in crate::cuda) fn segments(&self) -> &[LinearSegment] {
        &self.segments[..self.segment_count as usize]
    }
}
