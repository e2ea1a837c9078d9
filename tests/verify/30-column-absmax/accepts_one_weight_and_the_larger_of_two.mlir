!x = !nemo.act<32 : i64, f32, "none", "plain">
!w = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!v = !nemo.vector<32 : i64, f32>
func.func @forward(%t: !nemo.tokens) -> !x {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !w
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !w) -> !x
  %0 = "nemo.column_absmax"(%e) : (!w) -> !v
  %1 = "nemo.column_absmax"(%e, %0) : (!w, !v) -> !v
  return %x : !x
}
