!x = !nemo.act<32 : i64, f32, "none", "plain">
!w = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!v = !nemo.vector<32 : i64, f32>
!half = !nemo.vector<16 : i64, f32>
func.func @forward(%t: !nemo.tokens) -> !x {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !w
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !w) -> !x
  %a = "nemo.weight"() {tensor = "embeddings.weight.absmax"} : () -> !v
  %h = "nemo.weight"() {tensor = "h"} : () -> !half
  %0 = "nemo.smooth_factors"(%a, %h) {alpha = 5.0e-01 : f64, block = 1 : i64, power = 1.0e+00 : f64, share = 1 : i64} : (!v, !half) -> !v  // expected-error: the length of columns is 16, expected 32
  return %x : !x
}
