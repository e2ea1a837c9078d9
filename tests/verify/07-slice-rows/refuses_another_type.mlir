!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!matrix_32_16_bf16 = !nemo.matrix<32 : i64, 16 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %s = "nemo.slice_rows"(%e) {start = 0 : i64, count = 32 : i64} : (!matrix_96_32_bf16) -> !matrix_32_16_bf16  // expected-error: the result is !nemo.matrix<32 : i64, 16
  return %x : !act_32_f32
}
