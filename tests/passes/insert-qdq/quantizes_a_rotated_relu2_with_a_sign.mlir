!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
!rotated = !nemo.act<128 : i64, f32, "none", "layers.0.down_proj">
!rotated_narrow = !nemo.matrix<64 : i64, 128 : i64, f32, "none", "layers.0.down_proj", "plain">
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "w8a8"} : (!nemo.tokens, !tall) -> !x
    %u_w = "nemo.weight"() {tensor = "layers.0.mixer.up_proj.weight"} : () -> !tall
    %u = "nemo.linear"(%x, %u_w) {name = "layers.0.mixer.up_proj", precision = "w8a8"} : (!x, !tall) -> !wide
    %r = "nemo.relu2"(%u) : (!wide) -> !wide
    %h = "nemo.rotate"(%r) {basis = "layers.0.down_proj", kind = "hadamard", seed = 0 : i64, size = 128 : i64, transpose = false} : (!wide) -> !rotated
    %w = "nemo.weight"() {tensor = "layers.0.mixer.down_proj.weight"} : () -> !narrow
    %v = "nemo.rotate_weight"(%w) {basis = "layers.0.down_proj", kind = "hadamard", seed = 0 : i64, side = "in", size = 128 : i64, transpose = false} : (!narrow) -> !rotated_narrow
    %y = "nemo.linear"(%h, %v) {name = "layers.0.mixer.down_proj", precision = "w8a8"} : (!rotated, !rotated_narrow) -> !x
    return %y : !x
  }
}
