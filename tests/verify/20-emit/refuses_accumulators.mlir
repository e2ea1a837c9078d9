!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_32_i32 = !nemo.act<32 : i64, i32, "token_channel", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
    %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.embed"(%t, %e) {name = "embeddings", precision = "float"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
    %a = "nemo.map"(%x) {relu2 = false} : (!act_32_f32) -> !act_32_i32  // expected-error: expected f32 or 8 bits
    return %x : !act_32_f32
  }
}
