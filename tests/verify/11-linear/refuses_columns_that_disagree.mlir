!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_64_f32 = !nemo.act<64 : i64, f32, "none", "plain">
!matrix_64_16_bf16 = !nemo.matrix<64 : i64, 16 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %w = "nemo.weight"() {tensor = "w"} : () -> !matrix_64_16_bf16
  %y = "nemo.linear"(%x, %w) {name = "l"} : (!act_32_f32, !matrix_64_16_bf16) -> !act_64_f32  // expected-error: the columns of x is 32, expected 16
  return %x : !act_32_f32
}
