func.func @forward(%t: !nemo.tokens) -> !nemo.act<32 : i64, f32, "none", "plain"> {
  %e = "nemo.weight"() {tensor = "e"} : () -> !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
  %x = "nemo.embed"(%t, %e) {name = "e"} : (!nemo.tokens, !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">) -> !nemo.act<32 : i64, f32, "none", "plain">
  %y = "nemo.weight"() {tensor = "w"} : () -> !nemo.matrix<1000000000000000000 : i64, 32 : i64, bf16, "none", "plain", "plain">  // expected-error: rows is 1000000000000000000, expected 1 to 2147483647
  return %x : !nemo.act<32 : i64, f32, "none", "plain">
}
