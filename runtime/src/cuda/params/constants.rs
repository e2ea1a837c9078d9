//! Numbers that kernels and launcher agree on.

device_constants! {
    /// `DType::F32`.
    DTYPE_F32 = 0;
    /// `DType::F16`.
    DTYPE_F16 = 1;
    /// `DType::Bf16`.
    DTYPE_BF16 = 2;
    /// `DType::I8`, with scales.
    DTYPE_I8 = 3;

    /// f32 weights.
    FORMAT_F32 = 0;
    /// f16 weights.
    FORMAT_F16 = 1;
    /// bf16 weights.
    FORMAT_BF16 = 2;
    /// `WeightFormat::W8`.
    FORMAT_W8 = 3;
    /// `WeightFormat::W4TwoLevel`.
    FORMAT_W4_TWO_LEVEL = 4;
    /// `WeightFormat::W4Group`.
    FORMAT_W4_GROUP = 5;

    /// f32 result.
    EMIT_FLOAT = 0;
    /// Signed 8-bit result.
    EMIT_I8 = 1;
    /// Unsigned 8-bit result.
    EMIT_U8 = 2;

    /// `Epilogue::Store`.
    EPILOGUE_STORE = 0;
    /// `Epilogue::Relu2`.
    EPILOGUE_RELU2 = 1;
    /// `Epilogue::Accumulate`.
    EPILOGUE_ACCUMULATE = 2;
    /// `Epilogue::Accumulator`.
    EPILOGUE_ACCUMULATOR = 3;

    /// Segments one launch of a linear takes.
    MAX_SEGMENTS = 4;
    /// Weight rows of a tile of the skinny linear.
    SKINNY_TILE_ROWS = 8;
    /// Warps of a block of the skinny linear.
    SKINNY_WARPS = 8;
    /// Stages of the ring of the linear by two warpgroups in turn.
    PINGPONG_STAGES = 6;
    /// Its blocks a cluster.
    PINGPONG_CLUSTER = 2;
    /// Pieces of weights in flight a lane.
    SKINNY_STAGES = 16;
    /// Warps of a block of the streaming linear that multiply; one more requests.
    STREAM_WARPS = 8;
    /// Stages of its ring.
    STREAM_STAGES = 5;
    /// Tiles whose scales are in its shared memory.
    STREAM_SCALE_STAGES = 8;
    /// Bytes of each of the rows of a stage.
    STREAM_ROW_BYTES = 2048;
    /// Rows of the streaming linear of many rows.
    MANY_TOKENS = 32;
    /// Stages of its ring.
    MANY_STAGES = 3;
    /// Weight rows of a tile of it.
    MANY_TILE_ROWS = 32;
    /// Bytes of each of the rows of a stage.
    MANY_ROW_BYTES = 512;
    /// Blocks of a cluster of the linear by pairs.
    PAIR_CLUSTER = 2;
    /// Boxes of weights of a stage of its ring.
    PAIR_BOXES = 2;
    /// Most weight rows of a tile of it, in groups of 16.
    PAIR_MAX_ROW_GROUPS = 4;
    /// Tiles of which it has group scales at a time.
    PAIR_SCALE_TILES = 2;
    /// Most stages of its ring.
    PAIR_MAX_STAGES = 16;
    /// Groups a weight row may have.
    STREAM_MAX_GROUPS = 176;
    /// Blocks of a cluster that make a gated row in front of a linear.
    GATED_CLUSTER = 4;
    /// Most pieces of 256 columns of it that a warp keeps in registers.
    GATED_TURNS = 2;
    /// Shared memory of a block for it, besides the row.
    GATED_SHARED_BYTES = 224;
    /// Columns of a norm in front of a linear.
    NORM_MAX_COLUMNS = 5120;
    /// Pieces of 128 columns of a row that a block normalizes.
    NORM_MAX_PIECES = 512;
    /// Warps of a block of a norm that takes a part of a row.
    NORM_PART_WARPS = 4;
    /// Pieces of 128 columns that each of them keeps in registers.
    NORM_PART_TURNS = 2;
    /// Most blocks of its clusters.
    NORM_PART_CLUSTER = 8;
    /// Warps of a block of a norm that takes one of many rows; there is one of twice as many.
    NORM_ROW_WARPS = 4;
    /// Pieces of 128 columns that each of them keeps in registers.
    NORM_ROW_TURNS = 8;
    /// Warps of a block of a map that takes a row.
    MAP_ROW_WARPS = 14;
    /// Pieces of 256 columns that each of them keeps in registers.
    MAP_ROW_TURNS = 6;
    /// Warps of a block of a map that takes a part of a row, each with a piece of 256 columns in registers.
    MAP_PART_WARPS = 12;
    /// Warps of a block of a map that takes one of many short rows.
    MAP_SHORT_WARPS = 4;
    /// Pieces of 256 columns that each of them keeps in registers.
    MAP_SHORT_TURNS = 4;
    /// Groups of a gated norm.
    GATED_MAX_GROUPS = 256;
    /// Rows and columns of a tile of a product of floats.
    FLOAT_TILE = 128;
    /// Tokens of which a thread measures a channel.
    CHANNEL_ROWS = 256;
    /// Groups of a gated norm whose rows stay in registers, each of 1024 columns.
    GATED_ROWS_GROUPS = 8;
    /// Steps of the convolution whose inputs a thread has in flight together.
    CONV_BATCH = 8;
    /// Time steps a block of the convolution computes.
    CONV_CHUNK = 32;
    /// Longest convolution.
    CONV_MAX_TAPS = 8;
    /// Warps of a block of the scan.
    SCAN_WARPS = 4;
    /// Rows of a piece of a state of the scan of many sequences.
    SCAN_MANY_ROWS = 16;
    /// Pieces in its ring.
    SCAN_MANY_STAGES = 12;
    /// Its warps that compute; one more requests.
    SCAN_MANY_WARPS = 4;
    /// Pieces in its ring where an element has 16 bits.
    SCAN_MANY_STAGES_16 = 16;
    /// Its warps then: rounding is more work, for half of the bytes.
    SCAN_MANY_WARPS_16 = 8;
    /// Warps of a block of the gated norm by clusters, 256 columns each.
    GATED_ROWS_WARPS = 4;
    /// Most blocks of its clusters.
    GATED_ROWS_CLUSTER = 8;
    /// Warps of a block of the long scan.
    LONG_SCAN_WARPS = 8;
    /// Tokens a stage of the long scan holds.
    SCAN_STAGE_TOKENS = 16;
    /// Warps of a block of the scan in chunks.
    SCAN_CHUNK_WARPS = 8;
    /// Rows of a state that a block of it has.
    SCAN_CHUNK_ROWS = 64;
    /// Its columns of a state.
    SCAN_CHUNK_COLUMNS = 128;
    /// Parts of the context that attention may be split into.
    ATTENTION_MAX_PARTS = 64;
    /// Warps of a block of the attention of one token a sequence.
    ATTENTION_DECODE_WARPS = 4;
    /// Stages of the ring of each of them.
    ATTENTION_DECODE_STAGES = 3;
    /// The same where a block takes a whole context.
    ATTENTION_WHOLE_STAGES = 2;
}
