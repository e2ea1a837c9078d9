!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_f32 = !nemo.matrix<96 : i64, 32 : i64, f32, "none", "plain", "plain">
!vector_32_f32 = !nemo.vector<32 : i64, f32>
!vector_96_f32 = !nemo.vector<96 : i64, f32>
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %c = "nemo.weight"() {tensor = "c"} : () -> !vector_32_f32
  %r = "nemo.weight"() {tensor = "r"} : () -> !vector_96_f32
  %0 = "nemo.scale_columns"(%e, %c) {inverse = false} : (!matrix_96_32_bf16, !vector_32_f32) -> !matrix_96_32_f32
  %1 = "nemo.scale_rows"(%0, %r) {inverse = false} : (!matrix_96_32_f32, !vector_96_f32) -> !matrix_96_32_f32
  return %x : !act_32_f32
}
