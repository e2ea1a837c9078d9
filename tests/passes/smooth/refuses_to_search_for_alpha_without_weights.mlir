// recipe: phase = 1
// recipe: [smooth]
// recipe: alpha = 'search'
!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!flat = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
module {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings"} : (!nemo.tokens, !tall) -> !x
    %up_w = "nemo.weight"() {tensor = "layers.0.mixer.up_proj.weight"} : () -> !tall
    %u = "nemo.linear"(%x, %up_w) {name = "layers.0.mixer.up_proj"} : (!x, !tall) -> !wide
    %r = "nemo.relu2"(%u) : (!wide) -> !wide
    %down_w = "nemo.weight"() {tensor = "layers.0.mixer.down_proj.weight"} : () -> !flat
    %y = "nemo.linear"(%r, %down_w) {name = "layers.0.mixer.down_proj"} : (!wide, !flat) -> !x
    return %y : !x
  }
}
