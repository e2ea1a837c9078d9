!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
!h = !nemo.act<128 : i64, f32, "none", "layers.0.down_proj">
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %u_w = "nemo.weight"() {tensor = "layers.0.mixer.up_proj.weight"} : () -> !tall
    %u = "nemo.linear"(%x, %u_w) {name = "layers.0.mixer.up_proj", precision = "float"} : (!x, !tall) -> !wide
    %a = "nemo.relu2"(%u) : (!wide) -> !wide
    %h = "nemo.rotate"(%a) {basis = "layers.0.down_proj", kind = "hadamard", seed = 0 : i64, size = 128 : i64, transpose = false} : (!wide) -> !h
    %n = "nemo.rms_norm"(%h) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 0>} : (!h) -> !h
    %y = "nemo.rotate"(%n) {basis = "layers.0.down_proj", kind = "hadamard", seed = 0 : i64, size = 128 : i64, transpose = true} : (!h) -> !wide
    return %y : !wide
  }
}
