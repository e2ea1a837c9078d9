func.func @forward(%t: !nemo.tokens) -> !nemo.act<32 : i64, f32, "none", "plain"> {
  %e = "nemo.weight"() {tensor = "e"} : () -> !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
  %x = "nemo.embed"(%t, %e) {name = "e"} : (!nemo.tokens, !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">) -> !nemo.act<32 : i64, f32, "none", "plain">
  %y = "nemo.weight"() {tensor = "w"} : () -> !nemo.matrix<3 : i64, 64 : i64, i4, "two_level_48", "plain", "plain">  // expected-error: expected groups of a multiple of 32
  return %x : !nemo.act<32 : i64, f32, "none", "plain">
}
