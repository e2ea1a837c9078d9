!x = !nemo.act<32 : i64, f32, "none", "plain">
!w = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!v = !nemo.vector<32 : i64, f32>
!half = !nemo.vector<16 : i64, f32>
!short = !nemo.vector<16 : i64, bf16>
func.func @forward(%t: !nemo.tokens) -> !x {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !w
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !w) -> !x
  %a = "nemo.weight"() {tensor = "embeddings.weight.absmax"} : () -> !v
  %m = "nemo.column_absmax"(%e) : (!w) -> !v
  %0 = "nemo.smooth_factors"(%a, %m) {alpha = 5.0e-01 : f64, block = 1 : i64, power = 1.0e+00 : f64, share = 1 : i64} : (!v, !v) -> !half  // expected-error: expected 32 or 32 of f32
  %1 = "nemo.smooth_factors"(%a, %m) {alpha = 5.0e-01 : f64, block = 1 : i64, power = 1.0e+00 : f64, share = 2 : i64} : (!v, !v) -> !short  // expected-error: expected 32 or 16 of f32
  return %x : !x
}
