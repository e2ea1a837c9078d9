!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %o = "nemo.select_outputs"(%x) : (!x) -> !x
    %q_w = "nemo.weight"() {tensor = "layers.0.mixer.q_proj.weight"} : () -> !tall
    %q = "nemo.linear"(%o, %q_w) {name = "layers.0.mixer.q_proj", precision = "float"} : (!x, !tall) -> !wide
    %k_w = "nemo.weight"() {tensor = "layers.0.mixer.k_proj.weight"} : () -> !tall
    %k = "nemo.linear"(%o, %k_w) {name = "layers.0.mixer.k_proj", precision = "float"} : (!x, !tall) -> !wide
    %y = "nemo.add"(%q, %k) : (!wide, !wide) -> !wide
    return %y : !wide
  }
}
