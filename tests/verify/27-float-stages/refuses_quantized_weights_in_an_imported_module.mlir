!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_i8 = !nemo.matrix<96 : i64, 32 : i64, i8, "channel", "plain", "plain">
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %w = "nemo.quantize_weight"(%e) {rounding = "rtn"} : (!matrix_96_32_bf16) -> !matrix_96_32_i8  // expected-error: the result is stored as i8, but a module at stage imported is not quantized
  return %x : !act_32_f32
}
