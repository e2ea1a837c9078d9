// recipe: rotation.kind = 'hadamard'
!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!vector = !nemo.vector<64 : i64, bf16>
module {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings"} : (!nemo.tokens, !tall) -> !x
    %w = "nemo.weight"() {tensor = "norm_f.weight"} : () -> !vector
    %n = "nemo.rms_norm"(%x, %w) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 1>} : (!x, !vector) -> !x
    %y_w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %y = "nemo.linear"(%n, %y_w) {name = "lm_head"} : (!x, !tall) -> !wide
    return %y : !wide
  }
}
