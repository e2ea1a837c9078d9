!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_i8 = !nemo.matrix<96 : i64, 32 : i64, i8, "channel", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
    %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.embed"(%t, %e) {name = "embeddings", precision = "float"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
    %0 = "nemo.quantize_weight"(%e) {rounding = "up"} : (!matrix_96_32_bf16) -> !matrix_96_32_i8  // expected-error: rounding is "up", expected rtn, rtn-absmax, gptq
    return %x : !act_32_f32
  }
}
