!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_bf16_plain_r = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "r">
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %r = "nemo.rotate_weight"(%e) {side = "out", basis = "r", kind = "hadamard", size = 32 : i64, seed = 0 : i64, transpose = false} : (!matrix_96_32_bf16) -> !matrix_96_32_bf16_plain_r
  %y = "nemo.embed"(%t, %r) {name = "again"} : (!nemo.tokens, !matrix_96_32_bf16_plain_r) -> !act_32_f32  // expected-error: the output basis of the table is r, expected plain
  return %x : !act_32_f32
}
