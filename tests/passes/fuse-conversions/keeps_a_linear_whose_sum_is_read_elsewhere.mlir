!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %u_w = "nemo.weight"() {tensor = "layers.0.mixer.up_proj.weight"} : () -> !tall
    %u = "nemo.linear"(%x, %u_w) {name = "layers.0.mixer.up_proj", precision = "float"} : (!x, !tall) -> !wide
    %d_w = "nemo.weight"() {tensor = "layers.0.mixer.down_proj.weight"} : () -> !narrow
    %d = "nemo.linear"(%u, %d_w) {name = "layers.0.mixer.down_proj", precision = "float"} : (!wide, !narrow) -> !x
    %n = "nemo.rms_norm"(%d) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 0>} : (!x) -> !x
    %e_w = "nemo.weight"() {tensor = "layers.1.mixer.up_proj.weight"} : () -> !tall
    %e = "nemo.linear"(%n, %e_w) {name = "layers.1.mixer.up_proj", precision = "float"} : (!x, !tall) -> !wide
    %y_w = "nemo.weight"() {tensor = "layers.1.mixer.down_proj.weight"} : () -> !narrow
    %y = "nemo.linear"(%e, %y_w) {name = "layers.1.mixer.down_proj", precision = "float"} : (!wide, !narrow) -> !x
    return %y : !x
  }
}
