!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_32_f32_h = !nemo.act<32 : i64, f32, "none", "h">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
    %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.embed"(%t, %e) {name = "embeddings", precision = "float"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
    %a = "nemo.map"(%x) {relu2 = false, hadamard_block = 24 : i64} : (!act_32_f32) -> !act_32_f32_h  // expected-error: hadamard_block is 24, expected a power of two that divides 32
    return %x : !act_32_f32
  }
}
