// recipe: fold_norms = false
!x = !nemo.act<64 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!square = !nemo.matrix<64 : i64, 64 : i64, bf16, "none", "plain", "plain">
!vector = !nemo.vector<64 : i64, bf16>
module {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings"} : (!nemo.tokens, !tall) -> !x
    %w = "nemo.weight"() {tensor = "layers.0.norm.weight"} : () -> !vector
    %n = "nemo.rms_norm"(%x, %w) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 1>} : (!x, !vector) -> !x
    %q_w = "nemo.weight"() {tensor = "layers.0.mixer.q_proj.weight"} : () -> !square
    %q = "nemo.linear"(%n, %q_w) {name = "layers.0.mixer.q_proj"} : (!x, !square) -> !x
    %k_w = "nemo.weight"() {tensor = "layers.0.mixer.k_proj.weight"} : () -> !square
    %k = "nemo.linear"(%n, %k_w) {name = "layers.0.mixer.k_proj"} : (!x, !square) -> !x
    %y = "nemo.add"(%q, %k) : (!x, !x) -> !x
    return %y : !x
  }
}
