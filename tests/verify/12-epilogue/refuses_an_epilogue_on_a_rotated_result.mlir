!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_96_f32_r = !nemo.act<96 : i64, f32, "none", "r">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_bf16_plain_r = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "r">
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %w = "nemo.rotate_weight"(%e) {side = "out", basis = "r", kind = "hadamard", size = 32 : i64, seed = 0 : i64, transpose = false} : (!matrix_96_32_bf16) -> !matrix_96_32_bf16_plain_r
  %y = "nemo.linear"(%x, %w) {name = "l", epilogue = "relu2"} : (!act_32_f32, !matrix_96_32_bf16_plain_r) -> !act_96_f32_r  // expected-error: expected plain f32
  return %x : !act_32_f32
}
