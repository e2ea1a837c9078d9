!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
!h = !nemo.act<64 : i64, f32, "none", "h">
!hw = !nemo.matrix<128 : i64, 64 : i64, f32, "none", "h", "plain">
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %o = "nemo.select_outputs"(%x) : (!x) -> !x
    %h = "nemo.rotate"(%o) {basis = "h", kind = "random-hadamard", seed = 0 : i64, size = 32 : i64, transpose = false} : (!x) -> !h
    %y_w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %y_r = "nemo.rotate_weight"(%y_w) {basis = "h", kind = "random-hadamard", seed = 0 : i64, size = 32 : i64, side = "in", transpose = false} : (!tall) -> !hw
    %y = "nemo.linear"(%h, %y_r) {name = "lm_head", precision = "float"} : (!h, !hw) -> !wide
    return %y : !wide
  }
}
