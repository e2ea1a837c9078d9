!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!buffer_32_f32_token = !nemo.buffer<32 : i64, f32, "token">
!buffer_96_f32_output = !nemo.buffer<96 : i64, f32, "output">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "planned"} {
  func.func @forward(%t: !nemo.tokens) -> !buffer_96_f32_output {
    %w = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.allocate"() {name = "x"} : () -> !buffer_32_f32_token
    %y = "nemo.allocate"() {name = "logits"} : () -> !buffer_96_f32_output
    %e = "nemo.embed"(%t, %w) {name = "e"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32  // expected-error: a planned module has no such op
    return %y : !buffer_96_f32_output
  }
}
