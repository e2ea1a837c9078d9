!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %u_w = "nemo.weight"() {tensor = "layers.0.mixer.up_proj.weight"} : () -> !tall
    %u = "nemo.linear"(%x, %u_w) {name = "layers.0.mixer.up_proj", precision = "float"} : (!x, !tall) -> !wide
    %d_w = "nemo.weight"() {tensor = "layers.0.mixer.down_proj.weight"} : () -> !narrow
    %d = "nemo.linear"(%u, %d_w, %x) {name = "layers.0.mixer.down_proj", precision = "float"} : (!wide, !narrow, !x) -> !x
    %s = "nemo.add"(%d, %x) : (!x, !x) -> !x
    %o = "nemo.select_outputs"(%s) : (!x) -> !x
    %y_w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %y = "nemo.linear"(%o, %y_w) {name = "lm_head", precision = "float"} : (!x, !tall) -> !wide
    return %y : !wide
  }
}
