!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %g = "nemo.gated_rms_norm"(%x, %x) {eps = 1.0e-5 : f64, group_size = 12 : i64} : (!act_32_f32, !act_32_f32) -> !act_32_f32  // expected-error: groups of 12 do not divide 32 columns
  return %x : !act_32_f32
}
