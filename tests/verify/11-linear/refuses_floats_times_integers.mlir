!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_96_f32 = !nemo.act<96 : i64, f32, "none", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_i8 = !nemo.matrix<96 : i64, 32 : i64, i8, "channel", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
    %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.embed"(%t, %e) {name = "embeddings", precision = "float"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
    %a = "nemo.quantize_weight"(%e) {rounding = "rtn"} : (!matrix_96_32_bf16) -> !matrix_96_32_i8
    %y = "nemo.linear"(%x, %a) {name = "l", precision = "w8a8"} : (!act_32_f32, !matrix_96_32_i8) -> !act_96_f32  // expected-error: x is stored as f32 with an i8 weight, expected 8 bits
    return %x : !act_32_f32
  }
}
