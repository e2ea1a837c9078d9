//! THE kernel table: which template instance each entry point of the runtime names.

use runtime::cuda::entry::{self, Entry};

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct KernelRow {
    /// The entry point.
    pub entry: Entry,
    /// The file of the template.
    pub file: &'static str,
    /// The struct it takes.
    pub params: &'static str,
    /// The function it calls.
    pub instance: &'static str,
}

/// A source file of the kernels.
#[derive(Clone, Copy, Debug)]
pub struct KernelFile {
    /// As other files include it.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(KernelFile { name: $name, text: include_str!(concat!("../kernels/", $name)) }),*]
    };
}

/// Every file under `kernels/`.
pub const FILES: &[KernelFile] = files![
    "argmax.cuh",
    "attention.cuh",
    "attention_decode.cuh",
    "attention_tile.cuh",
    "attention_warpgroup.cuh",
    "bulk.cuh",
    "cluster_peaks.cuh",
    "common.cuh",
    "conv1d.cuh",
    "embed.cuh",
    "emit.cuh",
    "emit_cluster.cuh",
    "epilogue.cuh",
    "float_tile.cuh",
    "gated_norm_1024.cuh",
    "gated_norm_rows.cuh",
    "gram.cuh",
    "hadamard.cuh",
    "int8_peak.cuh",
    "linear_expand.cuh",
    "linear_float.cuh",
    "linear_gemm.cuh",
    "linear_pair.cuh",
    "linear_pingpong.cuh",
    "linear_pingpong_store.cuh",
    "linear_scalar.cuh",
    "linear_skinny.cuh",
    "linear_stream.cuh",
    "linear_stream_columns.cuh",
    "linear_stream_dot.cuh",
    "linear_stream_gated.cuh",
    "linear_stream_many.cuh",
    "linear_stream_norm.cuh",
    "linear_stream_ring.cuh",
    "linear_stream_row.cuh",
    "linear_warpgroup.cuh",
    "map_registers.cuh",
    "mma.cuh",
    "nibbles.cuh",
    "norm_registers.cuh",
    "norm_row.cuh",
    "norm_rows.cuh",
    "observe.cuh",
    "pair_multiply.cuh",
    "rows.cuh",
    "scan_chunk.cuh",
    "scan_chunk_stage.cuh",
    "scan_state.cuh",
    "segment.cuh",
    "ssm_scan.cuh",
    "ssm_scan_chunked.cuh",
    "ssm_scan_long.cuh",
    "ssm_scan_many.cuh",
    "ssm_scan_prepare.cuh",
    "ssm_scan_step.cuh",
    "warpgroup.cuh",
    "warpgroup_float.cuh",
];

macro_rules! table {
    ($( $file:literal, $params:literal { $( $entry:ident => $instance:literal; )* } )*) => {
        &[$($( KernelRow { entry: entry::$entry, file: $file, params: $params, instance: $instance } ),*),*]
    };
}

/// Every kernel.
pub const KERNELS: &[KernelRow] = table! {
    "embed.cuh", "EmbedParams" { EMBED => "embed"; }
    "rows.cuh", "SelectParams" { SELECT_OUTPUTS => "select_outputs"; }
    "rows.cuh", "AddParams" { ADD => "add"; READ_MEMORY => "read_memory"; }
    "rows.cuh", "RmsNormParams" { RMS_NORM => "rms_norm"; }
    "norm_registers.cuh", "RmsNormParams" { RMS_NORM_PART => "rms_norm_part"; }
    "norm_rows.cuh", "RmsNormParams" {
        RMS_NORM_ROWS => "rms_norm_rows<NORM_ROW_WARPS, NORM_ROW_TURNS>";
        RMS_NORM_ROWS_WIDE => "rms_norm_rows<2 * NORM_ROW_WARPS, NORM_ROW_TURNS>";
    }
    "rows.cuh", "MapParams" { MAP => "map"; }
    "map_registers.cuh", "MapParams" {
        MAP_PLAIN => "map_registers_row<false, MAP_ROW_WARPS, MAP_ROW_TURNS>";
        MAP_ROTATED => "map_registers_row<true, MAP_ROW_WARPS, MAP_ROW_TURNS>";
        MAP_PART_PLAIN => "map_registers_row<false, MAP_PART_WARPS, 1>";
        MAP_PART_ROTATED => "map_registers_row<true, MAP_PART_WARPS, 1>";
        MAP_SHORT_PLAIN => "map_registers_row<false, MAP_SHORT_WARPS, MAP_SHORT_TURNS>";
        MAP_SHORT_ROTATED => "map_registers_row<true, MAP_SHORT_WARPS, MAP_SHORT_TURNS>";
    }
    "rows.cuh", "GatedNormParams" { GATED_RMS_NORM => "gated_rms_norm"; }
    "gated_norm_1024.cuh", "GatedNormParams" { GATED_RMS_NORM_1024 => "gated_rms_norm_1024"; }
    "gated_norm_rows.cuh", "GatedNormParams" { GATED_NORM_ROWS => "gated_norm_rows"; }
    "rows.cuh", "GatedStepParams" { GATED_RMS_NORM_STEP => "gated_rms_norm_step"; }
    "rows.cuh", "DequantizeParams" { DEQUANTIZE => "dequantize"; }
    "conv1d.cuh", "Conv1dParams" { CONV1D => "conv1d"; CONV1D_STEP => "conv1d_step"; }
    "ssm_scan.cuh", "SsmScanParams" {
        SCAN_32 => "ssm_scan<1, 1, false>";
        SCAN_64 => "ssm_scan<2, 1, false>";
        SCAN_128 => "ssm_scan<4, 1, false>";
        SCAN_256 => "ssm_scan<8, 1, false>";
        SCAN_32_NARROW => "ssm_scan<1, 1, true>";
        SCAN_64_NARROW => "ssm_scan<2, 1, true>";
        SCAN_128_NARROW => "ssm_scan<4, 1, true>";
        SCAN_256_NARROW => "ssm_scan<8, 1, true>";
    }
    "ssm_scan_long.cuh", "SsmScanParams" {
        SCAN_LONG_64 => "ssm_scan_long<1, false>";
        SCAN_LONG_128 => "ssm_scan_long<2, false>";
        SCAN_LONG_256 => "ssm_scan_long<4, false>";
        SCAN_LONG_64_NARROW => "ssm_scan_long<1, true>";
        SCAN_LONG_128_NARROW => "ssm_scan_long<2, true>";
        SCAN_LONG_256_NARROW => "ssm_scan_long<4, true>";
    }
    "ssm_scan_prepare.cuh", "SsmScanParams" {
        SCAN_PREPARE_64 => "ssm_scan_prepare<64>";
        SCAN_PREPARE_32 => "ssm_scan_prepare<32>";
    }
    "ssm_scan_chunked.cuh", "SsmScanParams" {
        SCAN_CHUNKED_64 => "ssm_scan_chunked<64, false>";
        SCAN_CHUNKED_32 => "ssm_scan_chunked<32, false>";
        SCAN_CHUNKED_32_NARROW => "ssm_scan_chunked<32, true>";
    }
    "ssm_scan_many.cuh", "SsmScanParams" {
        SCAN_MANY_128 => "ssm_scan_many<4, DTYPE_F32, SCAN_MANY_STAGES, SCAN_MANY_WARPS>";
        SCAN_MANY_128_F16 => "ssm_scan_many<4, DTYPE_F16, SCAN_MANY_STAGES_16, SCAN_MANY_WARPS_16>";
        SCAN_MANY_128_BF16 => "ssm_scan_many<4, DTYPE_BF16, SCAN_MANY_STAGES_16, SCAN_MANY_WARPS_16>";
    }
    "ssm_scan_step.cuh", "ScanStepParams" {
        SCAN_STEP_32 => "ssm_scan_step<1, false>";
        SCAN_STEP_64 => "ssm_scan_step<2, false>";
        SCAN_STEP_128 => "ssm_scan_step<4, false>";
        SCAN_STEP_256 => "ssm_scan_step<8, false>";
        SCAN_STEP_32_NARROW => "ssm_scan_step<1, true>";
        SCAN_STEP_64_NARROW => "ssm_scan_step<2, true>";
        SCAN_STEP_128_NARROW => "ssm_scan_step<4, true>";
        SCAN_STEP_256_NARROW => "ssm_scan_step<8, true>";
    }
    "attention.cuh", "AttentionParams" {
        ATTENTION_APPEND_F32 => "attention_append<DTYPE_F32>";
        ATTENTION_APPEND_F16 => "attention_append<DTYPE_F16>";
        ATTENTION_APPEND_BF16 => "attention_append<DTYPE_BF16>";
        ATTENTION_APPEND_I8 => "attention_append<DTYPE_I8>";
        ATTENTION_F32_1 => "attention_part<DTYPE_F32, 1>";
        ATTENTION_F32_4 => "attention_part<DTYPE_F32, 4>";
        ATTENTION_F16_1 => "attention_part<DTYPE_F16, 1>";
        ATTENTION_F16_4 => "attention_part<DTYPE_F16, 4>";
        ATTENTION_BF16_1 => "attention_part<DTYPE_BF16, 1>";
        ATTENTION_BF16_4 => "attention_part<DTYPE_BF16, 4>";
        ATTENTION_I8_1 => "attention_part<DTYPE_I8, 1>";
        ATTENTION_I8_4 => "attention_part<DTYPE_I8, 4>";
        ATTENTION_COMBINE => "attention_combine";
    }
    "attention_decode.cuh", "AttentionParams" {
        ATTENTION_DECODE_F16_64 => "attention_decode_part<DTYPE_F16, 64, false>";
        ATTENTION_DECODE_F16_128 => "attention_decode_part<DTYPE_F16, 128, false>";
        ATTENTION_DECODE_BF16_64 => "attention_decode_part<DTYPE_BF16, 64, false>";
        ATTENTION_DECODE_BF16_128 => "attention_decode_part<DTYPE_BF16, 128, false>";
        ATTENTION_WHOLE_F16_64 => "attention_decode_part<DTYPE_F16, 64, true>";
        ATTENTION_WHOLE_F16_128 => "attention_decode_part<DTYPE_F16, 128, true>";
        ATTENTION_WHOLE_BF16_64 => "attention_decode_part<DTYPE_BF16, 64, true>";
        ATTENTION_WHOLE_BF16_128 => "attention_decode_part<DTYPE_BF16, 128, true>";
    }
    "attention_tile.cuh", "AttentionParams" {
        ATTENTION_TILES_F16_64 => "attention_tiles<DTYPE_F16, 64>";
        ATTENTION_TILES_F16_128 => "attention_tiles<DTYPE_F16, 128>";
        ATTENTION_TILES_BF16_64 => "attention_tiles<DTYPE_BF16, 64>";
        ATTENTION_TILES_BF16_128 => "attention_tiles<DTYPE_BF16, 128>";
        ATTENTION_TILES_I8_64 => "attention_tiles<DTYPE_I8, 64>";
        ATTENTION_TILES_I8_128 => "attention_tiles<DTYPE_I8, 128>";
    }
    "attention_warpgroup.cuh", "AttentionParams" {
        ATTENTION_WARPGROUP_F16_64 => "attention_warpgroups<DTYPE_F16, 64>";
        ATTENTION_WARPGROUP_F16_128 => "attention_warpgroups<DTYPE_F16, 128>";
        ATTENTION_WARPGROUP_BF16_64 => "attention_warpgroups<DTYPE_BF16, 64>";
        ATTENTION_WARPGROUP_BF16_128 => "attention_warpgroups<DTYPE_BF16, 128>";
    }
    "linear_skinny.cuh", "LinearParams" {
        SKINNY_8_I8 => "linear_skinny<1, true, false>";
        SKINNY_8_U8 => "linear_skinny<1, true, true>";
        SKINNY_16_I8 => "linear_skinny<1, false, false>";
        SKINNY_16_U8 => "linear_skinny<1, false, true>";
        SKINNY_32_I8 => "linear_skinny<2, false, false>";
        SKINNY_32_U8 => "linear_skinny<2, false, true>";
        SKINNY_64_I8 => "linear_skinny<4, false, false>";
        SKINNY_64_U8 => "linear_skinny<4, false, true>";
    }
    "linear_stream.cuh", "LinearParams" {
        STREAM_8_I8 => "linear_stream<1, true, false>";
        STREAM_8_U8 => "linear_stream<1, true, true>";
        STREAM_16_I8 => "linear_stream<1, false, false>";
        STREAM_16_U8 => "linear_stream<1, false, true>";
        STREAM_32_I8 => "linear_stream<2, false, false>";
        STREAM_32_U8 => "linear_stream<2, false, true>";
        STREAM_64_I8 => "linear_stream<4, false, false>";
        STREAM_64_U8 => "linear_stream<4, false, true>";
    }
    "linear_stream_many.cuh", "LinearParams" {
        MANY_32_I8 => "linear_stream_many<false>";
        MANY_32_U8 => "linear_stream_many<true>";
    }
    "linear_stream_dot.cuh", "LinearParams" {
        DOT_1_I8 => "linear_stream_dot<1, false>";
        DOT_1_U8 => "linear_stream_dot<1, true>";
        DOT_2_I8 => "linear_stream_dot<2, false>";
        DOT_2_U8 => "linear_stream_dot<2, true>";
    }
    "linear_stream_columns.cuh", "LinearParams" {
        COLUMNS_4_I8 => "linear_stream_columns<4, false>";
        COLUMNS_4_U8 => "linear_stream_columns<4, true>";
    }
    "linear_pair.cuh", "PairParams" {
        PAIR_16_I8 => "linear_pair<16, false>";
        PAIR_16_U8 => "linear_pair<16, true>";
        PAIR_32_I8 => "linear_pair<32, false>";
        PAIR_32_U8 => "linear_pair<32, true>";
        PAIR_64_I8 => "linear_pair<64, false>";
        PAIR_64_U8 => "linear_pair<64, true>";
    }
    "linear_warpgroup.cuh", "WarpgroupParams" {
        WARPGROUP_32_I8 => "linear_warpgroup<32, 5, false>";
        WARPGROUP_32_U8 => "linear_warpgroup<32, 5, true>";
        WARPGROUP_64_I8 => "linear_warpgroup<64, 4, false>";
        WARPGROUP_64_U8 => "linear_warpgroup<64, 4, true>";
    }
    "linear_pingpong.cuh", "WarpgroupParams" {
        PINGPONG_I8 => "linear_pingpong<false>";
        PINGPONG_U8 => "linear_pingpong<true>";
    }
    "linear_expand.cuh", "ExpandParams" { EXPAND => "linear_expand"; }
    "linear_stream_norm.cuh", "NormLinearParams" { DOT_NORM_1 => "linear_stream_norm"; }
    "linear_stream_gated.cuh", "GatedLinearParams" {
        DOT_GATED_1 => "linear_stream_gated<1>";
        DOT_GATED_1_WIDE => "linear_stream_gated<GATED_TURNS>";
    }
    "argmax.cuh", "ArgmaxParams" { ARGMAX => "argmax"; }
    "int8_peak.cuh", "AddParams" { INT8_PEAK => "int8_peak"; }
    "linear_scalar.cuh", "LinearParams" {
        SCALAR_1 => "linear_scalar<1>";
        SCALAR_8 => "linear_scalar<8>";
    }
    "linear_float.cuh", "LinearParams" {
        FLOAT_F32 => "linear_float<DTYPE_F32>";
        FLOAT_F16 => "linear_float<DTYPE_F16>";
        FLOAT_BF16 => "linear_float<DTYPE_BF16>";
    }
    "gram.cuh", "GramParams" { GRAM => "gram"; }
    "observe.cuh", "ObserveParams" { OBSERVE_ROWS => "observe_rows"; }
    "observe.cuh", "LackParams" { OBSERVE_RESIDUAL => "observe_residual"; }
    "observe.cuh", "ChannelParams" { OBSERVE_CHANNELS => "observe_channels"; }
    "linear_gemm.cuh", "LinearParams" {
        GEMM_W8_I8 => "linear_gemm<FORMAT_W8, 128, 3, false>";
        GEMM_W8_U8 => "linear_gemm<FORMAT_W8, 128, 3, true>";
        GEMM_W8_WIDE_I8 => "linear_gemm<FORMAT_W8, 256, 4, false>";
        GEMM_W8_WIDE_U8 => "linear_gemm<FORMAT_W8, 256, 4, true>";
        GEMM_W4_I8 => "linear_gemm<FORMAT_W4_TWO_LEVEL, 128, 4, false>";
        GEMM_W4_U8 => "linear_gemm<FORMAT_W4_TWO_LEVEL, 128, 4, true>";
        GEMM_W4_GROUP_I8 => "linear_gemm<FORMAT_W4_GROUP, 128, 4, false>";
        GEMM_W4_GROUP_U8 => "linear_gemm<FORMAT_W4_GROUP, 128, 4, true>";
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_point_of_the_runtime_has_one_row() {
        for wanted in entry::ALL {
            let rows = KERNELS.iter().filter(|row| row.entry == *wanted).count();
            assert_eq!(rows, 1, "{}", wanted.name);
        }
        assert_eq!(KERNELS.len(), entry::ALL.len());
    }

    #[test]
    fn every_file_of_the_folder_is_listed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels");
        let mut found: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        let listed: Vec<&str> = FILES.iter().map(|file| file.name).collect();
        assert_eq!(found, listed);
    }
}
