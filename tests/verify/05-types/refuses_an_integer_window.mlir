func.func @forward(%t: !nemo.tokens) -> !nemo.act<32 : i64, f32, "none", "plain"> {
  %e = "nemo.weight"() {tensor = "e"} : () -> !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
  %x = "nemo.embed"(%t, %e) {name = "e"} : (!nemo.tokens, !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">) -> !nemo.act<32 : i64, f32, "none", "plain">
  %y = "nemo.read_state"() {name = "s"} : () -> !nemo.state<"conv", 32 : i64, i8>  // expected-error: storage is i8, expected a float
  return %x : !nemo.act<32 : i64, f32, "none", "plain">
}
