!x = !nemo.act<32 : i64, f32, "none", "plain">
!w = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!rotated = !nemo.matrix<96 : i64, 32 : i64, f32, "none", "r", "plain">
!turned = !nemo.matrix<96 : i64, 32 : i64, f32, "none", "plain", "r">
!v = !nemo.vector<32 : i64, f32>
func.func @forward(%t: !nemo.tokens) -> !x {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !w
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !w) -> !x
  %r = "nemo.rotate_weight"(%e) {basis = "r", kind = "hadamard", seed = 0 : i64, side = "in", size = 32 : i64, transpose = false} : (!w) -> !rotated
  %o = "nemo.rotate_weight"(%e) {basis = "r", kind = "hadamard", seed = 0 : i64, side = "out", size = 32 : i64, transpose = false} : (!w) -> !turned
  %0 = "nemo.column_absmax"(%r) : (!rotated) -> !v  // expected-error: the input basis of base is r, expected plain
  %1 = "nemo.column_absmax"(%o) : (!turned) -> !v  // expected-error: the output basis of base is r, expected plain
  return %x : !x
}
