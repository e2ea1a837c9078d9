!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_64_f32 = !nemo.act<64 : i64, f32, "none", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %y = "nemo.linear"(%x, %e) {name = "l"} : (!act_32_f32, !matrix_96_32_bf16) -> !act_64_f32  // expected-error: the columns of the result is 64, expected 96
  return %x : !act_32_f32
}
