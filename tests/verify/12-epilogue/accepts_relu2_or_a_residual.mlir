!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!matrix_32_32_bf16 = !nemo.matrix<32 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %w = "nemo.weight"() {tensor = "w"} : () -> !matrix_32_32_bf16
  %a = "nemo.linear"(%x, %w) {name = "a", epilogue = "relu2"} : (!act_32_f32, !matrix_32_32_bf16) -> !act_32_f32
  %b = "nemo.linear"(%x, %w, %x) {name = "b"} : (!act_32_f32, !matrix_32_32_bf16, !act_32_f32) -> !act_32_f32
  return %x : !act_32_f32
}
