!x = !nemo.act<32 : i64, f32, "none", "plain">
!w = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!v = !nemo.vector<32 : i64, f32>
!half = !nemo.vector<16 : i64, f32>
func.func @forward(%t: !nemo.tokens) -> !x {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !w
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !w) -> !x
  %h = "nemo.weight"() {tensor = "h"} : () -> !half
  %0 = "nemo.column_absmax"(%e, %h) : (!w, !half) -> !v  // expected-error: the length of other is 16, expected 32
  %1 = "nemo.column_absmax"(%e) : (!w) -> !half  // expected-error: expected 32 of f32
  return %x : !x
}
