!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!vector_16_f32 = !nemo.vector<16 : i64, f32>
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %v = "nemo.weight"() {tensor = "v"} : () -> !vector_16_f32
  %n = "nemo.rms_norm"(%x, %v) {eps = 1.0e-5 : f64, operandSegmentSizes = array<i32: 1, 0, 1>} : (!act_32_f32, !vector_16_f32) -> !act_32_f32  // expected-error: the length of weight is 16, expected 32
  return %x : !act_32_f32
}
