// recipe: phase = 1
!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.recipe = "{\22phase\22:1,\22group_size\22:128}", nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "w8a8"} : (!nemo.tokens, !tall) -> !x
    %w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %y = "nemo.linear"(%x, %w) {name = "lm_head", precision = "w8a8"} : (!x, !tall) -> !wide
    return %y : !wide
  }
}
