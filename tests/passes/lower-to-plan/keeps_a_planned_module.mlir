!buffer_32_f32_token = !nemo.buffer<32 : i64, f32, "token">
!buffer_96_f32_output = !nemo.buffer<96 : i64, f32, "output">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "planned"} {
  func.func @forward(%t: !nemo.tokens) -> !buffer_96_f32_output {
    %w = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.allocate"() {name = "x"} : () -> !buffer_32_f32_token
    %y = "nemo.allocate"() {name = "logits"} : () -> !buffer_96_f32_output
    "nemo.launch"(%w, %x) {kernel = "embed", roles = ["table/weight", "out"], parameters = "{\22table\22: {}}", fixed_bytes = 6144 : i64, row_bytes = 192 : i64, sequence_bytes = 0 : i64, row_ops = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (!matrix_96_32_bf16, !buffer_32_f32_token) -> ()
    return %y : !buffer_96_f32_output
  }
}
