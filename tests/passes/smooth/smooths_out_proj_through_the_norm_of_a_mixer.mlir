// recipe: phase = 1
// recipe: [smooth]
// recipe: match = 'out_proj'
// recipe: alpha = 0.25
!x = !nemo.act<64 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!square = !nemo.matrix<64 : i64, 64 : i64, bf16, "none", "plain", "plain">
!vector = !nemo.vector<64 : i64, bf16>
module {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings"} : (!nemo.tokens, !tall) -> !x
    %w = "nemo.weight"() {tensor = "layers.0.mixer.norm.weight"} : () -> !vector
    %n = "nemo.gated_rms_norm"(%x, %x, %w) {eps = 1.0e-05 : f64, group_size = 32 : i64} : (!x, !x, !vector) -> !x
    %y_w = "nemo.weight"() {tensor = "layers.0.mixer.out_proj.weight"} : () -> !square
    %y = "nemo.linear"(%n, %y_w) {name = "layers.0.mixer.out_proj"} : (!x, !square) -> !x
    return %y : !x
  }
}
