!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
!r = !nemo.act<64 : i64, f32, "none", "residual">
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %xr = "nemo.rotate"(%x) {basis = "residual", kind = "random-hadamard", seed = 7 : i64, size = 64 : i64, transpose = false} : (!x) -> !r
    %n = "nemo.rms_norm"(%xr) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 0>} : (!r) -> !r
    %np = "nemo.rotate"(%n) {basis = "residual", kind = "random-hadamard", seed = 7 : i64, size = 64 : i64, transpose = true} : (!r) -> !x
    %u_w = "nemo.weight"() {tensor = "layers.0.mixer.up_proj.weight"} : () -> !tall
    %u = "nemo.linear"(%np, %u_w) {name = "layers.0.mixer.up_proj", precision = "float"} : (!x, !tall) -> !wide
    %d_w = "nemo.weight"() {tensor = "layers.0.mixer.down_proj.weight"} : () -> !narrow
    %d = "nemo.linear"(%u, %d_w) {name = "layers.0.mixer.down_proj", precision = "float"} : (!wide, !narrow) -> !x
    %dr = "nemo.rotate"(%d) {basis = "residual", kind = "random-hadamard", seed = 7 : i64, size = 64 : i64, transpose = false} : (!x) -> !r
    %s = "nemo.add"(%xr, %dr) : (!r, !r) -> !r
    %f = "nemo.rms_norm"(%s) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 0>} : (!r) -> !r
    %fp = "nemo.rotate"(%f) {basis = "residual", kind = "random-hadamard", seed = 7 : i64, size = 64 : i64, transpose = true} : (!r) -> !x
    %o = "nemo.select_outputs"(%fp) : (!x) -> !x
    %y_w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %y = "nemo.linear"(%o, %y_w) {name = "lm_head", precision = "float"} : (!x, !tall) -> !wide
    return %y : !wide
  }
}
